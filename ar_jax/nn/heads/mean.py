"""Heads to compare laws of vectors with: the mean of what might come, and the
nearest of some codes.

Shapes: B batch, T units, C channels of a unit, D width, V codes.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick
from ar_jax.nn.heads.categorical import Categorical

Array = jax.Array


class Mean(nn.Module):
  """A head that says one vector, trained by its squared error: the mean of
  what might come, which is where nothing is when it might be one of two.

  Attributes:
    channels: C.
    width: of its hidden layers.
    weight: of the error.
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
    """f32[B, T]: the weighted squared error, a mean over C numbers."""
    del keys
    return self.weight * jnp.mean(jnp.square(self(h) - target), -1)

  def draw(
    self,
    h: Array,
    keys: Array,
    *,
    h_null: Array | None = None,
    scale: Array | float = 1.0,
    **options: Any,
  ) -> Array:
    """f32[B, T, C]; nothing is drawn, and no further option counts."""
    del keys, options
    said = self(h)
    return said if h_null is None else pick.guide(said, self(h_null), scale)


class NearestCode(nn.Module):
  """A law of vectors that are all among V codes. The codes are no parameters:
  they are the collection `codebook`, which a system fits.

  Attributes:
    vocab: V.
    channels: C.
  """

  vocab: int
  channels: int

  def setup(self):
    shape = self.vocab, self.channels
    self.codes = self.variable("codebook", "codes", jnp.zeros, shape)
    self.law = Categorical(self.vocab)

  def ids(self, units: Array) -> Array:
    """i32[B, T]: the nearest code of each of f32[B, T, C]."""
    codes = self.codes.value
    far = jnp.square(codes).sum(-1)[None, None] - 2 * jnp.einsum(
      "btc,vc->btv", units, codes, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.argmin(far, -1)

  def snap(self, units: Array) -> Array:
    """f32[B, T, C]: the nearest codes themselves."""
    return jnp.take(self.codes.value, self.ids(units), axis=0)

  def loss(self, h: Array, target: Array, keys: Array) -> Array:
    """f32[B, T]: -log p of the nearest code of each of target f32[B, T, C]."""
    del keys
    return self.law.nll(h, self.ids(target))

  def draw(self, h: Array, keys: Array, **options: Any) -> Array:
    """f32[B, T, C]: codes, drawn as `Categorical.draw` draws their numbers."""
    return jnp.take(self.codes.value, self.law.draw(h, keys, **options), axis=0)
