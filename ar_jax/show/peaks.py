"""Spectra of masses: lines, and a table."""

from __future__ import annotations

import pathlib

import numpy as np

from ar_jax.core.forms import Peaks
from ar_jax.show import series
from ar_jax.show.sheet import COLOURS, Sheet, scaled

_WIDTH, _HEIGHT, _EDGE = 260, 120, 4
_COLUMNS = 4


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
    sheet.frame(i)
    mass, strength = _there(x[i]).T
    bottom = top + _HEIGHT - _EDGE
    at = scaled(mass, 0, most, left + _EDGE, left + _WIDTH - _EDGE)
    up = scaled(
      strength, 0, max(strength.max(initial=0), 1e-9), bottom, top + 16
    )
    for a, b in zip(at.tolist(), up.tolist(), strict=True):
      sheet.pen.line((a, bottom, a, b), COLOURS[0])
    sheet.write((left + 3, top + 1), f"{i}: up to {most:.4g} m/z")
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
