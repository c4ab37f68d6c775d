"""A transformer whose last layers may be exchanged.

Shapes: B batch, T positions, D width.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from ar_jax.core.decoding import steps
from ar_jax.core.plans import plan
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class Halves(nn.Module):
  """A `Backbone` in two parts, the second of which may be exchanged; without
  a cache, for scales that do not see each other.

  Attributes:
    base: its first layers.
    tail: the others, and the last norm.
  """

  base: Backbone
  tail: Backbone

  def condition(self, cond: Array) -> tuple[Any, Any]:
    """What both need of cond [B, D]."""
    return self.base.condition(cond), self.tail.condition(cond)

  def __call__(
    self,
    x: Array,
    mask: plan.Plan | None = None,
    *,
    cond: tuple[Any, Any],
    cache: None = None,
    keys: Array | None = None,
  ) -> tuple[Array, None]:
    """As `Backbone`; there is nothing to cache."""
    of = lambda i: None if keys is None else steps.fold(keys, i)
    h, _ = self.base(x, mask, cond=cond[0], keys=of(0))
    return self.tail(h, mask, cond=cond[1], keys=of(1))

  def cache(self, batch: int, length: int, width: int) -> None:
    """Nothing."""
