"""Series by rule: autoregressive processes, and turns of complex vectors.

N times, P of history, L to be forecast, d complex numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ar_jax.core import forms
from ar_jax.core.errors import UserError, check_choice
from ar_jax.data.dataset import Dataset, Example
from ar_jax.data.series import windows

LAWS = ("gauss", "sparse", "full")
_BURN_IN = 1000  # times before the first that is kept


def ar_process(
  *,
  weights: Sequence[float] = (0.2, 0.3, -0.5),
  lags: Sequence[int] = (),
  order: int = 0,
  count: int = 10_000,
  noise: float = 1.0,
  seed: int = 0,
  history: int = 20,
  length: int = 1,
  stride: int = 1,
  test_stride: int = 0,
  test: float = 0.2,
  transform: str = "none",
  standardise: bool = False,
) -> Dataset:
  """An autoregressive process, y_t = sum_i w_i y_(t-i) + e_t.

  From: a rule.
  Command: --config.data.name=ar_process
  Fields: series, history, coefficients.

  `coefficients` f32[largest lag] are the true w, that of lag 1 first. The mean
  of the series is 0.

  Args:
    weights: w, at the lags of `lags`.
    lags: by default 1, 2, ...
    order: if positive, so many random weights in place of given ones, as
      AR-Net draws them.
    count: N.
    noise: the deviation of e, which is normal.
    seed: of the noise, and of random weights.
    history: times that are known before those to be forecast.
    length: times to be forecast.
    stride: times between the windows of training.
    test_stride: the same of the test; 0 lets them follow upon each other.
    test: share of the times, at the end.
    transform: "none", "sqrt" or "difference".
    standardise: whether to make mean 0 and deviation 1, by the training part.

  Raises:
    UserError: weights and lags do not fit together, or the process is not
      stationary; or too few values.
  """
  rng = np.random.default_rng((seed, 0))
  if order > 0:
    coefficients = random_weights(order, rng)
  else:
    coefficients = placed(weights, lags)
  series = simulated(coefficients, count, noise, rng)
  return windows.dataset(
    series[:, None],
    name="ar_process",
    names=("y",),
    history=history,
    length=length,
    stride=stride,
    test_stride=test_stride,
    test=test,
    transform=transform,
    standardise=standardise,
    digest="rule 1",
    extra={"coefficients": coefficients.astype(np.float32)},
  )


def placed(weights: Sequence[float], lags: Sequence[int] = ()) -> np.ndarray:
  """f64[largest lag]: weights at their lags, 0 between."""
  lags = tuple(lags) or tuple(range(1, len(weights) + 1))
  if len(lags) != len(weights) or not lags:
    raise UserError(
      f"data: {len(weights)} weights at {len(lags)} lags; give one for each"
    )
  if min(lags) < 1 or len(set(lags)) < len(lags):
    raise UserError(f"data.lags={lags}: different numbers from 1 on")
  found = np.zeros(max(lags))
  found[np.array(lags) - 1] = weights
  return found


def stationary(coefficients: np.ndarray) -> bool:
  """Whether all roots z of 1 - sum_i w_i z^i lie outside the unit circle."""
  inverse = np.roots(np.concatenate([[1.0], -np.asarray(coefficients)]))
  return bool((np.abs(inverse) < 1).all())


def random_weights(order: int, rng: np.random.Generator) -> np.ndarray:
  """f64[order]: stationary weights as AR-Net draws them (arXiv 1911.12436):
  even in (-1, 1); where the sum of their sizes is above 1, scaled to it and by
  an even factor in (0.5, 1); less their mean; again until stationary."""
  while True:
    w = rng.uniform(-1, 1, order)
    total = np.abs(w).sum()
    if total > 1:
      w = w / (total + 1e-5) * rng.uniform(0.5, 1)
    w = w - w.mean() if order > 1 else w  # the mean of a single one is all
    if stationary(w):
      return w


def simulated(
  coefficients: np.ndarray,
  count: int,
  noise: float,
  rng: np.random.Generator,
) -> np.ndarray:
  """f64[count]: a series of the process less its mean.

  Raises:
    UserError: the process is not stationary.
  """
  from scipy import signal  # slow to import

  if not stationary(coefficients):
    raise UserError(
      "data: a process with these weights is not stationary, it grows without "
      "bounds; make them smaller"
    )
  burn_in = _BURN_IN + 10 * len(coefficients)
  e = noise * rng.standard_normal(count + burn_in)
  y = signal.lfilter([1.0], np.concatenate([[1.0], -coefficients]), e)[burn_in:]
  return y - y.mean()


def unitary_process(
  *,
  dim: int = 5,
  law: str = "gauss",
  scale: float = 1.0,
  count: int = 10_000,
  tests: int = 1000,
  seed: int = 1,
  history: int = 50,
  length: int = 50,
) -> Dataset:
  """Complex vectors that turn, x_(t+1) = W x_t with W = diag(exp(i theta)) of
  each sequence its own.

  From: a rule.
  Command: --config.data.name=unitary_process
  Fields: series, history.

  A vector of d complex numbers is 2 d values: real and imaginary part of the
  first, and so on.

  Args:
    dim: d.
    law: of the first vector, which is real: "gauss", normal numbers; "sparse",
      a single one, of either sign; "full", all are `scale`.
    scale: deviation, or size, of its numbers.
    count: sequences for training.
    tests: sequences for test.
    seed: of the angles and of the first vectors.
    history: times that are known before those to be forecast.
    length: times to be forecast.

  Raises:
    UserError: an option is out of range.
  """
  check_choice("data.law", law, LAWS)
  least = {"dim": (dim, 1), "count": (count, 1), "tests": (tests, 1)}
  least |= {"history": (history, 0), "length": (length, 1)}
  for option, (value, lowest) in least.items():
    if value < lowest:
      raise UserError(f"data.{option}={value}: must be at least {lowest}")
  names = tuple(
    f"{part} {j}" for j in range(1, dim + 1) for part in ("re", "im")
  )
  form = forms.Series(names)
  fields = {"series": form, **({"history": form} if history else {})}
  make = lambda split, n: _Turns(
    dim, law, scale, n, (seed, split), history, length
  )
  return Dataset(
    "unitary_process",
    make(0, count),
    make(1, tests),
    digest="rule 1",
    forms=fields,
  )


def first_vector(
  rng: np.random.Generator, dim: int, law: str, scale: float
) -> np.ndarray:
  """f64[d]: x_1 of one sequence; see `unitary_process`."""
  if law == "gauss":
    return scale * rng.standard_normal(dim)
  if law == "full":
    return np.full(dim, scale)
  x = np.zeros(dim)
  x[rng.integers(dim)] = scale * rng.choice((-1.0, 1.0))
  return x


class _Turns:
  """Sequences computed when asked for."""

  def __init__(self, dim, law, scale, count, seed, history, length):
    self._law = dim, law, scale
    self._count, self._seed = count, seed
    self._history, self._length = history, length

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, i: int) -> Example:
    if not 0 <= i < self._count:
      raise IndexError(i)
    rng = np.random.default_rng((*self._seed, int(i)))
    dim, law, scale = self._law
    first = first_vector(rng, dim, law, scale)
    angle = rng.uniform(0, 2 * np.pi, dim)
    times = np.arange(self._history + self._length)[:, None]
    x = first * np.exp(1j * angle * times)
    pairs = np.stack([x.real, x.imag], -1).reshape(len(times), 2 * dim)
    values = pairs.astype(np.float32)
    example = {"series": values[self._history :]}
    if self._history:
      example["history"] = values[: self._history]
    return example
