"""Does what a language model writes look like the text of the data?

The Jensen-Shannon divergence of the laws of n-grams, which is 0 bits where two
texts have them equally often and 1 where they share none; beside each its
floor, as much training text in place of the samples. Both sides have equally
many texts, since the divergence depends on how many there are.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ar_jax import conditions
from ar_jax.core.forms import Text
from ar_jax.core.system import UserError
from ar_jax.data import Dataset
from ar_jax.evals import samples

UNITS = ("characters", "words")
_MOST = 20_000  # training examples that words are looked up in


def grams(texts: Iterable[str], order: int, unit: str) -> collections.Counter:
  """How often each run of so many characters or words is in some texts."""
  count: collections.Counter = collections.Counter()
  for text in texts:
    units = text if unit == "characters" else text.split()
    count.update(
      tuple(units[i : i + order]) for i in range(len(units) - order + 1)
    )
  return count


def divergence(a: Mapping[Any, int], b: Mapping[Any, int]) -> float:
  """Bits between two laws, given by counts; 1 if one of them has none."""
  names = list({*a, *b})
  p = np.array([a.get(x, 0) for x in names], np.float64)
  q = np.array([b.get(x, 0) for x in names], np.float64)
  if not p.sum() or not q.sum():
    return 1.0
  p, q = p / p.sum(), q / q.sum()
  half = (p + q) / 2
  with np.errstate(divide="ignore", invalid="ignore"):
    terms = [np.where(x > 0, x * np.log2(x / half), 0).sum() for x in (p, q)]
  return float(max(sum(terms) / 2, 0.0))


def inner_words(text: str) -> list[str]:
  """The words of a text without the first and the last, which may be cut."""
  return text.split()[1:-1]


def build(
  data: Dataset,
  *,
  field: str = "text",
  n: int = 0,
  orders: Sequence[int] = (1, 2, 3),
  unit: str = "characters",
  batch: int = 100,
  options: Mapping[str, Any] | None = None,
  draw: samples.Draw | None = None,
):
  """The evaluator of samples of text against the text of the data.

  Args:
    data: the samples are compared with its test split.
    field: the text that the system makes.
    n: how many samples; 0 means as many as the test split has.
    orders: lengths of the runs that are counted.
    unit: "characters" or "words", separated by white space.
    batch: samples drawn at once.
    options: of `system.sample`.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. Its results are `ngram_js_1`, `ngram_js_2`, ... in bits, and
    `known_words`, the share of words that occur in the training split; each
    also with `_floor`, of training text (for words: of test text).

  Raises:
    UserError: the data have no such text, or an option is wrong.
  """
  form = data.forms.get(field)
  if not isinstance(form, Text):
    raise UserError(
      f"evals.ngrams: field={field!r} is no text of {data.name!r}, which has "
      f"{', '.join(data.forms)}"
    )
  if unit not in UNITS or not orders or min(orders) < 1:
    raise UserError(
      f"evals.ngrams: unit={unit!r} must be one of {', '.join(UNITS)}, "
      f"orders={tuple(orders)} at least 1"
    )
  n = n or min(len(data.test), len(data.train))

  def texts(source, count: int) -> list[str]:
    rows = conditions.some(len(source), count)
    return [form.read(source[int(i)][field]) for i in rows]

  def evaluate(system, variables, batches, key):
    del batches
    samples.check_makes(system, field, "ngrams")
    cond = conditions.conditions(system, data, n)
    drawn = samples.field(
      field, system, variables, cond, key, evaluator="ngrams", batch=batch,
      forms=data.forms, options=options, draw=draw,
    )  # fmt: skip
    found = [form.read(ids) for part in drawn for ids in part]
    test, train = texts(data.test, n), texts(data.train, n)
    results: dict[str, Any] = {}
    for order in orders:
      real = grams(test, order, unit)
      for suffix, other in (("", found), ("_floor", train)):
        bits = divergence(grams(other, order, unit), real)
        results[f"ngram_js_{order}{suffix}"] = bits
    known = set()
    for text in texts(data.train, min(len(data.train), _MOST)):
      known.update(text.split())
    for suffix, some in (("", found), ("_floor", test)):
      words = [w for text in some for w in inner_words(text)]
      results[f"known_words{suffix}"] = (
        float(np.mean([w in known for w in words]))
        if words
        else "unavailable: no text has three words"
      )
    return {
      **results,
      "protocol": {
        "samples": n,
        "unit": unit,
        "floor": f"{n} training texts in place of the samples; of known words "
        f"{n} test texts",
        "reference": f"{n} texts of the test split",
        "options": dict(options or {}),
      },
    }

  return evaluate
