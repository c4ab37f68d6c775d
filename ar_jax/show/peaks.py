"""Spectra of masses: lines, and a table."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ar_jax.core.forms import Peaks
from ar_jax.show import series
from ar_jax.show.sheet import COLOURS, GREY, LETTER, Sheet, scaled

_WIDTH, _HEIGHT, _EDGE = 260, 120, 4
_COLUMNS = 4
NEAR = 0.05  # Da between a peak and the ion that it is


class Ion(NamedTuple):
  """A fragment that a peak may be: its name, its m/z, and its colour."""

  name: str
  mz: float
  colour: tuple[int, int, int]


def picture(
  form: Peaks, x: np.ndarray, beside: dict, *, columns: int, truth=None
) -> np.ndarray:
  """Of each spectrum a line for every peak: intensity, from 0 to the largest,
  over mass over charge, from 0 to the largest of all."""
  del form, beside, truth
  sheet = Sheet(len(x), min(columns, _COLUMNS), _WIDTH, _HEIGHT)
  most = max(float(x[..., 0].max(initial=0)), 1e-9)
  for i in range(sheet.count):
    left, top = sheet.corner(i)
    sheet.paste((left, top), panel(x[i], _WIDTH, _HEIGHT, most))
    sheet.write((left + 3, top + 1), f"{i}: up to {most:.4g} m/z")
  return sheet.array()


def panel(
  x: np.ndarray,
  width: int,
  height: int,
  most: float | None = None,
  ions: Sequence[Ion] = (),
) -> np.ndarray:
  """u8[height, width, 3]: a spectrum.

  Args:
    x: f32[P, 2].
    most: the m/z at its right; None is the largest of its own, which is then
      written there.
    ions: where there are any, the peaks within NEAR of one have its colour and
      its name, and the others are grey.
  """
  sheet = Sheet(1, 1, width, height, gap=0)
  sheet.frame(0)
  mass, strength = _there(x).T
  bottom, top = height - _EDGE, 28 if ions else 16
  if most is None:
    most = max(float(mass.max(initial=0)), 1e-9)
    words = f"{most:.4g} m/z"
    sheet.write((width - 4, 1), words, GREY, anchor="ra")
  across = scaled(mass, 0, most, _EDGE, width - _EDGE)
  loudest = max(strength.max(initial=0), 1e-9)
  up = scaled(strength, 0, loudest, bottom, top)
  for m, a, b in zip(mass.tolist(), across.tolist(), up.tolist(), strict=True):
    own = min(ions, key=lambda ion, m=m: abs(ion.mz - m), default=None)
    if own is None or abs(own.mz - m) > NEAR:
      colour = GREY if ions else COLOURS[0]
      sheet.pen.line((a, bottom, a, b), colour)
      continue
    sheet.pen.line((a, bottom, a, b), own.colour, 2)
    half = len(own.name) * LETTER / 2  # of its name, which stays on the panel
    at = min(max(a, half), width - half - 1)
    sheet.write((at, b - 1), own.name, own.colour, anchor="md")
  return sheet.array()


def _there(peaks: np.ndarray) -> np.ndarray:
  """The peaks that there are, [P, 2]."""
  return peaks[(peaks != 0).any(1)]


def write(
  folder: pathlib.Path,
  stem: str,
  form: Peaks,
  x: np.ndarray,
  beside: dict,
  columns: int,
  most: int,
) -> list[pathlib.Path]:
  """`stem.csv`: sample, mass over charge and intensity, a row for each peak."""
  del form, beside, columns, most
  rows = (
    [i, f"{mass:.9g}", f"{strength:.9g}"]
    for i, peaks in enumerate(x[: series.TABLED])
    for mass, strength in _there(peaks)
  )
  head = ["sample", "mz", "intensity"]
  return series.table(folder / f"{stem}.csv", head, rows)


def said(form: Peaks, x: np.ndarray) -> tuple[str, str]:
  return "spectra", f"{x.shape[1]} peaks at most"
