"""Letters of 5 x 7 dots: text that is drawn, and can be read, without a font.

A line is a row of cells of 6 x 8 dots, a letter and the gaps behind and below
it; a dot is a square of `scale` pixels.
"""

from __future__ import annotations

import functools

import numpy as np

HEIGHT, WIDTH = 7, 5  # dots of a letter
LINE, ADVANCE = 8, 6  # dots of a cell

# Each row of dots as five bits, the highest on the left; rows from the top.
_ROWS = {
  "A": "0E 11 11 1F 11 11 11",
  "B": "1E 11 11 1E 11 11 1E",
  "C": "0E 11 10 10 10 11 0E",
  "D": "1E 11 11 11 11 11 1E",
  "E": "1F 10 10 1E 10 10 1F",
  "F": "1F 10 10 1E 10 10 10",
  "G": "0E 11 10 17 11 11 0F",
  "H": "11 11 11 1F 11 11 11",
  "I": "0E 04 04 04 04 04 0E",
  "J": "07 02 02 02 02 12 0C",
  "K": "11 12 14 18 14 12 11",
  "L": "10 10 10 10 10 10 1F",
  "M": "11 1B 15 15 11 11 11",
  "N": "11 11 19 15 13 11 11",
  "O": "0E 11 11 11 11 11 0E",
  "P": "1E 11 11 1E 10 10 10",
  "Q": "0E 11 11 11 15 12 0D",
  "R": "1E 11 11 1E 14 12 11",
  "S": "0F 10 10 0E 01 01 1E",
  "T": "1F 04 04 04 04 04 04",
  "U": "11 11 11 11 11 11 0E",
  "V": "11 11 11 11 11 0A 04",
  "W": "11 11 11 15 15 1B 11",
  "X": "11 11 0A 04 0A 11 11",
  "Y": "11 11 0A 04 04 04 04",
  "Z": "1F 01 02 04 08 10 1F",
  "0": "0E 11 13 15 19 11 0E",
  "1": "04 0C 04 04 04 04 0E",
  "2": "0E 11 01 02 04 08 1F",
  "3": "1F 02 04 02 01 11 0E",
  "4": "02 06 0A 12 1F 02 02",
  "5": "1F 10 1E 01 01 11 0E",
  "6": "06 08 10 1E 11 11 0E",
  "7": "1F 01 02 04 08 08 08",
  "8": "0E 11 11 0E 11 11 0E",
  "9": "0E 11 11 0F 01 02 0C",
}
SYMBOLS = "".join(_ROWS)


@functools.cache
def table() -> np.ndarray:
  """bool[symbols, 7, 5], in the order of SYMBOLS."""
  rows = [[int(row, 16) for row in own.split()] for own in _ROWS.values()]
  return (np.array(rows)[..., None] >> np.arange(WIDTH)[::-1] & 1).astype(bool)


def cells(size: int, scale: int) -> tuple[int, int]:
  """(lines, letters of a line) that a square of `size` pixels has room for."""
  return size // (LINE * scale), size // (ADVANCE * scale)


def corner(size: int, scale: int) -> tuple[int, int]:
  """(top, left) of the first cell: what is left over is a margin around."""
  lines, letters = cells(size, scale)
  return (
    (size - lines * LINE * scale) // 2,
    (size - letters * ADVANCE * scale) // 2,
  )


def drawn(lines: list[str], size: int, scale: int) -> np.ndarray:
  """bool[size, size]: where there is ink, of lines from the top.

  Raises:
    ValueError: there is no room for them, or no such letter.
  """
  ink = np.zeros((size, size), bool)
  top, left = corner(size, scale)
  room = cells(size, scale)
  if len(lines) > room[0] or max(map(len, lines), default=0) > room[1]:
    raise ValueError(f"{lines}: more than {room[0]} lines of {room[1]} letters")
  for i, line in enumerate(lines):
    for j, symbol in enumerate(line):
      if symbol == " ":
        continue
      dots = table()[SYMBOLS.index(symbol)]
      letter = np.kron(dots, np.ones((scale, scale), bool))
      at = top + i * LINE * scale, left + j * ADVANCE * scale
      ink[at[0] : at[0] + letter.shape[0], at[1] : at[1] + letter.shape[1]] = (
        letter
      )
  return ink
