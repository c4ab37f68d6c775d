"""A transformer that reads something coarse of all units, and says at once
what each of them is.

Shapes: B batch, P positions of the prefix, L units, D width, V codes.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.plans.plan import Plan
from ar_jax.families.token import prefix as prefixes
from ar_jax.families.token.prefix import Cond
from ar_jax.nn.layers.positions import rope
from ar_jax.nn.stacks.blocks import dropout
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class Refiner(nn.Module):
  """The transformer over prefix and units, all of which see each other.

  Attributes:
    plan: where the units lie: on a grid or on a line.
    units: the reader of what is known, see `readers`.
    width: D.
    prefix: of a condition, see `prefix`; without padding.
    backbone: the stack.
    head: the law of a unit, a `Categorical`.
    prefix_rope: see `positions.rope`.
    dropout: of the embeddings, in training.
  """

  plan: Plan
  units: nn.Module
  width: int
  prefix: nn.Module
  backbone: Backbone
  head: nn.Module
  prefix_rope: str = "zero"
  dropout: float = 0.0

  def logits(
    self,
    cond: Cond,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, L, V] of every unit.

    Args:
      cond: what `prefix` takes.
      units: i32[B, L], what is known of them.
      hidden: bool[B], examples whose condition is not visible; None for none.
      keys: Key[B] for dropout, or None.
    """
    before = prefixes.rows(self.prefix, cond, hidden, len(units))
    x = jnp.concatenate([before, self.units(units)], axis=1)
    x = dropout(x, keys, self.dropout, self.backbone.depth)
    pos = rope(
      self.plan,
      self.backbone.head_width(self.width),
      prefix=self.prefix.length,
      prefix_rope=self.prefix_rope,
    )
    h, _ = self.backbone(x, pos=jnp.asarray(pos), keys=keys)
    return self.head.logits(h[:, self.prefix.length :])
