"""Where a slot is: learned tables over the slots and steps of a plan."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.plan import Plan

Array = jax.Array


class SlotEmbed(nn.Module):
  """One learned vector per slot, plus one per step (VAR's level embedding).

  Attributes:
    plan: gives the slots and the step of each.
    width: D.
    stddev: initial standard deviation.
  """

  plan: Plan
  width: int
  stddev: float = 0.02

  @nn.compact
  def __call__(self, span: slice = slice(None)) -> Array:
    """f32[slots of span, D]."""
    init = nn.initializers.normal(self.stddev)
    slot = self.param("slot", init, (len(self.plan), self.width))
    step = self.param("step", init, (self.plan.steps, self.width))
    return slot[span] + jnp.take(step, self.plan["step"][span], axis=0)
