"""Units that are bits, each with a law of its own.

Shapes: B batch, T positions, D width, K bits.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick
from ar_jax.core.plans.plan import Plan

Array = jax.Array


class Bitwise(nn.Module):
  """K independent bits of a unit, each by a linear logit in float32.

  Attributes:
    bits: K.
    stddev: initial standard deviation.
  """

  bits: int
  stddev: float = 0.02

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    self.linear = nn.Dense(self.bits, kernel_init=init, dtype=jnp.float32)

  def logits(self, h: Array) -> Array:
    """f32[B, T, K] of h [B, T, D]: log-odds of a 1."""
    return self.linear(h.astype(jnp.float32))

  def nll(self, h: Array, target: Array) -> Array:
    """f32[B, T], summed over the bits of target, i32[B, T, K] in {0, 1}."""
    logits = self.logits(h)
    return jnp.sum(jax.nn.softplus(logits) - target * logits, -1)

  def loss(
    self,
    h: Array,
    target: Array,
    keys: Array | None = None,
    *,
    plan: Plan | None = None,
    pos: Array | None = None,
  ) -> Array:
    """As `nll`."""
    del keys, plan, pos
    return self.nll(h, target)

  def draw(
    self,
    h: Array,
    keys: Array,
    *,
    h_null: Array | None = None,
    scale: Array | float = 1.0,
    pos: Array | None = None,
    temperature: float = 1.0,
  ) -> Array:
    """Bits i32[B, T, K].

    Args:
      h: [B, T, D].
      keys: Key[B].
      h_null: the same without the condition; None if guidance is off.
      scale: of guidance of the log-odds; 1.0 is off.
      pos: not used.
      temperature: divides the log-odds; 0 takes the likelier bit.
    """
    del pos
    if h_null is not None:
      h = pick.guide(h.astype(jnp.float32), h_null.astype(jnp.float32), scale)
    logits = self.logits(h)
    if not temperature:
      return (logits > 0).astype(jnp.int32)
    odds = jax.nn.sigmoid(logits / temperature)
    shape = odds.shape[1:]
    uniform = jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)
    return (uniform < odds).astype(jnp.int32)
