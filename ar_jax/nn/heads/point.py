"""A vector for every position: what a law is replaced by where noise has
decided already.

Shapes: B batch, T positions, C numbers, D width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.nn.layers.norms import layer_norm
from ar_jax.nn.stacks.blocks import modulate

Array = jax.Array


class Point(nn.Module):
  """A norm without parameters, modulated by a table of two rows and the
  condition, then a linear map; all in float32 (the last layer of PixArt, arXiv
  2310.00426, as Distilled Decoding has it).

  Attributes:
    channels: C.
    stddev: initial standard deviation of the map.
  """

  channels: int
  stddev: float = 0.02

  @nn.compact
  def __call__(self, h: Array, cond: Array) -> Array:
    """f32[B, T, C] of h [B, T, D] and cond [B, D], both as they are."""
    width = h.shape[-1]
    table = self.param("table", nn.initializers.normal(width**-0.5), (2, width))
    mod = table[None] + cond[:, None].astype(jnp.float32)
    x = modulate(layer_norm(h), mod[:, 1:], mod[:, :1])
    init = nn.initializers.normal(self.stddev)
    return nn.Dense(self.channels, kernel_init=init, name="linear")(x)
