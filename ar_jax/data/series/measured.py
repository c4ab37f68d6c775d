"""Measured series that the package `statsmodels` carries."""

from __future__ import annotations

import importlib.util
import pathlib

from ar_jax.core.errors import UserError
from ar_jax.data.dataset import Dataset
from ar_jax.data.series import table, windows


def sunspots(
  *,
  history: int = 40,
  length: int = 1,
  stride: int = 1,
  test_stride: int = 0,
  test: float = 0.3,
  transform: str = "sqrt",
  standardise: bool = True,
) -> Dataset:
  """The number of sunspots in each of 309 years, 1700 to 2008.

  From: PyPI `statsmodels` (`pip install statsmodels`).
  Command: --config.data.name=sunspots
  Fields: series, history.

  Args:
    history: years that are known before those to be forecast.
    length: years to be forecast.
    stride: years between the windows of training.
    test_stride: the same of the test; 0 lets them follow upon each other.
    test: share of the years, at the end.
    transform: "none", "sqrt" or "difference".
    standardise: whether to make mean 0 and deviation 1, by the training part.

  Raises:
    UserError: `statsmodels` is not installed, or as `csv`.
  """
  values, _ = table.read(_file("sunspots"), ("SUNACTIVITY",))
  return windows.dataset(
    values,
    name="sunspots",
    names=("sunspots",),
    history=history,
    length=length,
    stride=stride,
    test_stride=test_stride,
    test=test,
    transform=transform,
    standardise=standardise,
    digest="1700 to 2008",
  )


def co2(
  *,
  history: int = 120,
  length: int = 1,
  stride: int = 1,
  test_stride: int = 0,
  test: float = 0.3,
  transform: str = "difference",
  standardise: bool = True,
) -> Dataset:
  """Carbon dioxide in the air of Mauna Loa in each of 2,284 weeks, 1958 to
  2001, in parts per million.

  From: PyPI `statsmodels` (`pip install statsmodels`).
  Command: --config.data.name=co2
  Fields: series, history.

  59 weeks without a measurement lie on a line between their neighbours.

  Args:
    history: weeks that are known before those to be forecast.
    length: weeks to be forecast.
    stride: weeks between the windows of training.
    test_stride: the same of the test; 0 lets them follow upon each other.
    test: share of the weeks, at the end.
    transform: "none", "sqrt" or "difference".
    standardise: whether to make mean 0 and deviation 1, by the training part.

  Raises:
    UserError: `statsmodels` is not installed, or as `csv`.
  """
  values, _ = table.read(_file("co2"), ("co2",), missing="interpolate")
  return windows.dataset(
    values,
    name="co2",
    names=("CO2",),
    rate=365.25 / 7,
    history=history,
    length=length,
    stride=stride,
    test_stride=test_stride,
    test=test,
    transform=transform,
    standardise=standardise,
    digest="1958 to 2001",
  )


def _file(name: str) -> pathlib.Path:
  """A file of the package, which need not be imported for it: that takes two
  seconds."""
  found = importlib.util.find_spec("statsmodels")
  if found is None:
    raise UserError(
      f"data.name={name}: comes with statsmodels; pip install statsmodels "
      "(or pip install 'ar_jax[series]')"
    )
  root = pathlib.Path(found.submodule_search_locations[0])
  return root / "datasets" / name / f"{name}.csv"
