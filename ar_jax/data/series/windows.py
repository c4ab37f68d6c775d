"""Windows of a series, which is split in time.

N times, D values at each, P of history, L to be forecast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ar_jax.core import forms
from ar_jax.core.errors import UserError, check_choice
from ar_jax.data import notes
from ar_jax.data.dataset import Dataset, Example

# What `transform` may be -> how the values that it makes are called.
TRANSFORMS = {"none": "{}", "sqrt": "sqrt {}", "difference": "change of {}"}


class Windows:
  """A source: `history` f32[P, D], what came before, and `series` f32[L, D].

  Args:
    values: [N, D], in order of time.
    starts: i64[W], the time of the first value of each `series`.
    history: P; with 0 there is no such field.
    length: L.
    extra: further fields, the same in every example.
  """

  def __init__(
    self,
    values: np.ndarray,
    starts: Sequence[int],
    history: int,
    length: int,
    extra: Mapping[str, np.ndarray] | None = None,
  ):
    self._values = np.asarray(values, np.float32)
    self._starts = np.asarray(starts, np.int64)
    self._history, self._length = history, length
    self._extra = dict(extra or {})

  def __len__(self) -> int:
    return len(self._starts)

  def __getitem__(self, i: int) -> Example:
    at = self._starts[i]
    example = {"series": self._values[at : at + self._length], **self._extra}
    if self._history:
      example["history"] = self._values[at - self._history : at]
    return example


def transformed(values: np.ndarray, kind: str, where: str) -> np.ndarray:
  """[N, D] -> what is forecast in its place; a difference has N - 1 times.

  Raises:
    UserError: there is no such transform, or a root of what is negative.
  """
  check_choice("data.transform", kind, TRANSFORMS)
  if kind == "difference":
    return np.diff(values, axis=0)
  if kind == "sqrt":
    if (values < 0).any():
      raise UserError(f"{where}: a value is negative; transform=sqrt has none")
    return np.sqrt(values)
  return values


def dataset(
  values: np.ndarray,
  *,
  name: str,
  history: int,
  length: int,
  stride: int = 1,
  test_stride: int = 0,
  test: float = 0.3,
  names: Sequence[str] = (),
  rate: float = 1.0,
  transform: str = "none",
  standardise: bool = True,
  where: str = "",
  digest: str = "",
  extra: Mapping[str, np.ndarray] | None = None,
) -> Dataset:
  """A series as a data set: the first part trains, what comes later tests.

  With k = int((1 - test) N), training forecasts the values before k and no
  other, and the test those from k on; the history of the first test windows
  is the end of the training part, for it is known when they are forecast.

  Args:
    values: [N, D], in order of time.
    name: of the data set.
    history, length: P and L.
    stride: times between the windows of training.
    test_stride: the same of the test; 0 is L, where each value is forecast
      once.
    test: share of the times, at the end.
    names, rate: see `forms.Series`.
    transform: a key of TRANSFORMS.
    standardise: by mean and deviation of the training part; the form keeps
      both.
    where: names the data in messages; `name` if "".
    digest: see `Dataset`.
    extra: see `Windows`.

  Raises:
    UserError: an option is out of range, there are too few values, or a
      column does not change where it trains.
  """
  where = where or name
  at_least = {"history": (history, 0), "length": (length, 1)}
  at_least |= {"stride": (stride, 1), "test_stride": (test_stride, 0)}
  for option, (value, least) in at_least.items():
    if value < least:
      raise UserError(f"data.{option}={value}: must be at least {least}")
  if not 0 < test < 1:
    raise UserError(f"data.test={test}: a share of the times, between 0 and 1")
  values = np.asarray(values, np.float64)
  values = transformed(values, transform, where)
  n, columns = values.shape
  first = int((1 - test) * n)
  train = np.arange(history, first - length + 1, stride)
  later = np.arange(max(first, history), n - length + 1, test_stride or length)
  if not len(train) or not len(later):
    raise UserError(
      f"{where}: {n} times, of which {first} train and {n - first} test, are "
      f"too few for windows of history={history} and length={length}; make "
      "these smaller"
    )
  names = tuple(TRANSFORMS[transform].format(x) for x in names)
  mean, scale = (), ()
  units = "as they are"
  if standardise:
    mean, scale = values[:first].mean(0), values[:first].std(0)
    still = np.flatnonzero(scale == 0)
    if len(still):
      column = names[still[0]] if names else f"column {still[0] + 1}"
      raise UserError(
        f"{where}: {column} has one value in all of the training part; leave "
        "it out, or set standardise=False"
      )
    values = (values - mean) / scale
    mean, scale = (tuple(map(float, x)) for x in (mean, scale))
    numbers = lambda x: notes.listed(f"{v:.4g}" for v in x)
    units = f"standardised by mean {numbers(mean)} and deviation "
    units += f"{numbers(scale)} of the training part"
  notes.once(
    f"{where}: {n} times of {notes.listed(names or [columns])}; {len(train)} "
    f"windows before time {first} train, {len(later)} later ones test; {units}"
  )
  form = forms.Series(names, rate, mean, scale)
  fields = {"series": form, **({"history": form} if history else {})}
  source = lambda starts: Windows(values, starts, history, length, extra)
  return Dataset(
    name, source(train), source(later), digest=digest, forms=fields
  )
