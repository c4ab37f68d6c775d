"""A transformer over units whose positions are learned (GPT-2, iGPT).

Shapes: B batch, P positions of the prefix, L units, T positions, D width.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from ar_jax.core.plans.plan import Plan
from ar_jax.families.token.net import NextToken
from ar_jax.nn.layers.cache import Cache

Array = jax.Array


class Placed(NextToken):
  """A `NextToken` that adds a learned row for each position to what it reads,
  in place of rotations.

  Attributes: as there, and
    stddev: initial standard deviation of these rows.
  """

  stddev: float = 0.01

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    self.position = self.param("position", init, (self.rows, self.width))

  def rotations(self) -> Array:
    """f32[P + L - 1, D]: the rows, in place of rotations."""
    return self.position

  def _stack(
    self,
    x: Array,
    mask: Array | Plan,
    last: Array | None,
    *,
    pos: Array,
    **options: Any,
  ) -> tuple[Array, Cache | None]:
    pos = pos if pos.ndim == x.ndim else pos[None]
    return super()._stack(x + pos, mask, last, pos=None, **options)
