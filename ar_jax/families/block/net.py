"""A transformer over blocks of units: a block sees itself whole and all blocks
before it, and hidden units of it are filled (block diffusion, arXiv 2503.09573;
SDAR, arXiv 2510.06303).

The state at a position says the law of the unit of that position: nothing is
shifted.

Shapes: B batch, P positions of the prefix, L units, N units of a block, T new
positions, R noisy copies, D width, V codes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan, plan
from ar_jax.core.system import Vars
from ar_jax.families.token import prefix as prefixes
from ar_jax.families.token.masks import hide_padding, padding_mask
from ar_jax.families.token.prefix import Cond
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.linear import TRANSPOSED
from ar_jax.nn.layers.positions import rope
from ar_jax.nn.stacks.blocks import dropout
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class BlockNet(nn.Module):
  """The transformer over a prefix and blocks of units.

  Its parameters are those of a `NextToken` of the same parts, and the row of
  what is hidden.

  Attributes:
    plan: one unit a step, on a grid or on a line; blocks are of units that
      follow each other in it.
    block: N; the last block may have fewer.
    units: their reader, of codes.
    width: D.
    prefix: of a condition, see `families.token.prefix`.
    backbone: the stack.
    head: the law of a code.
    prefix_rope: see `positions.rope`.
    base: see `positions.rope`.
    dropout: of the embeddings, in training.
    mask_id: the code whose row stands for what is hidden, and which is never
      drawn; None where hidden units have a row of their own, `mask`.
  """

  plan: Plan
  block: int
  units: nn.Module
  width: int
  prefix: nn.Module
  backbone: Backbone
  head: Categorical
  prefix_rope: str = "zero"
  base: float = 1e4
  dropout: float = 0.0
  mask_id: int | None = None

  def setup(self):
    if self.mask_id is None:
      init = nn.initializers.normal(0.02)
      self.mask = self.param("mask", init, (self.width,))

  @property
  def vocab(self) -> int:
    """V."""
    return self.units.vocab

  @property
  def blocks(self) -> Plan:
    """The plan of blocks, a step each."""
    return makers.blocks(len(self.plan), self.block)

  @property
  def rows(self) -> int:
    """Positions that are ever stored: P + L."""
    return self.prefix.length + len(self.plan)

  def rotations(self) -> Array:
    """The rotations f32[P + L, K / 2, 2] of all positions."""
    return jnp.asarray(
      rope(
        self.plan,
        self.backbone.head_width(self.width),
        prefix=self.prefix.length,
        prefix_rope=self.prefix_rope,
        slots=self.prefix.slots,
        base=self.base,
      )
    )

  def read(self, units: Array, hide: Array | None = None) -> Array:
    """[B, T, D] of units i32[B, T], of which `hide` bool[B, T] are hidden."""
    x = self.units(units)
    if hide is None:
      return x
    if self.mask_id is not None:
      row = self.units(jnp.full((1, 1), self.mask_id))
    else:
      row = self.mask[None, None].astype(x.dtype)
    return jnp.where(hide[..., None], row, x)

  def noisy(
    self,
    cond: Cond,
    units: Array,
    hide: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """Hidden states f32[B, R, L, D] of noisy copies, each block of which sees
    itself and the clean blocks before it; one pass over P + (R + 1) L slots.

    Args:
      cond: what `prefix` takes.
      units: i32[B, L].
      hide: bool[B | 1, R, L], what is hidden in each copy.
      hidden: bool[B], examples whose condition is not shown; None for none.
      keys: Key[B] for dropout and stochastic depth, or None.
    """
    h = self.features(cond, units, hide, hidden, keys)
    count, copies = self.prefix.length, hide.shape[1]
    h = h[:, count : count + copies * len(self.plan)]
    return h.reshape(len(h), copies, len(self.plan), -1)

  def features(
    self,
    cond: Cond,
    units: Array,
    hide: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """Hidden states f32[B, P + (R + 1) L, D]: of the prefix, of the copies one
    behind the other, of the clean units; arguments as those of `noisy`."""
    b, (copies, length) = len(units), hide.shape[1:]
    hide = jnp.broadcast_to(hide, (b, copies, length)).reshape(b, -1)
    before = prefixes.rows(self.prefix, cond, hidden, b)
    tiled = self.read(jnp.tile(units, (1, copies)), hide)
    x = jnp.concatenate([before, tiled, self.read(units)], axis=1)
    x = dropout(x, keys, self.dropout, self.backbone.depth)
    count = self.prefix.length
    mask = makers.noisy_clean(
      self.blocks, count, each=self.prefix.causal, copies=copies
    )
    valid = self.prefix.valid(cond)
    if valid is not None:
      mask = hide_padding(jnp.asarray(mask.mask())[None, None], valid)
    at = np.tile(count + np.arange(length), copies + 1)
    pos = self.rotations()[np.concatenate([np.arange(count), at])]
    return self.backbone(x, mask, pos=pos, keys=keys)[0]

  def every(self, cond: Cond, units: Array) -> Array:
    """Touches all parameters, for `init`: logits f32[B, 1, L, V]."""
    hide = jnp.ones((1, 1, len(self.plan)), bool)
    return self.head.logits(self.noisy(cond, units, hide)[:, 0])[:, None]

  def ready(self, variables: Vars, rows: int) -> Vars:
    """The variables, made ready for a loop of steps of so many rows."""
    stack = self.backbone.ready(variables["params"]["backbone"], rows)
    return {**variables, TRANSPOSED: {"backbone": stack}}

  def begin(
    self,
    cond: Cond,
    units: Array,
    hidden: Array | None = None,
    spare: int = 0,
  ) -> tuple[Array, Cache]:
    """Reads the prefix, and whole blocks of clean units behind it, into a new
    cache.

    Args:
      cond: what `prefix` takes.
      units: i32[B, M], M a multiple of N, perhaps 0.
      hidden: as in `noisy`.
      spare: rows of the cache beyond P + L.

    Returns:
      Hidden states [B, P + M, D], and the cache, whose index is traced.
    """
    before = prefixes.rows(self.prefix, cond, hidden, len(units))
    x = jnp.concatenate([before, self.read(units)], axis=1)
    count, read = self.prefix.length, x.shape[1]
    cache = self.backbone.cache(len(x), self.rows + spare, self.width)
    if read:
      first = (1,) * count if self.prefix.causal else (count,) * (count > 0)
      sizes = first + (self.block,) * (units.shape[1] // self.block)
      mask, valid = jnp.asarray(plan(sizes).mask())[None, None], None
      valid = self.prefix.valid(cond)
      if valid is not None:
        mask = hide_padding(mask, valid)
      x, cache = self.backbone(
        x, mask, pos=self.rotations()[:read], cache=cache
      )
    index = jnp.asarray(cache.index, jnp.int32)
    cache = dataclasses.replace(cache, index=index)
    if jax.default_backend() == "cpu":
      cache = cache.unstacked()
    return x, cache

  def step(
    self,
    units: Array,
    hide: Array,
    place: Array,
    sees: Array,
    cache: Cache,
    valid: Array | None = None,
  ) -> tuple[Array, Any]:
    """One more call.

    Args:
      units: i32[B, T].
      hide: bool[B, T], which of them are hidden.
      place: i32[B, T], where they are.
      sees: bool[B, T, T], which of them see which; all see the cache.
      cache: of all before, its index i32[B].
      valid: bool[B, P], what `prefix.valid` says.

    Returns:
      Hidden states f32[B, T, D] at these places, and the cache with T more
      rows.
    """
    mask = cache.tree(sees)
    if valid is not None:
      mask = mask & padding_mask(mask, valid)
    at = self.prefix.length + place
    pos = jnp.take(self.rotations(), at, axis=0, mode="clip")
    return self.backbone(self.read(units, hide), mask, pos=pos, cache=cache)
