"""Prompts by templates, and the words that they are made of."""

from __future__ import annotations

from collections.abc import Sequence

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Text

# Where {} stands, there is what is shown.
TEMPLATES = (
  "{}",
  "a {}",
  "the number {}",
  "a photo of {}",
  "a drawing of {}",
  "a picture of the number {}",
  "{} on a wall",
  "the number {} on a wall",
)
NUMBERS = tuple("zero one two three four five six seven eight nine".split())


def every(
  templates: Sequence[str], words: Sequence[str], where: str
) -> dict[str, list[str]]:
  """Word -> its prompts, one for each template.

  Args:
    templates: each with one {}.
    words: what is shown.
    where: begins the message.

  Raises:
    UserError: a template has no place for a word, or there are none.
  """
  if not templates or not words:
    raise UserError(f"{where}: needs at least one of templates and of words")
  for one in templates:
    if one.count("{}") != 1:
      raise UserError(
        f"{where}.templates: {one!r} must hold {{}} once, where the word goes"
      )
  return {
    word: [" ".join(one.replace("{}", word).split()) for one in templates]
    for word in words
  }


def vocabulary(
  templates: Sequence[str], words: Sequence[str], where: str
) -> tuple[Text, int]:
  """The words of all prompts, as a form, and how many the longest has; equal
  templates and words have equal ids.

  Raises:
    UserError: as `every`.
  """
  texts = [x for own in every(templates, words, where).values() for x in own]
  found = [text.split() for text in texts]
  symbols = sorted({word for text in found for word in text})
  return Text(("", *symbols), joint=" "), max(map(len, found))
