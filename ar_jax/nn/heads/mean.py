"""A head that says one vector: what a head that draws is compared with.

Shapes: B batch, T positions, C channels of a unit, D width.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class Mean(nn.Module):
  """One vector for every position, trained by its squared error: the mean of
  what might come, which is where nothing is when it might be one of two.

  Attributes:
    channels: C.
    width: of its hidden layers.
    weight: of the error; above 1 where units are much smaller than 1, so that
      it counts beside other terms as the error of noise does.
  """

  channels: int
  width: int
  weight: float = 1.0

  @nn.compact
  def __call__(self, h: Array) -> Array:
    """f32[B, T, C] of h [B, T, D]."""
    x = nn.silu(nn.Dense(self.width, name="fc1")(h.astype(jnp.float32)))
    x = nn.silu(nn.Dense(self.width, name="fc2")(x))
    return nn.Dense(self.channels, name="out")(x)

  def loss(self, h: Array, target: Array, keys: Array) -> Array:
    """f32[B, T]: the weighted squared error of each unit, a mean over C."""
    del keys
    return self.weight * jnp.mean(jnp.square(self(h) - target), -1)

  def draw(self, h: Array, keys: Array, **options: Any) -> Array:
    """f32[B, T, C]; nothing is drawn, and no option counts."""
    del keys, options
    return self(h)
