"""Words on pictures: a name before each row, a text below or above."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import ImageFont

from ar_jax.show.sheet import FONT, LETTER, Sheet, enlarged
from ar_jax.show.text import wrapped

_LINE = FONT + 3
_LEAST = 104  # pixels of what has a text below it
_LINES = 3  # of such a text
_LETTERS = 24  # of a line before a row
_GAP = 6


def before(sheet: np.ndarray, names: Sequence[str]) -> np.ndarray:
  """u8[H, W + margin, 3]: rows of equal height u8[H, W, c], each with its
  name."""
  high = sheet.shape[0] // len(names)
  rows = [_lines(name, _LETTERS, max(1, high // _LINE)) for name in names]
  font = ImageFont.load_default(FONT)
  width = max(font.getlength(line) for lines in rows for line in lines)
  margin = Sheet(1, 1, int(width) + 2 * _GAP, sheet.shape[0], gap=0)
  for i, lines in enumerate(rows):
    y = i * high + (high - len(lines) * _LINE) // 2
    for k, line in enumerate(lines):
      margin.write((_GAP, y + k * _LINE), line, "black")
  return np.concatenate([margin.array(), _coloured(sheet)], 1)


def above(sheet: np.ndarray, text: str) -> np.ndarray:
  """u8[H + room, W, 3]: a picture u8[H, W, c] of which all has one text."""
  letters = max(1, int((sheet.shape[1] - 2 * _GAP) / LETTER))
  lines = wrapped(text, letters)
  head = Sheet(1, 1, sheet.shape[1], len(lines) * _LINE + _GAP, gap=0)
  for k, line in enumerate(lines):
    head.write((_GAP, k * _LINE + _GAP // 2), line, "black")
  return np.concatenate([head.array(), _coloured(sheet)])


def below(
  tiles: np.ndarray, texts: Sequence[str], scale: int = 1
) -> np.ndarray:
  """u8[N, H, W, 3]: pictures u8[N, h, w, c], each above its own text; enlarged
  `scale` times, or as much as the texts need."""
  scale = max(scale, -(-_LEAST // tiles.shape[2]))
  width = scale * tiles.shape[2]
  texts = [_lines(text, int(width / LETTER), _LINES) for text in texts]
  room = max(map(len, texts)) * _LINE + _GAP
  found = []
  for tile, lines in zip(tiles, texts, strict=True):
    foot = Sheet(1, 1, width, room, gap=0)
    for k, line in enumerate(lines):
      foot.write((width // 2, 2 + k * _LINE), line, "black", anchor="ma")
    found += [np.concatenate([_coloured(enlarged(tile, scale)), foot.array()])]
  side = _GAP // 2
  room = ((0, 0), (side, side), (side, side), (0, 0))
  return np.pad(np.stack(found), room, constant_values=255)


def _coloured(sheet: np.ndarray) -> np.ndarray:
  return np.broadcast_to(sheet, (*sheet.shape[:2], 3))


def _lines(text: str, letters: int, most: int) -> list[str]:
  """Its first lines, at most so many; what is cut ends in dots."""
  lines = wrapped(text, letters)
  if len(lines) > most:
    lines = [*lines[: most - 1], lines[most - 1][: letters - 3] + "..."]
  return lines
