"""The rule `prompts`: what an example shows, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.data.dataset import Example
from ar_jax.data.text import prompts as texts
from ar_jax.data.wrap.derived import Rule, field_of


def prompts(
  *,
  templates: Sequence[str] = texts.TEMPLATES,
  words: Sequence[str] = texts.NUMBERS,
  length: int = 0,
) -> Rule:
  """Adds `text`, i32[length]: ids of the words of a prompt that names the class
  of the example, by a template drawn anew each time.

  Args:
    templates: each with a {} where the name goes.
    words: the name of each class.
    length: of a text, filled up with 0; by default that of the longest.

  Raises:
    UserError: a template has no {}, or a text is longer than `length`.
  """
  where = "data.derive.prompts"
  form, longest = texts.vocabulary(templates, words, where)
  if length and length < longest:
    raise UserError(
      f"{where}.length={length}: the longest prompt has {longest} words"
    )
  size = length or longest
  ids = [
    [form.ids(text, size) for text in own]
    for own in texts.every(templates, words, where).values()
  ]

  def make(example: Example, rng: np.random.Generator) -> Example:
    label = int(field_of(example, "label", "prompts"))
    if label >= len(ids):
      raise UserError(
        f"{where}.words: {len(ids)} names, an example has the class {label}; "
        "name every class"
      )
    return {"text": ids[label][rng.integers(len(templates))]}

  return Rule(make, {"text": form})
