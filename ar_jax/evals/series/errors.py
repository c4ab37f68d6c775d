"""Errors of forecasts of a series, beside those of forecasts that need no
network.

N windows, P times of history, L of the series, D values at each, p lags.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ar_jax.core import processes
from ar_jax.core.system import UserError
from ar_jax.data import Dataset

_ROWS = 20_000  # values to which least squares are fitted
_LAGS = 200  # numbers that they read, at most


@functools.partial(jax.jit, static_argnums=0)
def _predict(system, variables, batch):
  return system.predict(variables, batch)


class LeastSquares:
  """The AR(p) model with an intercept, fitted by least squares.

  Attributes:
    weights: f64[D, p, D], from the values of the lags, oldest first.
    bias: f64[D].
    rows: values that it was fitted to.

  Args:
    windows: [M, P + L, D], the last L of which are forecast.
    order: p, at most P.
    length: L.
  """

  def __init__(self, windows: np.ndarray, order: int, length: int):
    x, y = _lagged(np.asarray(windows, np.float64), order, length)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    found = np.linalg.lstsq(x, y, rcond=None)[0]
    self.rows, self.order = len(x), order
    self.weights, self.bias = found[:-1], found[-1]

  @property
  def coefficients(self) -> np.ndarray | None:
    """f64[p] of a series of one value, the newest lag first."""
    return self.weights[::-1, 0] if len(self.weights) == self.order else None

  def one_step(self, windows: np.ndarray, length: int) -> np.ndarray:
    """[N, L, D]: each of the last L values of [N, P + L, D] from those before
    it."""
    x, y = _lagged(np.asarray(windows, np.float64), self.order, length)
    return (x @ self.weights + self.bias).reshape(len(windows), length, -1)

  def roll_out(self, history: np.ndarray, length: int) -> np.ndarray:
    """[N, L, D] from [N, P, D], each value from those forecast before it."""
    known = np.asarray(history, np.float64)[:, -self.order :]
    drawn = []
    for _ in range(length):
      new = known.reshape(len(known), -1) @ self.weights + self.bias
      known = np.concatenate([known[:, 1:], new[:, None]], 1)
      drawn.append(new)
    return np.stack(drawn, 1)


def _lagged(
  windows: np.ndarray, order: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
  """([M L, p D], [M L, D]): the lags of the last L values, and these."""
  first = windows.shape[1] - length
  at = first + np.arange(length)[:, None] + np.arange(-order, 0)
  values = windows.shape[-1]
  x = windows[:, at].reshape(-1, order * values)
  return x, windows[:, first:].reshape(-1, values)


def least_squares(data: Dataset, order: int = 0) -> LeastSquares:
  """Least squares on the training windows of a data set, 20,000 values at most.

  Args:
    data: with `history` and `series`.
    order: p; 0 is the whole history, as far as 200 numbers reach.

  Raises:
    UserError: the history is shorter than p.
  """
  shape = data.train[0]["history"].shape
  order = order or max(1, min(shape[0], _LAGS // shape[1]))
  if order > shape[0]:
    raise UserError(
      f"order={order}: the data have a history of {shape[0]}; set data.history"
    )
  length = len(data.train[0]["series"])
  n = min(len(data.train), max(1, _ROWS // length))
  at = np.linspace(0, len(data.train) - 1, n).astype(int)
  rows = [data.train[int(i)] for i in at]
  whole = [np.concatenate([r["history"], r["series"]]) for r in rows]
  return LeastSquares(np.stack(whole), order, length)


def stpe(found: Sequence[float], true: Sequence[float]) -> float:
  """100 sum_i |a_i - b_i| / sum_i (|a_i| + |b_i|), the symmetric total
  percentage error of coefficients (AR-Net, arXiv 1911.12436), the shorter
  filled up with zeros: 0 is perfect, 100 is worthless."""
  size = max(len(found), len(true))
  a, b = (np.pad(np.float64(x), (0, size - len(x))) for x in (found, true))
  whole = (np.abs(a) + np.abs(b)).sum()
  return float(100 * np.abs(a - b).sum() / (1e-8 + whole))


def correlation(whole: np.ndarray, length: int, lag: int) -> list[float]:
  """Of each of the D values with itself `lag` times before, over the last L
  times of [N, P + L, D]; nan where nothing changes."""
  end = whole.shape[1]
  now = whole[:, end - length :]
  before = whole[:, end - length - lag : end - lag]
  found = []
  for d in range(whole.shape[-1]):
    x, y = now[..., d], before[..., d]
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt(np.square(x).mean() * np.square(y).mean())
    found.append(float((x * y).mean() / size) if size > 0 else float("nan"))
  return found


def build(
  data: Dataset,
  *,
  order: int = 0,
  lags: Sequence[int] = (1,),
  batch: int = 256,
  options: Mapping[str, Any] | None = None,
  draw: Any = None,
):
  """The evaluator of forecasts of the test split.

  Args:
    data: its training split fits least squares.
    order: of least squares; see `least_squares`.
    lags: of the correlations.
    batch: windows forecast at once.
    options: of `system.sample`.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. Its results are
      `forecast_mse`, of forecasts from the history alone, and of those that
      need no network: `forecast_mse_persistence` (the last value known),
      `forecast_mse_zero`, `forecast_mse_least_squares` (AR(p), intercept);
      `one_step`, the same of forecasts of each value from all before it, and
      for the system its means over the first and the second half of a window;
      `variance_ratio`, of forecasts to truth, for each of the D values;
      `lag_correlation`, lag -> [of forecasts, of truth] for each value;
      `stpe` and `stpe_least_squares`, where the examples have `coefficients`
      and so has the system;
      `protocol`.

  Raises:
    UserError: the data are no series with a history, or the history is too
      short for the order or a lag.
  """
  example = data.train[0]
  for name in ("series", "history"):
    if name not in example:
      raise UserError(
        f"series: the examples of {data.name!r} have no {name!r}; "
        "take a set of series, and data.history above 0"
      )
  past = len(example["history"])
  if not lags or not 1 <= min(lags) <= max(lags) <= past:
    raise UserError(
      f"lags={tuple(lags)}: must lie between 1 and the history, {past}"
    )
  base = least_squares(data, order)
  form = data.forms.get("series")

  def evaluate(system, variables, batches, key):
    nonlocal draw
    if "series" not in system.makes:
      return {"forecast_mse": "unavailable: the system makes no series"}
    if draw is None:
      from ar_jax.step import draw
    one, rows = [], []
    for part in batches:
      found = _predict(system, variables, part)
      found, part = processes.fetch((found, dict(part)))
      kept = np.asarray(part.pop("mask", np.ones(len(found)))) > 0
      one.append(np.asarray(found)[kept])
      rows.append({k: np.asarray(v)[kept] for k, v in part.items()})
    rows = {k: np.concatenate([r[k] for r in rows]) for k in rows[0]}
    one, true, past = np.concatenate(one), rows["series"], rows["history"]
    drawn = draw(
      system,
      variables,
      {k: rows[k] for k in system.needs},
      key,
      batch=min(batch, len(true)),
      options=dict(options or {}),
    )
    drawn = drawn["series"]
    length = true.shape[1]
    if drawn.shape != true.shape:
      raise UserError(
        f"series: forecasts of shape {drawn.shape[1:]} for a truth of "
        f"{true.shape[1:]}; set data.length, and no other length of samples"
      )
    whole = np.concatenate([past, true], 1)
    forecast = np.concatenate([past, drawn], 1)
    mse = lambda x: float(np.square(np.float64(x) - true).mean())
    half = np.square(np.float64(one) - true).mean((0, 2))
    found = {
      "forecast_mse": mse(drawn),
      "forecast_mse_persistence": mse(np.repeat(past[:, -1:], length, 1)),
      "forecast_mse_zero": mse(0),
      "forecast_mse_least_squares": mse(base.roll_out(past, length)),
      "one_step": {
        "mse": mse(one),
        "persistence": mse(whole[:, -length - 1 : -1]),
        "zero": mse(0),
        "least_squares": mse(base.one_step(whole, length)),
        "first_half": float(half[: (length + 1) // 2].mean()),
        "second_half": float(half[length // 2 :].mean()),
      },
      "variance_ratio": _ratio(drawn, true),
      "lag_correlation": {
        str(lag): [correlation(x, length, lag) for x in (forecast, whole)]
        for lag in lags
      },
    }
    own = getattr(system, "coefficients", lambda _: None)(variables)
    if own is not None and "coefficients" in rows:
      truth = rows["coefficients"][0]
      found["stpe"] = stpe(np.asarray(processes.fetch(own)), truth)
      if base.coefficients is not None:
        found["stpe_least_squares"] = stpe(base.coefficients, truth)
    found["protocol"] = {
      "windows": len(true),
      "history": past.shape[1],
      "length": length,
      "values": "standardised by the training part"
      if getattr(form, "scale", ())
      else "as they are",
      "least_squares": f"AR({base.order}) with an intercept, fitted to "
      f"{base.rows} training values",
      "sampling": dict(options or {}),
    }
    return found

  return evaluate


def _ratio(drawn: np.ndarray, true: np.ndarray) -> list[float]:
  """Variance of each of the D values to that of the truth."""
  own, other = (np.float64(x).var((0, 1)) for x in (drawn, true))
  pairs = zip(own, other, strict=True)
  return [float(a / b) if b > 0 else float("nan") for a, b in pairs]
