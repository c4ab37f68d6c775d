"""Texts as the pieces that a large encoder reads, by its own vocabulary.

Unigram pieces (arXiv 1804.10959) of a local `spiece.model` (SentencePiece) or
`tokenizer.json`, as T5 publishes both: of all ways to cut a text the likeliest.
Of the normalisation NFKC is done and runs of spaces become one; a published
table may differ in rare signs.
"""

from __future__ import annotations

import json
import math
import pathlib
import struct
import unicodedata
from collections.abc import Mapping

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.files import protobuf

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_END = "</s>"
_PENALTY = 10.0  # below the least likely piece, of a sign that is in none
_PLAIN = (1, 4)  # kinds of pieces that are of texts: normal, of the user


class Pieces:
  """A vocabulary.

  Args:
    scores: piece -> (its number, log-probability), of those that are of texts.
    unknown: the number of what is in no piece.
    end: the number that ends a text.
  """

  def __init__(
    self, scores: Mapping[str, tuple[int, float]], unknown: int, end: int
  ):
    self._scores, self._unknown, self._end = dict(scores), unknown, end
    self._longest = max(map(len, self._scores))
    least = min(score for _, score in self._scores.values())
    self._least = least - _PENALTY

  def ids(self, text: str) -> list[int]:
    """The numbers of the pieces of a text, the end behind them."""
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    if not text:
      return [self._end]
    text = SPACE + text.replace(" ", SPACE)
    best = [0.0] + [-math.inf] * len(text)
    back: list[tuple[int, int]] = [(0, 0)] * (len(text) + 1)
    for start in range(len(text)):
      for stop in range(start + 1, min(len(text), start + self._longest) + 1):
        found = self._scores.get(text[start:stop])
        if found is None:
          if stop > start + 1:
            continue
          found = self._unknown, self._least
        score = best[start] + found[1]
        if score > best[stop]:
          best[stop], back[stop] = score, (start, found[0])
    made, at = [], len(text)
    while at:
      at, number = back[at]
      # Signs in a row that are in no piece are one.
      if number != self._unknown or made[-1:] != [number]:
        made.append(number)
    return [*made[::-1], self._end]

  def rows(self, texts: list[str], length: int) -> np.ndarray:
    """i32[N, length]: texts, zeros behind their ends; what is longer is cut,
    and ends."""
    found = np.zeros((len(texts), length), np.int32)
    for row, text in zip(found, texts, strict=True):
      ids = self.ids(text)
      ids = ids if len(ids) <= length else [*ids[: length - 1], self._end]
      row[: len(ids)] = ids
    return found


def read(path: str) -> Pieces:
  """The vocabulary of a file.

  Raises:
    UserError: it is none of the two kinds, or damaged.
  """
  try:
    content = pathlib.Path(path).expanduser().read_bytes()
  except OSError as e:
    raise UserError(f"{path}: cannot be read ({e})") from e
  try:
    made = _of_json(content) if content[:1] == b"{" else _of_model(content)
  except (ValueError, KeyError, IndexError, TypeError, struct.error) as e:
    raise UserError(
      f"{path}: neither a spiece.model nor a tokenizer.json of unigrams ({e!r})"
    ) from e
  return made


def _of_json(content: bytes) -> Pieces:
  """Of `tokenizer.json`; pieces that were added are of no text."""
  model = json.loads(content)
  added = {x["content"] for x in model.get("added_tokens", ())}
  vocab, unknown = model["model"]["vocab"], model["model"]["unk_id"]
  numbers = {piece: (i, score) for i, (piece, score) in enumerate(vocab)}
  end = numbers[_END][0]
  plain = {k: v for k, v in numbers.items() if k not in added}
  return Pieces(plain, unknown, end)


def _of_model(content: bytes) -> Pieces:
  """Of `spiece.model`: the first field of the message is one piece, with its
  text, score and kind."""
  plain, unknown, end = {}, 0, None
  pieces = (v for field, v in protobuf.fields(content) if field == 1)
  for i, piece in enumerate(pieces):
    own = dict(protobuf.fields(piece))
    text, kind = bytes(own[1]).decode("utf-8"), own.get(3, 1)
    if text == _END:
      end = i
    if kind == 2:
      unknown = i
    elif kind in _PLAIN:
      score = struct.unpack("<f", own[2])[0] if 2 in own else 0.0
      plain[text] = i, score
  if end is None or not plain:
    raise ValueError("no pieces")
  return Pieces(plain, unknown, end)
