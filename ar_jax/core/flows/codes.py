"""The flow between normal noise and the codes of a codebook: a mixture of
points as data, for which every form of the prediction has a closed form
(Distilled Decoding, arXiv 2412.17153).

With probabilities p_j of codes c_j and x = a c + s e on a path,

  w_j = p_j exp(-|x - a c_j|^2 / (2 s^2)) / sum,     E[c | x] = sum_j w_j c_j,

from which velocity and score follow as from any prediction of the data. What
follows the velocity from noise ends at the code j for a share p_j of the noise:
a draw as that of a categorical law, but a continuous function of the noise
almost everywhere. Solvers must be good: their error is one of the law.

These functions take x and (a, s), so the direction of time is the path's alone.

Shapes: B batch, T units, C numbers of a code, V codes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError
from ar_jax.core.flows import solvers
from ar_jax.core.flows.flow import LINEAR, Path, Prediction

Array = jax.Array


class Points(NamedTuple):
  """The law of a unit over codes.

  Attributes:
    logp: f32[..., V], log-probabilities, -inf of codes that are ruled out.
    codes: f32[V, C], or f32[..., V, C] where each law has codes of its own.
  """

  logp: Array
  codes: Array

  def likeliest(self, k: int) -> tuple[Points, Array]:
    """The law of the k likeliest codes alone, which costs k / V as much, and
    which codes they are, i32[..., k]."""
    logp, index = jax.lax.top_k(self.logp, k)
    codes = jnp.asarray(self.codes)[index]
    return Points(jax.nn.log_softmax(logp, -1), codes), index


def posterior(x: Array, points: Points, a: Array, s: Array) -> Array:
  """log w, f32[..., V].

  Args:
    x: f32[..., C].
    points: the law.
    a, s: f32[], of the path; s > 0.
  """
  logp, codes = points
  product = _product(x, codes)
  # One law, or one codebook, may be that of all units.
  like = lambda y: y.reshape((1,) * (product.ndim - y.ndim) + y.shape)
  square = like(jnp.sum(jnp.square(codes), -1))
  # |x|^2 is the same for all codes.
  near = a * product - 0.5 * a**2 * square
  return jax.nn.log_softmax(like(logp) + near / s**2, -1)


def mean(x: Array, points: Points, a: Array, s: Array) -> Array:
  """E[c | x], f32[..., C]; arguments as those of `posterior`."""
  weight, codes = jnp.exp(posterior(x, points, a, s)), points.codes
  of = "...v,...vc->...c" if codes.ndim > 2 else "...v,vc->...c"
  return jnp.einsum(of, weight, codes, precision=jax.lax.Precision.HIGHEST)


def _product(x: Array, codes: Array) -> Array:
  of = "...c,...vc->...v" if codes.ndim > 2 else "...c,vc->...v"
  return jnp.einsum(of, x, codes, precision=jax.lax.Precision.HIGHEST)


def predict(
  x: Array, points: Points, t: Array | float, path: Path = LINEAR
) -> Prediction:
  """Posterior mean, noise, velocity and score at x f32[..., C], t < 1."""
  a, s, _, _ = path.coefficients(jnp.asarray(t, jnp.float32))
  return path.convert("data", mean(x, points, a, s), x, t)


class Arrived(NamedTuple):
  """Where the flow ends.

  Attributes:
    index: i32[...], the code.
    mean: f32[..., C], the posterior mean at the end, near to that code.
  """

  index: Array
  mean: Array


def travel(
  noise: Array,
  points: Points,
  *,
  steps: int = 20,
  method: str = "heun",
  path: Path = LINEAR,
) -> Arrived:
  """The code to which each noise flows.

  The last of so many equal steps is to the posterior mean, whose heaviest code
  it is: the velocity has no value where s = 0.

  Args:
    noise: f32[..., C], normal.
    points: the law.
    steps: of the solver, 2 at least. By Heun's method 20 are enough that the
      law is that of the points to one part in a thousand; by Euler's 50 are
      not.
    method: a key of `solvers.SOLVERS`.
    path: from noise to the codes.

  Raises:
    UserError: there are too few steps, or no such method.
  """
  if steps < 2:
    raise UserError(f"{steps} steps of the flow to the codes: at least 2")
  times = solvers.uniform_grid(steps)[:-1]
  velocity = lambda x, t: predict(x, points, t, path).velocity
  x = solvers.integrate(velocity, noise, times, method)
  a, s, _, _ = path.coefficients(jnp.float32(times[-1]))
  index = jnp.argmax(posterior(x, points, a, s), -1).astype(jnp.int32)
  return Arrived(index, mean(x, points, a, s))


def draw(
  logp: Array,
  codes: Array,
  noise: Array,
  *,
  keep: int = 0,
  **solver,
) -> Array:
  """Codes i32[..., T], to which noise flows: in place of `pick.draw`.

  Args:
    logp: f32[..., T, V], what `pick.law` returns.
    codes: f32[V, C].
    noise: f32[..., T, C].
    keep: only so many of the likeliest codes are looked at, such as the top-k
      of the law; 0 is all.
    **solver: see `travel`.
  """
  points = Points(logp, codes)
  if not 0 < keep < logp.shape[-1]:
    return travel(noise, points, **solver).index
  points, index = points.likeliest(keep)
  found = travel(noise, points, **solver).index
  return jnp.take_along_axis(index, found[..., None], -1)[..., 0]
