"""How many edits are between two sequences."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
  """The least number of symbols to insert, drop or replace to make b of a
  (Levenshtein 1966); by rapidfuzz where it is installed."""
  try:
    from rapidfuzz.distance import Levenshtein
  except ImportError:
    return own(a, b)
  return Levenshtein.distance(a, b)


def own(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
  """`edit_distance` without rapidfuzz.

  A column of the table of distances differs from place to place by -1, 0 or
  1, so it is two whole numbers, a bit a place, and a column takes a few
  operations of Python (Myers 1999, in the form of Hyyro 2001).
  """
  if not len(a):
    return len(b)
  where: dict[Hashable, int] = {}
  for i, symbol in enumerate(a):
    where[symbol] = where.get(symbol, 0) | 1 << i
  every, last = (1 << len(a)) - 1, 1 << len(a) - 1
  up, down, distance = every, 0, len(a)  # a place is 1 more, 1 less than above
  for symbol in b:
    same = where.get(symbol, 0)
    diagonal = (((same & up) + up) ^ up) | same | down
    right_up = down | ~(diagonal | up)
    right_down = up & diagonal
    if right_up & last:
      distance += 1
    elif right_down & last:
      distance -= 1
    right_up = right_up << 1 | 1
    right_down <<= 1
    up = (right_down | ~(diagonal | right_up)) & every
    down = right_up & diagonal & every
  return distance
