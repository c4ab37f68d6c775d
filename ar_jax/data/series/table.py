"""A user's own series: a CSV file, a row for each time."""

from __future__ import annotations

import csv as csv_files
import difflib
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.data import digests, notes
from ar_jax.data.dataset import Dataset
from ar_jax.data.series import windows

DELIMITERS = ",;\t|"
_LARGEST = 1e30  # what float32 holds, with room for squares of differences


def csv(
  *,
  path: str,
  columns: Sequence[str] = (),
  header: bool | None = None,
  delimiter: str = "",
  missing: str = "refuse",
  history: int = 24,
  length: int = 8,
  stride: int = 1,
  test_stride: int = 0,
  test: float = 0.3,
  transform: str = "none",
  standardise: bool = True,
  rate: float = 1.0,
) -> Dataset:
  """The user's own series: a CSV file with a row for each time, in order.

  From: a file.
  Command: --config.data.name=csv --config.data.path=my.csv
  Fields: series, history.

  The last part in time is the test; nothing of it is shown to training, nor
  counted in the mean and deviation by which all is standardised.

  Args:
    path: the file.
    columns: which to read, by name, or by number from 1. Without, all that
      hold numbers; that others were left out is said.
    header: whether the first row holds names. Without, it does if none of its
      cells is a number.
    delimiter: between cells, one character or "tab"; without, that of , ; tab
      | which comes most often in the first row.
    missing: of cells without a number: "refuse", or "interpolate" in a line
      between the nearest that have one.
    history: times that are known before those to be forecast.
    length: times to be forecast.
    stride: times between the windows of training.
    test_stride: the same of the test; 0 lets them follow upon each other.
    test: share of the times, at the end.
    transform: "none", "sqrt" or "difference" (from each time to the next).
    standardise: whether to make mean 0 and deviation 1.
    rate: rows per unit of time, for plots.

  Raises:
    UserError: the file cannot be read, a cell is no number (with its row and
      column), a column is not there, or there are too few rows.
  """
  file = pathlib.Path(path).expanduser()
  if not path:
    raise UserError("data.path: say which CSV file, --config.data.path=my.csv")
  values, names = read(
    file, columns, header=header, delimiter=delimiter, missing=missing
  )
  return windows.dataset(
    values,
    name="csv",
    names=names,
    rate=rate,
    history=history,
    length=length,
    stride=stride,
    test_stride=test_stride,
    test=test,
    transform=transform,
    standardise=standardise,
    where=notes.printable(str(file)),
    digest=digests.of_files(file.parent, [file]),
  )


def read(
  file: pathlib.Path,
  columns: Sequence[str | int] = (),
  *,
  header: bool | None = None,
  delimiter: str = "",
  missing: str = "refuse",
) -> tuple[np.ndarray, tuple[str, ...]]:
  """(f64[N, D], names of the D columns) of a CSV file; arguments and errors
  as of `csv`."""
  check_choice("data.missing", missing, ("refuse", "interpolate"))
  where = notes.printable(str(file))
  rows = _rows(file, where, delimiter)
  if header is None:
    header = not any(map(_is_number, rows[0][1]))
  width = len(rows[0][1])
  names = [cell.strip() for cell in rows[0][1]] if header else []
  names = [x or str(i) for i, x in enumerate(names, 1)]
  names = names or [str(i) for i in range(1, width + 1)]
  rows = rows[1:] if header else rows
  if not rows:
    raise UserError(f"{where}: names of columns, and no row below them")
  for line, cells in rows:
    if len(cells) != width:
      raise UserError(
        f"{where}: row {line} has {len(cells)} cells, the first has {width}"
      )
  if isinstance(columns, str | int):
    columns = (columns,)
  if columns:
    chosen = [_column(where, names, wanted) for wanted in columns]
  else:
    some = lambda i: any(_is_number(cells[i]) for _, cells in rows)
    chosen = [i for i in range(width) if some(i)]
    left = [names[i] for i in range(width) if i not in chosen]
    if not chosen:
      raise UserError(f"{where}: no column holds numbers")
    if left:
      notes.once(
        f"{where}: no number in {notes.listed(left)}, which is left out"
      )
  values = np.empty((len(rows), len(chosen)))
  for r, (line, cells) in enumerate(rows):
    for c, i in enumerate(chosen):
      at = f"{where}: row {line}, column {names[i]!r}"
      values[r, c] = _number(cells[i], at, missing)
  gaps = np.isnan(values)
  if gaps.any():
    for c, i in enumerate(chosen):
      if gaps[:, c].all():
        raise UserError(f"{where}: column {names[i]!r} holds no number")
      known = np.flatnonzero(~gaps[:, c])
      values[:, c] = np.interp(np.arange(len(rows)), known, values[known, c])
    notes.once(f"{where}: {gaps.sum()} missing values are interpolated")
  return values, tuple(names[i] for i in chosen)


def _rows(
  file: pathlib.Path, where: str, delimiter: str
) -> list[tuple[int, list[str]]]:
  """(number of the line, cells) of each row that is not blank."""
  try:
    with file.open(encoding="utf-8-sig", newline="") as f:
      first = f.readline()
      f.seek(0)
      delimiter = {"tab": "\t"}.get(delimiter, delimiter)
      delimiter = delimiter or max(DELIMITERS, key=first.count)
      reader = csv_files.reader(f, delimiter=delimiter)
      rows = [(reader.line_num, cells) for cells in reader]
  except OSError as e:
    raise UserError(f"{where}: cannot be read: {e.strerror}") from e
  except UnicodeDecodeError as e:
    raise UserError(f"{where}: not a text in UTF-8; save it as CSV") from e
  except (csv_files.Error, TypeError) as e:
    raise UserError(f"{where}: not a CSV file: {e}") from e
  rows = [(line, cells) for line, cells in rows if cells]  # blank lines
  if not rows:
    raise UserError(f"{where}: an empty file")
  return rows


def _is_number(cell: str) -> bool:
  try:
    float(cell)
  except ValueError:
    return False
  return True


def _number(cell: str, at: str, missing: str) -> float:
  text = cell.strip()
  if not text or text.lower() in ("nan", "na", "null", "none"):
    if missing == "interpolate":
      return math.nan
    said = f"holds {text!r}, no number" if text else "is empty"
    raise UserError(f"{at} {said}; fill it in, or set missing=interpolate")
  try:
    value = float(text)
  except ValueError as e:
    hint = "; use a decimal point" if "," in text else ""
    raise UserError(f"{at}: {text[:40]!r} is no number{hint}") from e
  if not abs(value) < _LARGEST:
    raise UserError(f"{at}: {text[:40]!r} is too large, or not finite")
  return value


def _column(where: str, names: list[str], wanted: str | int) -> int:
  found = [i for i, name in enumerate(names) if name == str(wanted)]
  if len(found) > 1:
    raise UserError(
      f"{where}: {len(found)} columns are named {wanted!r}; name it by number, "
      f"{' or '.join(str(i + 1) for i in found)}"
    )
  if found:
    return found[0]
  if str(wanted).isdigit() and 1 <= int(wanted) <= len(names):
    return int(wanted) - 1
  near = difflib.get_close_matches(str(wanted), names, 1)
  hint = f"did you mean {near[0]!r}? " if near else ""
  raise UserError(
    f"{where}: no column {wanted!r}; {hint}there are {notes.listed(names)}"
  )
