"""Peptides by their masses: symbols, ions, and which residues of two agree.

Masses are in Da; m/z is mass over charge. An id is 0 behind the end, 1 to 27
for the symbols. N residues.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ar_jax.core.errors import UserError

WATER, PROTON = 18.010565, 1.007276
ISOTOPE = 1.00335  # between two isotopes
# Residues, three modified ones, and four modifications of the N-terminus. I is
# kept for published weights and never used: it weighs as much as L.
_MASSES = {
  "G": 57.021464,
  "A": 71.037114,
  "S": 87.032028,
  "P": 97.052764,
  "V": 99.068414,
  "T": 101.047670,
  "C+57.021": 160.030649,
  "L": 113.084064,
  "I": 113.084064,
  "N": 114.042927,
  "D": 115.026943,
  "Q": 128.058578,
  "K": 128.094963,
  "E": 129.042593,
  "M": 131.040485,
  "H": 137.058912,
  "F": 147.068414,
  "R": 156.101111,
  "Y": 163.063329,
  "W": 186.079313,
  "M+15.995": 147.035400,
  "N+0.984": 115.026943,
  "Q+0.984": 129.042594,
  "+42.011": 42.010565,
  "+43.006": 43.005814,
  "-17.027": -17.026549,
  "+43.006-17.027": 25.979265,
}
SYMBOLS = tuple(_MASSES)
IDS = {symbol: i for i, symbol in enumerate(SYMBOLS, 1)}
# What the published alphabets have, from a mistyped 43.006814.
RELEASED = {"+43.006-17.027": 25.980265}
TERMINAL = 4  # the last symbols, which stand before a first residue
_PART = re.compile(r"[A-Z]?(?:[+-]\d+\.\d+)*")


def masses(released: bool = False) -> np.ndarray:
  """f64[28]: of each id, 0 of id 0; `released` with the masses that published
  weights were trained with."""
  found = _MASSES | (RELEASED if released else {})
  return np.asarray([0.0, *found.values()])


def parse(text: str) -> np.ndarray:
  """i32[N]: the ids of a peptide, from its N-terminus: `+42.011PEPC+57.021K`.
  I is read as L, and a C without a mass as the modified one.

  Raises:
    UserError: something in it is no symbol.
  """
  found, at = [], 0
  while at < len(text):
    part = _PART.match(text, at)[0]
    symbol = {"I": "L", "C": "C+57.021"}.get(part, part)
    if symbol not in IDS:
      rest = part or text[at]
      raise UserError(
        f"peptide {text[:40]!r}: {rest!r} is none of the symbols "
        f"{', '.join(SYMBOLS)}"
      )
    found.append(IDS[symbol])
    at += len(part)
  return np.asarray(found, np.int32)


def spell(ids: Sequence[int]) -> str:
  """The peptide of ids, up to the first 0."""
  found = []
  for i in np.asarray(ids).tolist():
    if not i:
      break
    found.append(SYMBOLS[i - 1])
  return "".join(found)


def neutral(ids: Sequence[int], released: bool = False) -> float:
  """The mass of a peptide, with its water."""
  return float(masses(released)[np.asarray(ids, int)].sum() + WATER)


def mz(mass: float, charge: float) -> float:
  """m/z of a neutral mass."""
  return mass / charge + PROTON


def ions(ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
  """(b f64[N - 1], y f64[N - 1]) of charge 1: b_i of the first i residues, y_i
  of the last i, i = 1 .. N - 1; b_i + y_(N - i) is the mass of the peptide and
  two protons. A modification of the N-terminus belongs to the first residue."""
  own = masses()[np.asarray(ids, int)]
  terminal = np.asarray(ids) > len(SYMBOLS) - TERMINAL
  if len(own) > 1 and terminal[0]:
    own = np.concatenate([[own[0] + own[1]], own[2:]])
  b = np.cumsum(own)[:-1] + PROTON
  y = np.cumsum(own[::-1])[:-1] + WATER + PROTON
  return b, y


def agreement(
  first: Sequence[int],
  second: Sequence[int],
  prefix: float = 0.5,
  residue: float = 0.1,
) -> np.ndarray:
  """bool[max(N, M)]: which residues of two peptides agree: from the left, and
  where the two differ then from the right. Where the masses so far are within
  `prefix` Da, two residues are compared by their own masses, within `residue`;
  else the lighter side goes on (DeepNovo's rule as Casanovo has it)."""
  table = masses()
  a, b = (table[np.asarray(x, int)].tolist() for x in (first, second))
  found = np.zeros(max(len(a), len(b)), bool)
  _walk(a, b, found, 0, prefix, residue, 1)
  if found.all():
    return found
  _walk(a, b, found, int(np.argmin(found)), prefix, residue, -1)
  return found


def _walk(a, b, found, stop, prefix, residue, step) -> None:
  """Marks what agrees; backwards down to the place `stop`."""
  i, j = (0, 0) if step > 0 else (len(a) - 1, len(b) - 1)
  left = right = 0.0
  on = lambda i, n: i < n if step > 0 else i >= stop
  while on(i, len(a)) and on(j, len(b)):
    ours, theirs = left + a[i], right + b[j]
    if abs(ours - theirs) < prefix:
      found[max(i, j)] = abs(a[i] - b[j]) < residue
      i, j, left, right = i + step, j + step, ours, theirs
    elif theirs > ours:
      i, left = i + step, ours
    else:
      j, right = j + step, theirs


def scores(
  true: Sequence[Sequence[int]], predicted: Sequence[Sequence[int]]
) -> dict[str, float]:
  """Of peptides and their predictions: `aa_precision` and `aa_recall`, the
  residues that agree among those predicted and among the true ones;
  `peptide_recall`, the share of peptides of which all do."""
  agree = [agreement(*pair) for pair in zip(true, predicted, strict=True)]
  right = sum(int(x.sum()) for x in agree)
  count = lambda rows: max(sum(map(len, rows)), 1)
  whole = [len(x) > 0 and bool(x.all()) for x in agree]
  return {
    "aa_precision": right / count(predicted),
    "aa_recall": right / count(true),
    "peptide_recall": float(np.mean(whole)),
  }
