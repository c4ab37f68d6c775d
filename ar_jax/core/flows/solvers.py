"""What follows a velocity from noise to data, and densities by the way back.

Time as in `core.flows.flow`: t = 0 is noise, t = 1 is data. A grid of times is
known when a program is traced, so each sampler is one loop, traced once.

Shapes: B batch, n steps; x is [B, ...].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.flows.flow import LINEAR, Path

Array = jax.Array
Velocity = Callable[[Any, Array], Any]  # (x, t f32[]) -> v, shaped as x


def uniform_grid(n: int, start: float = 0.0, stop: float = 1.0) -> np.ndarray:
  """n + 1 equally spaced times, f64."""
  return np.linspace(start, stop, n + 1)


def _rows(times: Sequence[float]) -> tuple[Array, Array, Array]:
  """(t, dt, dt / dt before) of every step; the last is 0 for the first."""
  times = np.asarray(times, np.float64)
  steps = np.diff(times)
  if times.ndim != 1 or len(times) < 2 or not np.all(steps):
    raise UserError(f"times={times}: give at least two, none twice in a row")
  ratio = np.concatenate([[0.0], steps[1:] / steps[:-1]])
  return tuple(np.float32(x) for x in (times[:-1], steps, ratio))


def _plus(x: Any, *terms: tuple[Any, Any]) -> Any:
  """x + sum of h v, leaf by leaf."""
  for h, v in terms:
    x = jax.tree.map(lambda x, v, h=h: x + h * v, x, v)
  return x


def euler(
  velocity: Velocity, x: Any, times: Sequence[float], trail: bool = False
) -> Any:
  """Order 1, one evaluation a step."""

  def step(x, row):
    t, dt, _ = row
    x = _plus(x, (dt, velocity(x, t)))
    return x, x if trail else None

  x, seen = jax.lax.scan(step, x, _rows(times))
  return (x, seen) if trail else x


def heun(
  velocity: Velocity, x: Any, times: Sequence[float], trail: bool = False
) -> Any:
  """Order 2, two evaluations a step: the mean slope of both ends."""

  def step(x, row):
    t, dt, _ = row
    first = velocity(x, t)
    second = velocity(_plus(x, (dt, first)), t + dt)
    x = _plus(x, (dt / 2, first), (dt / 2, second))
    return x, x if trail else None

  x, seen = jax.lax.scan(step, x, _rows(times))
  return (x, seen) if trail else x


def _fixed(ratio: Array) -> tuple[Array, Array]:
  half = jnp.where(jnp.asarray(ratio) == 0, 0.0, 0.5)
  return 1 + half, -half


# What a step of one evaluation follows: the weights of the slope now and of
# the one before, of the length of this step over that of the one before, 0 for
# the first.
SLOPES = {
  "euler": lambda ratio: (jnp.ones_like(ratio), jnp.zeros_like(ratio)),
  "adams_bashforth": lambda ratio: (1 + ratio / 2, -ratio / 2),
  "adams_bashforth_fixed": _fixed,
}


def adams_bashforth(
  velocity: Velocity,
  x: Any,
  times: Sequence[float],
  trail: bool = False,
  weights: str = "adams_bashforth",
) -> Any:
  """Order 2, one evaluation a step: extrapolates from the slope before.

  The first step is Euler's, whose one error of order dt^2 keeps the order.

  Args:
    velocity, x, times, trail: as in `integrate`.
    weights: a key of SLOPES. Those of "adams_bashforth_fixed", 3/2 and -1/2
      whatever the steps are, are of order 2 on a uniform grid alone (D-AR,
      arXiv 2505.23660, has them on another).
  """

  def step(carry, row):
    x, before = carry
    t, dt, ratio = row
    now = velocity(x, t)
    own, other = SLOPES[weights](ratio)
    x = _plus(x, (dt * own, now), (dt * other, before))
    return (x, now), x if trail else None

  start = x, jax.tree.map(jnp.zeros_like, x)
  (x, _), seen = jax.lax.scan(step, start, _rows(times))
  return (x, seen) if trail else x


SOLVERS = {
  "euler": euler,
  "heun": heun,
  "adams_bashforth": adams_bashforth,
  "adams_bashforth_fixed": functools.partial(
    adams_bashforth, weights="adams_bashforth_fixed"
  ),
}


def integrate(
  velocity: Velocity,
  x: Any,
  times: Sequence[float],
  method: str = "euler",
  trail: bool = False,
) -> Any:
  """Solves dx/dt = velocity(x, t) over a grid of times, traced once.

  Args:
    velocity: (x, t f32[]) -> dx/dt; the network, already guided.
    x: f32[B, ...] or a tree of such, at times[0]: noise, to sample.
    times: n + 1 numbers, known at trace time, rising or falling.
    method: a key of SOLVERS.
    trail: whether to return the way as well.

  Returns:
    x at times[-1]; with `trail` also x at times[1:], f32[n, B, ...].

  Raises:
    UserError: no such method, or the grid stands still.
  """
  check_choice("method", method, SOLVERS)
  return SOLVERS[method](velocity, x, times, trail)


def noise(keys: Array, shape: Sequence[int], step: Array | int = 0) -> Array:
  """Normal noise f32[B, *shape] of the keys Key[B] folded with a step."""
  draw = lambda key: jax.random.normal(
    jax.random.fold_in(key, step), tuple(shape)
  )
  return jax.vmap(draw)(keys)


DIFFUSIONS = {
  "sigma": lambda s: s,
  "sigma^2": jnp.square,
  "none": jnp.zeros_like,
}
LAST_STEPS = ("mean", "euler", "data")


def euler_maruyama(
  velocity: Velocity,
  x: Array,
  times: Sequence[float],
  keys: Array,
  *,
  path: Path = LINEAR,
  diffusion: str = "sigma",
  last: str = "mean",
  start: int = 0,
  trail: bool = False,
  carry: Any = None,
) -> Any:
  """Solves dx = (v + w score) dt + sqrt(2 w) dW, which has the laws of the
  path for any w >= 0 (SiT, arXiv 2401.08740).

  Every step but the last adds noise: n evaluations for n + 1 times. xAR's
  sampler of S steps is times (0, ..., 0.96, 1) with S - 1 equal steps before
  the last, all else as by default.

  Args:
    velocity: (x, t f32[]) -> v.
    x: f32[B, ...], noise at times[0].
    times: n + 1 rising numbers, the last but one below 1.
    keys: Key[B].
    path: whose velocity it is.
    diffusion: w as a key of DIFFUSIONS, a function of s(t).
    last: the last step: "mean" follows the drift, "euler" the velocity,
      "data" returns the data that the velocity implies.
    start: number of the first step, folded into the keys.
    trail: whether to return the way as well.
    carry: a state, if any, of a velocity that is then called (x, t, carry) and
      returns (v, carry): a network that remembers where it has been.

  Returns:
    x at times[-1]; with `trail` also x at times[1:], f32[n, B, ...].

  Raises:
    UserError: an option or the grid is not one.
  """
  if diffusion not in DIFFUSIONS or last not in LAST_STEPS:
    raise UserError(
      f"diffusion={diffusion!r}, last={last!r}: choose of "
      f"{', '.join(DIFFUSIONS)} and of {', '.join(LAST_STEPS)}"
    )
  t, dt, _ = _rows(times)
  if dt.min() < 0 or t.max() >= 1:
    raise UserError("times of a stochastic sampler must rise, to 1 at the end")

  def step(state, row):
    # One loop for all steps, so that the network is compiled once.
    (x, carry), (t, dt, index, final) = state, row
    if carry is None:
      v = velocity(x, t)
    else:
      v, carry = velocity(x, t, carry)
    w = DIFFUSIONS[diffusion](path.coefficients(t)[1])
    form = path.convert("velocity", v, x, t)
    mean = x + dt * (v + w * form.score)
    fresh = noise(keys, x.shape[1:], index)
    end = {"mean": mean, "euler": x + dt * v, "data": form.data}[last]
    x = jnp.where(final, end, mean + jnp.sqrt(2 * w * dt) * fresh)
    return (x, carry), x if trail else None

  index = start + np.arange(len(t))
  final = np.arange(len(t)) == len(t) - 1
  (x, _), seen = jax.lax.scan(step, (x, carry), (t, dt, index, final))
  return (x, seen) if trail else x


def log_likelihood(
  velocity: Velocity,
  x: Array,
  times: Sequence[float],
  *,
  event: int = 1,
  keys: Array | None = None,
  method: str = "heun",
) -> Array:
  """log p(x) in nats of the law that the flow makes of normal noise.

  log p(x_1) = log N(x_0) - the integral of div v over t (arXiv 1810.01367),
  x_0 found by integrating back. The estimate by keys is
  unbiased up to the error of the solver; without keys it is exact up to it.

  Args:
    velocity: (x, t f32[]) -> v. Of the axes before `event`, every index is a
      variable on its own: v there may depend on no other.
    x: f32[B, ...] data.
    times: a rising grid from 0 to 1.
    event: how many of the last axes form one variable.
    keys: Key[B] of one random probe per example (Hutchinson); None sums the
      diagonal of the Jacobian, one product for each of its entries.
    method: a key of SOLVERS.

  Returns:
    f32 of the shape of x without its last `event` axes.
  """
  axes = tuple(range(x.ndim - event, x.ndim))
  shape = x.shape[x.ndim - event :]
  size = math.prod(shape)
  lead = (1,) * (x.ndim - event)
  if keys is None:
    probes = jnp.eye(size).reshape(size, *lead, *shape)
  else:
    sign = lambda key: jax.random.rademacher(key, x.shape[1:], jnp.float32)
    probes = jax.vmap(sign)(keys)[None]

  def slope(state, t):
    x, _ = state

    def along(probe):
      probe = jnp.broadcast_to(probe, x.shape)
      v, change = jax.jvp(lambda x: velocity(x, t), (x,), (probe,))
      return v, jnp.sum(probe * change, axes)

    v, parts = jax.lax.map(along, probes)
    return v[0], jnp.sum(parts, 0)

  state = x, jnp.zeros(x.shape[: x.ndim - event])
  times = np.asarray(times)[::-1]
  x0, back = integrate(slope, state, times, method)
  normal = -0.5 * (jnp.sum(x0**2, axes) + size * math.log(2 * math.pi))
  return normal + back
