"""A transformer that says the next block of units at once, each position the
unit at its own place in the next block (NBP, arXiv 2502.07737).

Nothing is before the first block. So it is drawn unit by unit ("hybrid"), and
with its last unit and N - 1 rows of their own, one for each other place, the
blocks begin:

  reads  text  bov  v_1 ... v_{N-1}  | v_N m_1 ... m_{N-1} | v_{N+1} ... v_2N |
  says   -     v_1  v_2 ... v_N      | v_{N+1} ...  v_2N   | v_{2N+1} ...     |

or it is given, and blocks are read from the first one on. Codes, the ids of a
condition and what is special share one vocabulary: ids 0 bov, 1 ... N - 1 the
rows m, then W ids of a text, then V codes.

Shapes: B batch, P positions of the prefix, L units, N units of a block, M known
units, T positions, D width, V codes.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.plans import clips, makers
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Vars
from ar_jax.families.token import prefix as prefixes
from ar_jax.families.token.masks import hide_padding, padding_mask
from ar_jax.families.token.prefix import Cond
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.linear import TRANSPOSED
from ar_jax.nn.stacks.blocks import dropout
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class NextBlock(nn.Module):
  """The transformer, whose positions are learned.

  Attributes:
    plan: of the units; see `plans.clips.cells`.
    block: N.
    hybrid: see above; else the first block is given.
    first: the id of the first code.
    units: the table of all ids.
    width: D.
    prefix: of a condition.
    backbone: the stack.
    head: the law of an id.
    positions: rows of the table of positions; if None, as many as are read.
    dropout: of the embeddings, in training.
  """

  plan: Plan
  block: int
  hybrid: bool
  first: int
  units: nn.Module
  width: int
  prefix: nn.Module
  backbone: Backbone
  head: Categorical
  positions: int | None = None
  dropout: float = 0.0

  def setup(self):
    shape = (self.positions or self.rows, self.width)
    self.places = self.param("places", nn.initializers.zeros, shape)

  @property
  def vocab(self) -> int:
    """V."""
    return self.units.vocab - self.first

  @property
  def rows(self) -> int:
    """Positions that are ever read."""
    return self.prefix.length + len(self.plan) - (not self.hybrid) * self.block

  @property
  def said(self) -> int:
    """Units that are said: L, or without a first block L - N."""
    return len(self.plan) - (not self.hybrid) * self.block

  @property
  def mask(self) -> Plan:
    """Which positions see which."""
    if self.hybrid:
      return clips.hybrid(self.prefix.length, len(self.plan), self.block)
    return makers.blocks(self.rows, self.block)

  def read(self, ids: Array) -> Array:
    """What is read behind the prefix, i32[B, ...], of the ids i32[B, M] of the
    units: without any the start alone, of whole blocks all but what they do not
    begin with."""
    if not self.hybrid:
      return ids
    start = jnp.zeros((len(ids), 1), ids.dtype)
    if not ids.shape[1]:
      return start
    n = self.block
    return jnp.concatenate(
      [start, ids[:, :n], self.middle(len(ids)), ids[:, n:]], axis=1
    )

  def middle(self, batch: int) -> Array:
    """i32[B, N - 1]: the ids m."""
    return jnp.tile(jnp.arange(1, self.block)[None], (batch, 1))

  def __call__(
    self,
    cond: Cond,
    ids: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """Hidden states f32[B, L, D] before each unit; without a first block
    f32[B, L - N, D], of the others.

    Args:
      cond: what `prefix` takes.
      ids: i32[B, L], of the units.
      hidden: bool[B], examples whose condition is not shown; None for none.
      keys: Key[B] for dropout, or None.
    """
    ids = self.read(ids)[:, : self.rows - self.prefix.length]
    h, _ = self._run(cond, ids, hidden, keys)
    return h[:, self.prefix.length :]

  def logits(self, *inputs: Array | None) -> Array:
    """f32[B, L, W + V + ...] of ids; arguments as those of the call."""
    return self.head.logits(self(*inputs))

  def ready(self, variables: Vars, rows: int) -> Vars:
    """The variables, made ready for a loop of steps of so many rows."""
    stack = self.backbone.ready(variables["params"]["backbone"], rows)
    return {**variables, TRANSPOSED: {"backbone": stack}}

  def begin(
    self, cond: Cond, ids: Array, hidden: Array | None = None
  ) -> tuple[Array, Cache]:
    """Reads the prefix and known blocks behind it, i32[B, M], into a new cache;
    M may be 0 where the first block is drawn.

    Returns:
      Hidden states of what comes next, [B, N, D], or [B, 1, D] of the first
      unit; and the cache, whose index is traced.
    """
    cache = self.backbone.cache(len(ids), self.rows, self.width)
    h, cache = self._run(cond, self.read(ids), hidden, None, cache)
    cache = dataclasses.replace(cache, index=jnp.int32(cache.index))
    if jax.default_backend() == "cpu":
      cache = cache.unstacked()
    return h[:, -self.block if ids.shape[1] else -1 :], cache

  def step(
    self, ids: Array, cache: Cache, valid: Array | None = None
  ) -> tuple[Array, Cache]:
    """Hidden states [B, T, D] of one more call, and the cache with T more rows.

    Args:
      ids: i32[B, T], which see each other and the cache.
      cache: of all before.
      valid: bool[B, P], what `prefix.valid` says.
    """
    count = ids.shape[1]
    mask = cache.mask(count)
    if valid is not None:
      mask = mask & padding_mask(mask, valid)
    at = cache.index + jnp.arange(count)
    x = self.units(ids)
    x = x + jnp.take(self.places, at, axis=0, mode="clip")[None].astype(x.dtype)
    return self.backbone(x, mask, cache=cache)

  def _run(
    self,
    cond: Cond,
    ids: Array,
    hidden: Array | None,
    keys: Array | None,
    cache: Cache | None = None,
  ) -> tuple[Array, Cache | None]:
    """The states of all positions of the prefix and of ids i32[B, T]."""
    before = prefixes.rows(self.prefix, cond, hidden, len(ids))
    x = jnp.concatenate([before, self.units(ids)], axis=1)
    count = x.shape[1]
    x = x + self.places[None, :count].astype(x.dtype)
    x = dropout(x, keys, self.dropout, self.backbone.depth)
    mask, valid = self.mask, self.prefix.valid(cond)
    if count < len(mask) or valid is not None:
      rows = mask.mask(slice(0, count))[:, :count]
      mask = jnp.asarray(rows)[None, None]
    if valid is not None:
      mask = hide_padding(mask, valid)
    return self.backbone(x, mask, keys=keys, cache=cache)
