"""AR-Net: an autoregressive model of any order, fitted as a linear network.

AR-Net: A simple Auto-Regressive Neural Network for time-series (arXiv
1911.12436). New in it:
  - the AR(p) model, y_t = c + sum_i w_i y_(t-i), by stochastic gradients: the
    cost of an epoch is linear in p, not quadratic as that of least squares;
  - a penalty of the weights which finds the few lags that matter, so that p
    can be far too large: R(w) = mean_i 2 / (1 + exp(-c1 |w_i|^(1/c2))) - 1,
    of infinite slope at 0, and flat where weights are large;
  - its strength, from the share s of lags that a user expects to matter:
    lambda(s) = c (1/s - 1).

Optional hidden layers (ReLU), several steps in one pass, and several values at
each time (every one then reads the lags of all) are as in the code released.

Shapes: B batch, P times of history, L of the series, D values at each, p lags,
n steps that one pass forecasts, W = L - n + 1 windows.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.system import Array, Batch, Loss, Vars
from ar_jax.families.series.system import (
  Forecaster,
  checked,
  joined,
  same_length,
)

RAMPS = ("none", "stairs", "square")
_SOME = 10_000  # windows from which the noise is told


def penalty(w: Array, c1: float = 3.0, c2: float = 3.0) -> Array:
  """R of every weight, in [0, 1): 2 / (1 + exp(-c1 |w|^(1/c2))) - 1.

  Its slope is infinite at 0; there it is 0 here, and below 1e-12.
  """
  size = jnp.abs(w)
  # tanh(x / 2), the same, is exact where x is small.
  power = jnp.where(size < 1e-12, 1e-12, size) ** (1 / c2)
  return jnp.where(size == 0, 0.0, jnp.tanh(c1 * power / 2))


def root_penalty(w: Array) -> Array:
  """sqrt(|w|) of every weight, the other one that the paper tried."""
  size = jnp.abs(w)
  root = jnp.sqrt(jnp.where(size < 1e-12, 1e-12, size))
  return jnp.where(size == 0, 0.0, root)


def strength(density: float, factor: float) -> float:
  """lambda(s) = c (1/s - 1) of s, the share of lags that matter.

  Raises:
    UserError: no share in (0, 1].
  """
  if not 0 < density <= 1:
    raise UserError(
      f"model.density={density}: the share of lags that matter, above 0 and "
      "at most 1 (all of them, no penalty)"
    )
  return factor * (1 / density - 1)


def noise_estimate(series: np.ndarray) -> float:
  """mean |y_t - y_(t+1)| of a series [N, ...]."""
  return float(np.abs(np.diff(series, axis=0)).mean())


class Net(nn.Module):
  """Windows [..., p, D], oldest first -> the next values [..., n, D]."""

  forecasts: int
  depth: int
  hidden: int | None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    values = x.shape[-1]
    x = x.reshape(*x.shape[:-2], -1)
    for i in range(1, self.depth):
      x = nn.relu(_linear(self.hidden or x.shape[-1], f"layer_{i}")(x))
    x = _linear(self.forecasts * values, f"layer_{self.depth}")(x)
    return x.reshape(*x.shape[:-1], self.forecasts, values)


def _linear(features: int, name: str) -> nn.Dense:
  """Its weights begin even within 1 / sqrt(fan in), as the code released."""
  even = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
  return nn.Dense(features, kernel_init=even, name=name, precision="highest")


@dataclasses.dataclass(frozen=True)
class ARNet(Forecaster):
  """The system. Variables: `params`, and `data` with the level of noise where
  the penalty is measured by it.

  Attributes:
    net: linear, or with hidden layers.
    order: p.
    length: L.
    strength: lambda of the penalty of the first layer's weights (never of its
      bias).
    c1, c2: of R; with c2 = 0 it is the root of the size.
    ramp: how the penalty begins: "none", in full; "stairs" of 1/10 each, from
      0; "square", with the square of the share of `ramp_steps` that is done.
    ramp_steps: updates until it is full.
    huber: Huber's error (beta 1) in place of the square.
    noise: whether lambda is measured by mean |y_t - y_(t+1)| of the data.
  """

  net: Net
  order: int
  length: int
  strength: float
  c1: float
  c2: float
  ramp: str
  ramp_steps: int
  huber: bool
  noise: bool

  def init(self, key: Array, batch: Batch) -> Vars:
    values = batch["history"].shape[-1] if "history" in batch else 1
    window = jnp.zeros((1, self.order, values))
    variables = {"params": self.net.init(key, window)["params"]}
    if self.noise:
      variables["data"] = {"noise": jnp.ones(())}
    return variables

  def fitted(self, variables: Vars, source, seed: int) -> Vars:
    del seed
    if not self.noise:
      return variables
    some = np.unique(np.linspace(0, len(source) - 1, _SOME).astype(int))
    level = []
    for i in some:
      row = source[int(i)]
      own = np.concatenate([row["history"][-1:], row["series"]])
      level.append(noise_estimate(own))
    return {**variables, "data": {"noise": np.float32(np.mean(level))}}

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """Mean error of the forecasts, and in training the penalty. `mse` is the
    mean of their squares, `penalty` R."""
    del key
    same_length(batch, self.length)
    found, true = self._windows(variables, batch)
    square = jnp.square(found - true)
    error = square
    if self.huber:
      size = jnp.abs(found - true)
      error = jnp.where(size < 1, square / 2, size - 0.5)
    value = error.mean((1, 2, 3))
    weights = variables["params"]["layer_1"]["kernel"]
    rule = lambda w: penalty(w, self.c1, self.c2)
    r = jnp.mean((rule if self.c2 else root_penalty)(weights))
    if train and self.strength:
      value += self.strength * self._factor(batch) * self._level(variables) * r
    metrics = {
      "mse": square.mean((1, 2, 3)),
      "penalty": jnp.broadcast_to(r, value.shape),
    }
    return Loss(value, metrics, errors=self._by_time(error))

  def predict(self, variables: Vars, batch: Batch) -> Array:
    z = joined(batch, self.order)[:, -self.order - batch["series"].shape[1] :]
    at = np.arange(batch["series"].shape[1])[:, None] + np.arange(self.order)
    params = {"params": variables["params"]}
    return self.net.apply(params, z[:, at])[:, :, 0]

  def coefficients(self, variables: Vars) -> Array | None:
    kernel = variables["params"]["layer_1"]["kernel"]
    if self.net.depth > 1 or kernel.shape[0] != self.order:
      return None
    return kernel[::-1, 0]

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    length: int | None = None,
    noise: float = 0.0,
  ) -> Array:
    """Forecasts of one step (or of n) after the other, each of which is read
    as if it were known.

    Args:
      variables: as `init` makes them.
      cond: `history` f32[B, P, D], P at least p.
      keys: Key[B].
      length: how many times; by default L.
      noise: deviation of what is added to each value, normal; 0 forecasts, the
        deviation of the errors simulates.

    Returns:
      f32[B, length, D].

    Raises:
      UserError: the history is too short.
    """
    length = self.length if length is None else length
    known = checked(cond, self.order)[:, -self.order :]
    params, n = {"params": variables["params"]}, self.net.forecasts

    def step(known, s):
      new = self.net.apply(params, known)
      if noise:
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, s)
        draw = lambda key: jax.random.normal(key, new.shape[1:])
        new += noise * jax.vmap(draw)(own)
      return jnp.concatenate([known, new], 1)[:, -self.order :], new

    _, drawn = jax.lax.scan(step, known, jnp.arange(-(-length // n)))
    drawn = jnp.swapaxes(drawn, 0, 1)  # [B, passes, n, D]
    return drawn.reshape(len(known), -1, drawn.shape[-1])[:, :length]

  def _windows(self, variables: Vars, batch: Batch) -> tuple[Array, Array]:
    """(forecast, true), [B, W, n, D] each, of every window of the series."""
    p, n = self.order, self.net.forecasts
    z = joined(batch, p)[:, -p - self.length :]
    first = np.arange(self.length - n + 1)[:, None]
    found = self.net.apply(
      {"params": variables["params"]}, z[:, first + np.arange(p)]
    )
    return found, z[:, first + p + np.arange(n)]

  def _by_time(self, error: Array) -> Array:
    """f32[B, L]: the mean error at each time, of [B, W, n, D]."""
    n = self.net.forecasts
    error = error.mean(-1)
    pad = lambda i: jnp.pad(error[:, :, i], ((0, 0), (i, n - 1 - i)))
    windows = error.shape[1]
    at = np.arange(self.length)
    count = np.minimum(at, windows - 1) - np.maximum(at - n + 1, 0) + 1
    return sum(pad(i) for i in range(n)) / count[None]

  def _factor(self, batch: Batch) -> Array | float:
    """f32[B] or 1: the share of the penalty at the step of this batch."""
    if self.ramp == "none" or "step" not in batch:
      return 1.0
    step, full = batch["step"], self.ramp_steps
    if self.ramp == "stairs":
      return jnp.minimum(10 * step // full, 10) / 10
    return jnp.square(jnp.minimum((step + 1) / full, 1.0))

  def _level(self, variables: Vars) -> Array | float:
    if not self.noise:
      return 1.0
    return jax.lax.stop_gradient(variables["data"]["noise"])


def build(
  *,
  order: int,
  length: int = 1,
  forecasts: int = 1,
  depth: int = 1,
  hidden: int | None = None,
  density: float = 1.0,
  factor: float = 0.02,
  c1: float = 3.0,
  c2: float = 3.0,
  ramp: str = "none",
  ramp_steps: int = 1,
  error: str = "squared",
  noise: bool = False,
) -> ARNet:
  """Builds AR-Net.

  Args:
    order: p, the lags that are read.
    length: L, the times of a series; as in the data.
    forecasts: n, the times that one pass forecasts.
    depth: linear layers; more than one have ReLU between them.
    hidden: their width; p if None.
    density: s, the share of lags that is expected to matter; 1 is no penalty.
    factor: c of the strength lambda(s) = c (1/s - 1). The paper says about the
      root of the variance of the noise over 100; its code 0.02, later 0.01.
    c1, c2: of the penalty R; 3 and 3 in the paper, 2 and 2 in later code. c2=0
      is its other one, the root of the size.
    ramp, ramp_steps: see `ARNet`.
    error: "squared" or "huber".
    noise: see `ARNet`.

  Raises:
    UserError: an argument is out of range.
  """
  for name, value in (("order", order), ("depth", depth)):
    if value < 1:
      raise UserError(f"model.{name}={value}: must be at least 1")
  if not 1 <= forecasts <= length:
    raise UserError(
      f"model.forecasts={forecasts}: must lie between 1 and "
      f"model.length={length}"
    )
  if ramp not in RAMPS or error not in ("squared", "huber"):
    raise UserError(
      f"model.ramp={ramp!r}, model.error={error!r}: ramp is one of "
      f"{', '.join(RAMPS)}, error squared or huber"
    )
  net = Net(forecasts, depth, hidden)
  return ARNet(
    net,
    order,
    length,
    strength(density, factor),
    c1,
    c2,
    ramp,
    max(ramp_steps, 1),
    error == "huber",
    noise,
  )
