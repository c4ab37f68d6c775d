"""EAGLE (arXiv 2401.15077): one layer that drafts the target's features.

The input at position t is the embedding of the unit at t + 1 and the target's
hidden state at t, after its last norm; the output is what the target's hidden
state at t + 1 should be. Embedding and head are the target's own. Where the
target adds a row to the position that predicts a unit (control), so does the
drafter, to the embedding: the features before know nothing of it.

Shapes: B examples, P positions of the prefix, L units, T positions, D width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.plans.makers import blocks
from ar_jax.core.plans.plan import Plan
from ar_jax.families.token.masks import hide_padding
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.prefix import Cond
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.norms import RMSNorm

Array = jax.Array


class Eagle(nn.Module):
  """The layer: no norm before the mixer, none at the end.

  Attributes:
    width: D.
    mixer: as the target's.
    mlp: as the target's.
    eps: of the norm before the MLP.
    stddev: initial standard deviation of the first matrix.
    dtype: of the computation.
  """

  width: int
  mixer: nn.Module
  mlp: nn.Module
  eps: float = 1e-5
  stddev: float = 0.02
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    self.norm = RMSNorm(self.eps)
    self.fc = nn.Dense(
      self.width,
      kernel_init=nn.initializers.normal(self.stddev),
      dtype=self.dtype,
    )

  def __call__(
    self,
    units: Array,
    features: Array,
    mask: Array | Plan,
    *,
    pos: Array,
    cache: Cache | None = None,
  ) -> tuple[Array, Cache | None]:
    """Features one position on.

    Args:
      units: [B, T, D], embedded.
      features: [B, T, D].
      mask: as in `ops.attention`.
      pos: where the units are; see `positions.rotate`.
      cache: of earlier positions, of one layer.

    Returns:
      f32[B, T, D], and the cache with T more rows.
    """
    x = self.fc(jnp.concatenate([units, features.astype(units.dtype)], -1))
    h, cache = self.mixer(x, mask, pos=pos, cache=cache)
    x = x + h.astype(x.dtype)
    x = x + self.mlp(self.norm(x)).astype(x.dtype)
    return x.astype(jnp.float32), cache if cache is None else cache.advance(
      units.shape[1]
    )

  def forced(
    self,
    net: NextToken,
    cond: Cond,
    units: Array,
    features: Array,
    beside: Array | None = None,
  ) -> Array:
    """What training needs: drafted features f32[B, L - 1, D] at the positions
    of the first L - 1 units.

    Args:
      net: the target, bound.
      cond: what its prefix takes.
      units: i32[B, L].
      features: [B, P + L - 1, D], its hidden states, maybe with noise.
      beside: [B, L, D], what `net.beside` says.
    """
    prefix, count = net.prefix.length, features.shape[1] - 1
    # The prefix has no units; 0 stands in its place.
    ids = jnp.pad(units[:, :-1], ((0, 0), (prefix - 1, 0)))
    mask, valid = blocks(count, 1), net.prefix.valid(cond)
    if valid is not None:
      mask = hide_padding(jnp.asarray(mask.mask())[None, None], valid[:, :-1])
    x = net.units(ids)
    if beside is not None:
      x = x + behind(beside, jnp.arange(1 - prefix, count + 1 - prefix)[None])
    h, _ = self(x, features[:, :-1], mask, pos=net.rotations()[1:])
    return h[:, prefix - 1 :]


def behind(beside: Array, place: Array) -> Array:
  """[B, T, D]: what belongs to the positions of units at places i32[B | 1, T],
  those that predict the next unit.

  Args:
    beside: [B, L, D], what `NextToken.beside` says.
    place: below -1 in the prefix, where there is nothing.
  """
  place = jnp.broadcast_to(place, (len(beside), place.shape[1]))[..., None]
  rows = jnp.take_along_axis(
    beside, jnp.maximum(place + 1, 0), axis=1, mode="clip"
  )
  return jnp.where(place >= -1, rows, 0)
