"""The decoder-only transformer of LlamaGen and its kin: a prefix that carries
the condition, then one unit after the other.

Shapes: B batch, P positions of the prefix, L units, T new positions, D width,
V codes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.plans.makers import blocks
from ar_jax.core.plans.plan import Plan, plan
from ar_jax.core.system import Vars
from ar_jax.families.token import prefix as prefixes
from ar_jax.families.token.masks import groups, hide_padding, padding_mask
from ar_jax.families.token.prefix import Cond
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.linear import TRANSPOSED
from ar_jax.nn.layers.positions import rope
from ar_jax.nn.stacks.blocks import dropout
from ar_jax.nn.stacks.segments import Segments
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class NextToken(nn.Module):
  """The transformer over prefix and units.

  Position P - 1 predicts the first unit; the last unit is never read.

  Attributes:
    plan: one unit a step, on a grid or on a line.
    units: their reader, see `readers`.
    width: D.
    prefix: of a condition, see `prefix`. It may have the reader as well.
    backbone: the stack.
    head: the law of a unit, any of `nn.heads` that takes units one by one.
    prefix_rope: see `positions.rope`.
    dropout: of the embeddings, in training.
    memory: what the layers look at as well, of a condition: called (cond,
      hidden) as the prefix is, it returns features [B, S, C] and which are no
      padding, bool[B, S] or None. Like a prefix it has `fields` and `example`.
  """

  plan: Plan
  units: nn.Module
  width: int
  prefix: nn.Module
  backbone: Backbone | Segments
  head: nn.Module
  prefix_rope: str = "zero"
  dropout: float = 0.0
  memory: nn.Module | None = None

  @property
  def vocab(self) -> int | None:
    """V; None where units are no codes."""
    return self.units.vocab

  @property
  def rows(self) -> int:
    """Positions that are ever computed: P + L - 1."""
    return self.prefix.length + len(self.plan) - 1

  @property
  def ground(self) -> Plan:
    """Where the units lie that rotations count, one after the other."""
    return self.plan

  def example(self) -> Cond:
    """A condition of the right shape, of one example."""
    more = {} if self.memory is None else self.memory.example()
    return {**self.prefix.example(), **more}

  def beside(self, cond: Cond, hidden: Array | None = None) -> Array | None:
    """[B, L, D]: what is added, where it enters the stack, to the position
    that predicts each unit, so that who drafts can read it, too; None where
    nothing is. Arguments as in `features`."""
    del cond, hidden
    return None

  def rotations(self) -> Array:
    """The rotations f32[P + L - 1, K / 2, 2] of all positions."""
    features = self.backbone.head_width(self.width)
    table = rope(
      self.ground,
      features,
      prefix=self.prefix.length,
      prefix_rope=self.prefix_rope,
      slots=self.prefix.slots,
    )
    return jnp.asarray(table[: self.rows])

  def turns(self, at: Array) -> Array | None:
    """The rotations of positions i32[...]; None where there are none."""
    return jnp.take(self.rotations(), at, axis=0, mode="clip")

  def __call__(
    self,
    cond: Cond,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """Hidden states f32[B, L, D] before each unit, for training.

    Arguments are those of `features`.
    """
    h = self.features(cond, units, hidden, keys)
    return h[:, self.prefix.length - 1 :]

  def logits(self, *inputs: Array | None) -> Array:
    """Logits f32[B, L, V] of each unit; arguments as those of `features`."""
    return self.head.logits(self(*inputs))

  def features(
    self,
    cond: Cond,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
    mask: Array | None = None,
  ) -> Array:
    """Hidden states f32[B, P + L - 1, D] of all positions.

    Args:
      cond: what `prefix` takes: its fields.
      units: [B, L, ...].
      hidden: bool[B], examples whose condition is not visible; None for none.
      keys: Key[B] for dropout and stochastic depth, or None.
      mask: bool[P + L - 1, P + L - 1], which positions see which, in place of
        those of the plan.
    """
    x, last = self._embed(cond, units[:, :-1], hidden)
    x = dropout(x, keys, self.dropout, self.backbone.depth)
    # A plan where it can be one: its hidden pairs are not computed.
    valid = self.prefix.valid(cond)
    if mask is not None:
      mask = mask[None, None]
    else:
      mask = self._visible(self.rows)
      mask = mask if valid is None else jnp.asarray(mask.mask())[None, None]
    if valid is not None:
      mask = hide_padding(mask, valid)
    memory = self._remember(cond, hidden)
    pos = self.rotations()
    return self._stack(x, mask, last, pos=pos, memory=memory, keys=keys)[0]

  def grouped(
    self,
    cond: Cond,
    units: Array,
    drafts: Array,
    anchors: Array,
    hidden: Array | None = None,
  ) -> tuple[Array, Array]:
    """The states before units, and those of drafts behind some of them, which
    nothing else sees; see `plan.drafting`.

    Args:
      cond, hidden: as in `features`.
      units: [B, L, ...].
      drafts: [k, D], what is read in their place.
      anchors: i32[B, A], units: draft j = 1 .. k of anchor i lies j places
        behind the position that says unit i, and is to say unit i + j.

    Returns:
      f32[B, L, D], and f32[B, A, k, D].
    """
    x, last = self._embed(cond, units[:, :-1], hidden)
    b, count, before = len(x), x.shape[1], self.prefix.length - 1
    own = jnp.tile(drafts[None].astype(x.dtype), (b, anchors.shape[1], 1))
    x = jnp.concatenate([x, own], axis=1)
    ordinary = jnp.arange(count)
    if not self.prefix.causal:
      ordinary = jnp.maximum(ordinary, before)
    mask, place = groups(ordinary, before + anchors, len(drafts))
    mask, valid = mask[:, None], self.prefix.valid(cond)
    if valid is not None:
      mask = hide_padding(mask, valid)
    place = place.at[:, :count].set(jnp.arange(count))
    pos = jnp.take(self.rotations(), place, axis=0, mode="clip")
    memory = self._remember(cond, hidden)
    h, _ = self._stack(x, mask, last, pos=pos, memory=memory)
    drafted = h[:, count:].reshape(b, anchors.shape[1], len(drafts), -1)
    return h[:, before:count], drafted

  def ready(self, variables: Vars, rows: int) -> Vars:
    """The variables, made ready for a loop of steps of so many rows."""
    stack = self.backbone.ready(variables["params"]["backbone"], rows)
    return {**variables, TRANSPOSED: {"backbone": stack}}

  def begin(
    self, cond: Cond, units: Array, hidden: Array | None = None
  ) -> tuple[Array, Cache]:
    """Reads the prefix, and units behind it, into a new cache.

    Arguments are those of `read`.

    Returns:
      Hidden states [B, M + 1, D], before each of these units and the next;
      and the cache.
    """
    h, cache = self.read(cond, units, hidden)
    return h[:, self.prefix.length - 1 :], cache

  def read(
    self,
    cond: Cond,
    units: Array,
    hidden: Array | None = None,
    spare: int = 0,
  ) -> tuple[Array, Cache]:
    """As `begin`, with the hidden states of the prefix.

    Args:
      cond: what `prefix` takes.
      units: [B, M, ...], known ones, M < L; `units.blank(B, 0)` for none.
      hidden: as in `features`.
      spare: rows of the cache beyond those of an example.

    Returns:
      Hidden states [B, P + M, D], and the cache, whose index is traced.
    """
    x, last = self._embed(cond, units, hidden)
    memory = self._remember(cond, hidden)
    rows = self.rows + spare
    cache = self.backbone.cache(len(x), rows, self.width, memory)
    mask, valid = cache.causal(x.shape[1]), self.prefix.valid(cond)
    if not self.prefix.causal:
      mask = jnp.asarray(self._visible(x.shape[1]).mask())[None, None]
    if valid is not None:
      mask = hide_padding(mask, valid)
    pos = self.rotations()
    pos = pos if pos is None else pos[: x.shape[1]]
    h, cache = self._stack(x, mask, last, pos=pos, cache=cache)
    cache = dataclasses.replace(cache, index=jnp.int32(cache.index))
    if jax.default_backend() == "cpu":
      cache = cache.unstacked()
    return h, cache

  def step(
    self,
    units: Array,
    cache: Cache,
    valid: Array | None = None,
    tree: tuple[Array, Array] | None = None,
  ) -> tuple[Array, Cache]:
    """One more call.

    Args:
      units: [B, T, ...]; each sees the cache and those before it.
      cache: of all before.
      valid: bool[B, P], what `prefix.valid` says.
      tree: which new unit sees which, bool[B, T, T], and how many places each
        lies behind the first, i32[B, T]; None for a line.

    Returns:
      Hidden states [B, T, D] after these units, and the cache with T more
      rows.
    """
    return self.look(self.units(units), cache, valid, tree)

  def look(
    self,
    x: Array,
    cache: Cache,
    valid: Array | None = None,
    tree: tuple[Array, Array] | None = None,
  ) -> tuple[Array, Cache]:
    """As `step`, of what is read already, [B, T, D]."""
    new = x.shape[1]
    mask = cache.causal(new) if tree is None else cache.tree(tree[0])
    if valid is not None:
      mask = mask & padding_mask(mask, valid)
    # Clipped only for examples that are finished.
    pos = self.turns(self.places(cache, new, tree))
    return self._stack(x, mask, None, pos=pos, cache=cache)

  def places(
    self, cache: Cache, new: int, tree: tuple[Array, Array] | None = None
  ) -> Array:
    """i32[1 | B, T]: the positions of the new units of a `step`."""
    after = jnp.arange(new) if tree is None else tree[1]
    at = jnp.reshape(cache.index, (-1, 1))
    return at + (after[None] if after.ndim == 1 else after)

  def _remember(self, cond: Cond, hidden: Array | None) -> Any:
    if self.memory is None:
      return None
    return self.backbone.remember(*self.memory(cond, hidden))

  def _stack(
    self, x: Array, mask: Array | Plan, last: Array | None, **options: Any
  ) -> tuple[Array, Cache | None]:
    """What `backbone` returns. `last` is the embedding of the last position of
    the prefix, [B, D], for stacks that it modulates; None where a cache has
    read it."""
    del last
    return self.backbone(x, mask, **options)

  def _embed(
    self, cond: Cond, units: Array, hidden: Array | None
  ) -> tuple[Array, Array]:
    """The embeddings of prefix and units, [B, P + T, D], and of the last
    position of the prefix."""
    before = prefixes.rows(self.prefix, cond, hidden, len(units))
    x = jnp.concatenate([before, self.units(units)], axis=1)
    return x, before[:, -1]

  def _visible(self, rows: int) -> Plan:
    """Which of the first positions see which."""
    if self.prefix.causal:
      return blocks(rows, 1)
    count = self.prefix.length
    return plan((count,) + (1,) * (rows - count))
