"""A law of codes made into a generator of vectors, by what both say of noisy
ones (Distilled Decoding 2, arXiv 2510.21003; score identity distillation,
arXiv 2404.04057; distribution matching, arXiv 2311.18828).

The law is known: its posterior mean at any noisy vector has a closed form, see
`core.flows.codes`. A network, the guide, learns that of what the generator
makes; the generator is moved by their difference. All of it is about posterior
means of the data, which are finite at every time; a score has a factor 1 / s^2.

The guide is called velocity(x, t), with all that it knows of earlier units in
it, and this, as the law, must not depend on the generator: what is before a
unit is given, so that the first is learnt by itself, then the second behind the
first. The caller stops these gradients.

Shapes: T units, C numbers of a unit; x, noise f32[..., T, C], t f32[..., T]; q
may have fewer of the leading axes, those of repeats being first.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ar_jax.core.errors import check_choice
from ar_jax.core.flows import codes
from ar_jax.core.flows.codes import Points
from ar_jax.core.flows.flow import LINEAR, Path

Array = jax.Array
Velocity = Callable[[Array, Array], Array]
RULES = ("sid", "dmd")
SHARE = 0.98  # of the time, about its middle: both ends are singular


def times(key: Array, shape: tuple[int, ...]) -> Array:
  """Times f32[shape], uniform in [0.02, 0.98]."""
  low = 1 - SHARE
  return jax.random.uniform(key, shape, minval=low, maxval=SHARE)


def of_law(x: Array, points: Points, t: Array, path: Path = LINEAR) -> Array:
  """E[c | x], as the law says it."""
  a, s, _, _ = path.coefficients(jnp.asarray(t, jnp.float32)[..., None])
  return codes.mean(x, points, a, s)


def analytic_error(
  velocity: Velocity,
  points: Points,
  q: Array,
  noise: Array,
  t: Array,
  path: Path = LINEAR,
) -> Array:
  """f32[..., T]: the squared error of a velocity against that of the law, a
  mean over C (the paper's GTS). The target of flow matching has the same mean
  and a variance, this has none.

  Args:
    velocity: of the guide.
    points: the law of each unit behind those before it.
    q: its units, codes.
    noise, t: where it is asked.
    path: from noise to codes.
  """
  x = path.noisy(jnp.broadcast_to(q, noise.shape), noise, t)
  goal = path.convert("data", of_law(x, points, t, path), x, t).velocity
  return jnp.mean(jnp.square(velocity(x, t) - goal), -1)


def matching_error(
  velocity: Velocity,
  q: Array,
  noise: Array,
  t: Array,
  path: Path = LINEAR,
) -> Array:
  """f32[..., T]: the error of flow matching on what a generator made, a mean
  over C (the paper's FCS). Arguments as in `analytic_error`; no gradient goes
  into q."""
  q = jnp.broadcast_to(jax.lax.stop_gradient(q), noise.shape)
  error = velocity(path.noisy(q, noise, t), t) - path.velocity(q, noise, t)
  return jnp.mean(jnp.square(error), -1)


def score_error(
  velocity: Velocity,
  points: Points,
  q: Array,
  noise: Array,
  t: Array,
  *,
  rule: str = "sid",
  alpha: float = 1.0,
  path: Path = LINEAR,
) -> Array:
  """f32[..., T], whose gradient moves q so that the guide comes to agree with
  the law (the paper's CSD); it goes through q and noisy q alone.

  With the means m of the law and g of the guide, at noisy q,

    sid:  w ((1 - alpha) |m - g|^2 + <m - g, g - q>),
    dmd:  the gradient in q is w (g - m), and the value is w |g - m|^2 / 2,

  w being 1 / mean |q - m| without a gradient, and both means over C.

  Args:
    velocity, points, noise, t, path: as in `analytic_error`.
    q: what the generator makes.
    rule: "sid" or "dmd".
    alpha: of "sid".

  Raises:
    UserError: there is no such rule.
  """
  check_choice("rule", rule, RULES)
  stop, q = jax.lax.stop_gradient, jnp.broadcast_to(q, noise.shape)
  x = path.noisy(q if rule == "sid" else stop(q), noise, t)
  law = of_law(x, points, t, path)
  own = path.convert("velocity", velocity(x, t), x, t).data
  weight = 1 / (jnp.mean(jnp.abs(stop(q - law)), -1) + 1e-3)
  apart = law - own
  if rule == "sid":
    terms = (1 - alpha) * jnp.square(apart) + apart * (own - q)
  else:
    apart = stop(apart)
    pull = apart * (q - stop(q))  # zero, with the gradient of the rule
    terms = 0.5 * jnp.square(apart) - pull
  return weight * jnp.mean(terms, -1)
