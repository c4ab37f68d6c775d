"""Is the text that was made the one that was meant? Character and word error
rates against the test example that each condition comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ar_jax import conditions
from ar_jax.core.forms import Text
from ar_jax.core.system import UserError
from ar_jax.data import Dataset
from ar_jax.evals import samples
from ar_jax.evals.text.distance import edit_distance


def errors(
  found: Sequence[str], truth: Sequence[str]
) -> dict[str, float | str]:
  """What is wrong with texts.

  Args:
    found: N texts.
    truth: what each should be.

  Returns:
    `cer` and `wer`: edits of characters and of words over all texts, in
    shares of the characters and words of the truth (they can exceed 1);
    `exact`, the share of texts without an error; `edit_distance`, characters
    of a text on average; `length_error`, by how many characters a text is too
    long or too short on average.
  """
  letters = sum(map(len, truth))
  if not letters:
    raise UserError("transcripts: every true text is empty; nothing to compare")
  edits = [edit_distance(a, b) for a, b in zip(found, truth, strict=True)]
  words = [text.split() for text in truth]
  wrong = [
    edit_distance(a.split(), b) for a, b in zip(found, words, strict=True)
  ]
  count = sum(map(len, words))
  off = [abs(len(a) - len(b)) for a, b in zip(found, truth, strict=True)]
  return {
    "cer": sum(edits) / letters,
    "wer": sum(wrong) / count if count else "unavailable: there are no words",
    "exact": float(np.mean([e == 0 for e in edits])),
    "edit_distance": float(np.mean(edits)),
    "length_error": float(np.mean(off)),
  }


def build(
  data: Dataset,
  *,
  field: str = "text",
  n: int = 0,
  batch: int = 100,
  lower: bool = False,
  options: Mapping[str, Any] | None = None,
  draw: samples.Draw | None = None,
):
  """The evaluator of texts that have a truth.

  Args:
    data: conditions and true texts are of its test split.
    field: the text that the system makes.
    n: how many test examples, in a random order; 0 means all.
    batch: samples drawn at once.
    lower: whether capitals count as small letters.
    options: of `system.sample`.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. Its results are those of `errors`, each also with
    `_baseline`: of the true text of another example in place of what was made.

  Raises:
    UserError: the data have no such text.
  """
  form = data.forms.get(field)
  if not isinstance(form, Text):
    raise UserError(
      f"evals.transcripts: field={field!r} is no text of {data.name!r}, which "
      f"has {', '.join(data.forms)}"
    )
  n = n or len(data.test)
  read = lambda ids: form.read(ids).lower() if lower else form.read(ids)

  def evaluate(system, variables, batches, key):
    del batches
    samples.check_makes(system, field, "transcripts")
    samples.check_pairs(system, "transcripts")
    cond = conditions.conditions(system, data, n)
    rows = conditions.truth(system, data, n, fields=(field,))[field]
    drawn = samples.field(
      field, system, variables, cond, key, evaluator="transcripts",
      batch=batch, forms=data.forms, options=options, draw=draw,
    )  # fmt: skip
    found = [read(ids) for part in drawn for ids in part]
    truth = [read(ids) for ids in rows]
    base = errors([*truth[1:], truth[0]], truth) if n > 1 else {}
    return {
      **errors(found, truth),
      **{f"{name}_baseline": value for name, value in base.items()},
      "protocol": {
        "texts": n,
        "baseline": "the true text of another test example",
        "conditions": conditions.described(system, ""),
        "case": "ignored" if lower else "kept",
        "options": dict(options or {}),
      },
    }

  return evaluate
