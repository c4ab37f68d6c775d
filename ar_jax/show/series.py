"""Series: lines over time, and a table."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from ar_jax.core.forms import Series
from ar_jax.show.files import whole
from ar_jax.show.sheet import COLOURS, GREY, Sheet, scaled

_WIDTH, _HEIGHT, _EDGE = 260, 120, 4
_COLUMNS = 4
TABLED = 1000  # series of a table, at most


def picture(
  form: Series, x: np.ndarray, beside: dict, *, columns: int, truth=None
) -> np.ndarray:
  """Of each series its values over time, one colour for each, from the least
  to the largest, which are written at the side; the truth in grey below. Where
  a `history` stands beside it, it leads up to both."""
  past = beside.get("history")
  if past is not None and np.shape(past)[2:] == x.shape[2:]:
    past = np.asarray(past)[: len(x)]
    x = np.concatenate([past, x], 1)
    if truth is not None:
      truth = np.concatenate([past, np.asarray(truth)[: len(x)]], 1)
  x = form.original(x)
  truth = None if truth is None else form.original(truth)
  sheet = Sheet(len(x), min(columns, _COLUMNS), _WIDTH, _HEIGHT)
  for i in range(sheet.count):
    left, top = sheet.corner(i)
    sheet.frame(i)
    rows = [x[i]]
    if truth is not None:
      rows.insert(0, np.asarray(truth[i], np.float32))
    every = np.concatenate([r.ravel() for r in rows])
    every = every[np.isfinite(every)]
    low, high = (every.min(), every.max()) if every.size else (0.0, 1.0)
    right, bottom = left + _WIDTH - _EDGE, top + _HEIGHT - _EDGE
    longest = max(map(len, rows))
    for row, true in zip(rows, (len(rows) > 1, False), strict=False):
      time = scaled(
        np.arange(len(row)), 0, max(longest - 1, 1), left + _EDGE, right
      )
      for d in range(row.shape[1]):
        y = scaled(row[:, d], low, high, bottom, top + _EDGE)
        colour = (200, 200, 200) if true else COLOURS[d % len(COLOURS)]
        sheet.line(np.stack([time, y], 1), colour, 3 if true else 1)
    sheet.write((left + 3, top + 1), f"{high:.4g}")
    sheet.write((left + 3, top + _HEIGHT - 14), f"{low:.4g}")
    at = (left + _WIDTH - 4, top + 1)
    sheet.write(at, str(i), GREY, anchor="ra")
    if i == 0:
      for d, name in enumerate(form.names[:6]):
        at = (left + _WIDTH - 4, top + 14 + 12 * d)
        sheet.write(at, name, COLOURS[d % len(COLOURS)], anchor="ra")
  return sheet.array()


def table(
  path: pathlib.Path, head: Sequence[str], rows: Iterable[Sequence]
) -> list[pathlib.Path]:
  """Writes a .csv; returns it."""
  with whole(path) as temporary, temporary.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(head)
    writer.writerows(rows)
  return [path]


def write(
  folder: pathlib.Path,
  stem: str,
  form: Series,
  x: np.ndarray,
  beside: dict,
  columns: int,
  most: int,
) -> list[pathlib.Path]:
  """`stem.csv`: sample, time and the values, a row for each time, in the unit
  in which the data came; of the first 1,000 series."""
  del beside, columns, most
  x = form.original(x[:TABLED])
  names = form.names or [f"value_{d}" for d in range(x.shape[2])]
  rows = (
    [i, f"{t / form.rate:.9g}", *(f"{v:.9g}" for v in values)]
    for i, series in enumerate(x)
    for t, values in enumerate(series)
  )
  return table(folder / f"{stem}.csv", ["sample", "time", *names], rows)


def said(form: Series, x: np.ndarray) -> tuple[str, str]:
  t, d = x.shape[1:]
  return "series", f"{t} times, {d} value{'s' if d > 1 else ''} each"
