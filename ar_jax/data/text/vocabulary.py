"""Which symbols a text is made of, and their numbers.

A vocabulary is a form, `core.forms.Text`: it is stored with the run, and says
how ids are read. Id 0 ends a text and fills it up; id 1 is the symbol of all
that the training part did not have, or too seldom.

  characters   one symbol each; read by joining them
  words        runs of letters and digits, and every other mark by itself;
               read with a space between any two
  bytes        UTF-8, without a table of symbols; nothing is unknown

N characters, words or bytes of a text.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Iterable

import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.forms import Text

UNITS = ("characters", "words", "bytes")
STOP, UNKNOWN = 0, 1
_UNKNOWN = {"characters": "\N{REPLACEMENT CHARACTER}", "words": "<unk>"}
# "don't" and "well-known" are one word, "end." is two.
_WORD = re.compile(r"\w+(?:['\N{RIGHT SINGLE QUOTATION MARK}-]\w+)*|[^\w\s]")


def words(text: str) -> list[str]:
  """The words and marks of a text, in order."""
  return _WORD.findall(text)


def vocabulary(texts: Iterable[str], unit: str, most: int = 0) -> Text:
  """The vocabulary of some texts, those for training.

  Args:
    texts: any number of them.
    unit: one of UNITS.
    most: ids, the first two among them; the symbols that occur most often are
      taken. 0 takes all. Of bytes there are always 256.

  Returns:
    The form. Characters are in the order of their code points, words in that
    of how often they occur.

  Raises:
    UserError: there is no such unit, or `most` leaves no symbol.
  """
  check_choice("data.unit", unit, UNITS)
  if unit == "bytes":
    if most:
      raise UserError(f"data.vocab={most}: of bytes there are always 256")
    return Text()
  if most and most < 3:
    raise UserError(
      f"data.vocab={most}: must be at least 3, two of which are the end and "
      "the unknown; 0 takes every symbol"
    )
  count: collections.Counter[str] = collections.Counter()
  for text in texts:
    count.update(text if unit == "characters" else words(text))
  special = ("", _UNKNOWN[unit])
  for symbol in special:
    count.pop(symbol, None)
  # Equally frequent ones by their name, so that order of files changes nothing.
  order = sorted(count, key=lambda s: (-count[s], s))
  order = order[: most - 2] if most else order
  if unit == "characters":
    order.sort()
  joint = " " if unit == "words" else ""
  return Text((*special, *order), joint=joint, stop=STOP)


def encoder(form: Text) -> Callable[[str], np.ndarray]:
  """Text -> its ids i32[N] by a form of `vocabulary`, UNKNOWN for what has no
  symbol in it. (`Text.ids` refuses such a text.)"""
  index = {symbol: i for i, symbol in enumerate(form.symbols) if i != STOP}

  def of_bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)

  def of_words(text: str) -> np.ndarray:
    return np.asarray([index.get(w, UNKNOWN) for w in words(text)], np.int32)

  def of_characters(text: str) -> np.ndarray:
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    kinds, where = np.unique(codes, return_inverse=True)
    ids = [index.get(chr(code), UNKNOWN) for code in kinds]
    return np.asarray(ids, np.int32)[where]

  if not form.symbols:
    return of_bytes
  return of_words if form.joint else of_characters
