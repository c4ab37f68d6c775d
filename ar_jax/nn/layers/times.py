"""The time of a flow, or the level of a noise, as features for a network."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.nn.layers.linear import initial
from ar_jax.nn.layers.placement import by_example

Array = jax.Array


def sinusoids(at: Array, count: int = 256, period: float = 1e4) -> Array:
  """Cosines, then sines: f32[..., count] of at f32[...].

  Frequencies are period^(-2 j / count), j = 0 .. count / 2 - 1.
  """
  half = count // 2
  rates = jnp.exp(-math.log(period) * jnp.arange(half) / half)
  angle = at.astype(jnp.float32)[..., None] * rates.reshape(
    (1,) * at.ndim + (-1,)
  )
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)


def thousandths(t: Array) -> Array:
  """floor(1000 (1 - t)), f32: what FlowAR and xAR feed, whose time counts from
  data to noise, for our times t (0 is noise).

  A grid time such as 0.7 is not exact in float32; a thousandth of a step is
  added, so that it gives 300 and not 299.
  """
  return jnp.floor(1000 * (1 - t) + 1e-3)


class TimeEmbed(nn.Module):
  """Sinusoids, linear, SiLU, linear.

  The fastest sinusoid turns once in 2 pi: times in [0, 1] are to be scaled up,
  by `thousandths` for instance, or nets of small width see them too late.

  Attributes:
    width: D.
    stddev: initial standard deviation of both matrices; None is
      Xavier-uniform.
    dtype: of the computation.
    features: how many sinusoids.
  """

  width: int
  stddev: float | None = 0.02
  dtype: jnp.dtype = jnp.float32
  features: int = 256

  @nn.compact
  def __call__(self, at: Array) -> Array:
    """[..., D] of at f32[...] or i32[...]."""
    dense = lambda name: nn.Dense(
      self.width,
      kernel_init=initial(self.stddev),
      dtype=self.dtype,
      name=name,
    )
    # Times of positions are as many as these, and stay where those are.
    placed = by_example if at.ndim > 1 else lambda x: x
    hidden = placed(dense("fc1")(placed(sinusoids(at, self.features))))
    return dense("fc2")(nn.silu(hidden))
