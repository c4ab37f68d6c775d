"""A net of tokens whose positions are learned, and not turned: a table that is
added to what is read, as the transformers over GigaTok's codes have it (arXiv
2504.08736).

Shapes: B batch, P positions of the prefix, L units, T new positions, D width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.system import UserError
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.prefix import Cond
from ar_jax.nn.layers.cache import Cache

Array = jax.Array


class Placed(NextToken):
  """As `NextToken`, with a table of P + L places, of which the last is never
  read."""

  def setup(self):
    init = nn.initializers.normal(self.width**-0.5)
    self.table = self.param("places", init, (self.rows + 1, self.width))

  def rotations(self) -> None:
    """There are none."""
    return None

  def turns(self, at: Array) -> None:
    """There are none."""
    return None

  def grouped(self, *args, **options):
    raise UserError("drafts behind units need positions that are rotations")

  def look(
    self,
    x: Array,
    cache: Cache,
    valid: Array | None = None,
    tree: tuple[Array, Array] | None = None,
  ) -> tuple[Array, Cache]:
    at = self.places(cache, x.shape[1], tree)
    own = jnp.take(self.table, at, axis=0, mode="clip")
    return super().look(x + own.astype(x.dtype), cache, valid, tree)

  def _embed(
    self, cond: Cond, units: Array, hidden: Array | None
  ) -> tuple[Array, Array]:
    x, last = super()._embed(cond, units, hidden)
    return x + self.table[None, : x.shape[1]].astype(x.dtype), last
