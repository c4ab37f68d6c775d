"""A transformer over units whose positions are learned (GPT-2, iGPT; the ones
over GigaTok's codes, arXiv 2504.08736).

Shapes: B batch, P positions of the prefix, L units, T positions, D width.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import UserError
from ar_jax.families.token.net import NextToken
from ar_jax.nn.layers.cache import Cache

Array = jax.Array


class Placed(NextToken):
  """A `NextToken` that adds a learned row for each position to what it reads,
  in place of rotations.

  Attributes: as there, and
    stddev: initial standard deviation of these rows.
    spare: rows behind those of all positions, which are never read: published
      tables have one for the last unit.
  """

  stddev: float = 0.01
  spare: int = 0

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    shape = (self.rows + self.spare, self.width)
    self.table = self.param("places", init, shape)

  def rotations(self) -> Array:
    """f32[P + L - 1, D]: the rows, in place of rotations."""
    return self.table[: self.rows]

  def grouped(self, *args, **options):
    raise UserError("drafts behind units need positions that are rotations")

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
    x = x + pos.astype(x.dtype)
    return super()._stack(x, mask, last, pos=None, **options)
