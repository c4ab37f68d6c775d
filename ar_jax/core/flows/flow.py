"""Between noise and data: paths, times of training, predictions, guidance.

Time, everywhere in this library: t = 0 is noise and t = 1 is data. On a path,

  x_t = a(t) x + s(t) e,    v = dx_t/dt = a'(t) x + s'(t) e,

with data x and normal noise e, and a sampler integrates v from 0 to 1. Code
that counts the other way (FlowAR, xAR: t = 1 is noise) is converted by
t -> 1 - t, v -> -v. What integrates v is in `core.flows.solvers`, the discrete
levels of MAR are in `core.flows.ddpm`.

Shapes: B batch; x is [B, ...]; times are f32[B] or f32[B, ...], the leading
axes of x, or f32[], the same for all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick
from ar_jax.core.errors import UserError, check_choice

Array = jax.Array


def _along(t: Array | float, x: Array) -> Array:
  """t with the rank of x, so that it multiplies along the leading axes."""
  t = jnp.asarray(t, jnp.float32)
  return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


class Prediction(NamedTuple):
  """Four forms of one prediction, each f32 as x_t is."""

  data: Array
  noise: Array
  velocity: Array
  score: Array


@dataclasses.dataclass(frozen=True)
class Path:
  """How noise becomes data; see the equations above.

  Attributes:
    name: a key of PATHS.
    coefficients: t -> (a, s, a', s').
  """

  name: str
  coefficients: Callable[[Array], tuple[Array, Array, Array, Array]]

  def noisy(self, x: Array, noise: Array, t: Array) -> Array:
    """x_t of data x and noise, both [B, ...]."""
    a, s, _, _ = self.coefficients(_along(t, x))
    return a * x + s * noise

  def velocity(self, x: Array, noise: Array, t: Array) -> Array:
    """v, the target of flow matching."""
    _, _, da, ds = self.coefficients(_along(t, x))
    return da * x + ds * noise

  def convert(self, of: str, value: Array, xt: Array, t: Array) -> Prediction:
    """The other forms of a prediction, exactly; for any value, right or not.

    Args:
      of: what is given: "velocity", "noise" or "data".
      value: it, [B, ...].
      xt: x_t.
      t: time. Noise says nothing of the data at t = 0, data nothing of the
        noise at t = 1; and the velocity of "vp" is unbounded at t = 1.

    Raises:
      UserError: no such form.
    """
    a, s, da, ds = self.coefficients(_along(t, xt))
    if of == "velocity":
      # Inverts the two equations of x_t and v; -1 on the linear path.
      determinant = a * ds - s * da
      data = (ds * xt - s * value) / determinant
      noise = (a * value - da * xt) / determinant
    elif of == "noise":
      data, noise = (xt - s * value) / a, value
    elif of == "data":
      data, noise = value, (xt - a * value) / s
    else:
      raise UserError(f"of={of!r}: choose velocity, noise or data")
    v = value if of == "velocity" else da * data + ds * noise
    return Prediction(data, noise, v, -noise / s)

  def score(self, velocity: Array, xt: Array, t: Array) -> Array:
    """The gradient of log p_t at x_t, of a velocity; t < 1."""
    return self.convert("velocity", velocity, xt, t).score


def _linear(t):
  one = jnp.ones_like(t)
  return t, 1 - t, one, -one


def _cosine(t):
  half = math.pi / 2
  a, s = jnp.sin(half * t), jnp.cos(half * t)
  return a, s, half * s, -half * a


def _vp(t, least=0.1, most=20.0):
  u = 1 - t
  a = jnp.exp(-0.25 * (most - least) * u**2 - 0.5 * least * u)
  da = a * (0.5 * (most - least) * u + 0.5 * least)
  s = jnp.sqrt(-jnp.expm1(2 * jnp.log(a)))
  return a, s, da, -a * da / s


# Rectified flow (arXiv 2209.03003); the cosine and the variance-preserving
# path as in SiT (arXiv 2401.08740).
LINEAR = Path("linear", _linear)
COSINE = Path("cosine", _cosine)
VP = Path("vp", _vp)
PATHS = {path.name: path for path in (LINEAR, COSINE, VP)}


def path(name: str) -> Path:
  """The path of that name.

  Raises:
    UserError: there is none.
  """
  check_choice("path", name, PATHS)
  return PATHS[name]


@dataclasses.dataclass(frozen=True)
class Times:
  """The law of the time of a training example; hashable.

  Attributes:
    law: "uniform", or "logit_normal": sigmoid(mean + std n), n normal
      (arXiv 2403.03206).
    mean: of the logit; above 0 is nearer to data.
    std: of the logit.
    shift: times t become t / (t + shift (1 - t)): above 1 is nearer to noise,
      as large images want it (arXiv 2403.03206, section 5.3.2).
  """

  law: str = "uniform"
  mean: float = 0.0
  std: float = 1.0
  shift: float = 1.0

  def __post_init__(self):
    check_choice("times", self.law, ("uniform", "logit_normal"))
    if not (self.shift > 0 and self.std > 0):
      raise UserError(
        f"times: shift={self.shift} and std={self.std} must be above 0"
      )

  def draw(self, key: Array, shape: Sequence[int] = ()) -> Array:
    """Times f32[*shape] in [0, 1]."""
    if self.law == "uniform":
      t = jax.random.uniform(key, shape)
    else:
      normal = jax.random.normal(key, shape)
      t = jax.nn.sigmoid(self.mean + self.std * normal)
    return shift(t, self.shift)


def shift(t: Array, by: float) -> Array:
  """t / (t + by (1 - t)); see `Times`. Also moves the grid of a sampler."""
  return t if by == 1.0 else t / (t + by * (1 - t))


def guide(
  cond: Array,
  null: Array,
  scale: Array | float,
  t: Array | float = 0.0,
  interval: tuple[float, float] = (0.0, 1.0),
) -> Array:
  """Guided velocity: null + scale (cond - null) while t lies in the interval
  (its ends included), else `cond`; scale 1.0 is off."""
  guided = pick.guide(cond, null, scale)
  if tuple(interval) == (0.0, 1.0):
    return guided
  # A grid of float32 times must not fall off the ends by rounding.
  low, high = interval[0] - 1e-6, interval[1] + 1e-6
  return jnp.where((t >= low) & (t <= high), guided, cond)
