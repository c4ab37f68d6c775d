"""The one transformer: `nn.stacks.blocks`, scanned.

Shapes: B batch, T positions, D width, N layers, S rows of a memory, C features
of it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding.steps import fold
from ar_jax.core.errors import UserError
from ar_jax.core.plans.plan import Plan
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.cross_attention import Memory
from ar_jax.nn.layers.linear import TRANSPOSED, transposed
from ar_jax.nn.layers.lora import LORA
from ar_jax.nn.layers.norms import layer_norm
from ar_jax.nn.layers.placement import by_example
from ar_jax.nn.stacks.blocks import (
  Block,
  PlainBlock,
  drop_path,
  modulate,
  parts,
)

Array = jax.Array


# What the forward pass of a layer keeps for the backward pass, which computes
# the rest again: "none" recomputes nothing.
REMAT = {
  "none": None,
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_saveable,
  "weights": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def _policy(remat: bool | str) -> Any:
  name = {False: "none", True: "full"}.get(remat, remat)
  if name not in REMAT:
    raise UserError(f"remat={remat!r}: choose one of {', '.join(REMAT)}")
  return REMAT[name]


class Backbone(nn.Module):
  """A stack of equal blocks and a last norm; one parameter layout, [N, ...].

  Attributes:
    block: the layer; its parameters get a leading axis over layers.
    depth: N.
    ada: cond [B, D] -> modulations of the layers, [N, B, 6, D]: the gates of
      both branches of a block, their scales, their shifts; of blocks of three
      branches [N, B, 9, D]. None with blocks that take none. Of cond [B, E, D],
      one for each of E runs of positions, [N, B, E, 6, D].
    out_ada: the same of the last norm, [1, B, 2, D] or [1, B, E, 2, D].
    out_norm: the last norm itself where nothing modulates it.
    drop: rate of stochastic depth in the last layer.
    drop_from: the same in the first; linear between the two.
    remat: what the backward pass computes again: "none"; "full", all but the
      input of each layer; "dots", all but matrix products; "weights", all but
      products with weights, so the scores of attention too. True is "full".
    dtype: of the computation.
  """

  block: Block | PlainBlock
  depth: int
  ada: nn.Module | None = None
  out_ada: nn.Module | None = None
  out_norm: nn.Module | None = None
  drop: float = 0.0
  drop_from: float = 0.0
  remat: bool | str = False
  dtype: jnp.dtype = jnp.float32

  def condition(self, cond: Array) -> tuple[Array, Array]:
    """What the stack needs of cond [B, D]; once for all calls with it."""
    # Of runs of positions there are as many numbers as in the layers.
    runs = jnp.ndim(cond) > 2
    placed = (lambda x: by_example(x, 1)) if runs else lambda x: x
    out = placed(self.out_ada(cond)) if self.out_ada else None
    return placed(self.ada(cond)), out

  @property
  def needs_memory(self) -> bool:
    """Whether the layers look at a memory."""
    return getattr(self.block, "cross", None) is not None

  def remember(self, features: Array, seen: Array | None = None) -> Memory:
    """What the layers read of a memory; once for all calls with it.

    Args:
      features: [B, S, C].
      seen: bool[B, S], the rows that are no padding; None for all.

    Raises:
      UserError: the layers look at no memory.
    """
    if not self.needs_memory:
      raise UserError("this stack looks at no memory: build it with cross=True")
    features = by_example(features.astype(self.dtype))
    layer = lambda block, _, none: (None, block.cross.remember(features))
    stack = nn.scan(
      layer,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      length=self.depth,
    )
    return Memory(*stack(self.block, None, None)[1], seen)

  def __call__(
    self,
    x: Array,
    mask: Array | Plan | None = None,
    *,
    pos: Array | None = None,
    cond: tuple[Array, Array] | None = None,
    cache: Any = None,
    memory: Memory | None = None,
    keys: Array | None = None,
    after: tuple[int, Callable[[Array], Array]] | None = None,
  ) -> tuple[Array, Any]:
    """Hidden states of new positions.

    Args:
      x: [B, T, D].
      mask: as in `ops.attention`; with a cache, over the rows that are read,
        and None for all that are filled.
      pos: where the positions are; see `positions.rotate`.
      cond: what `condition` returns; None without `ada`.
      cache: of earlier positions, for example a `cache.Cache`.
      memory: what `remember` returns, unless the cache has it; None where the
        layers look at none.
      keys: Key[B] for stochastic depth and dropout; None turns both off.
      after: (n, change): what is made of the [B, T, D] behind layer n, from 0,
        before the next one.

    Returns:
      f32[B, T, D], and the cache with T more rows.

    Raises:
      UserError: a memory is missing, or given to layers that look at none.
    """
    # It need not go through the loop over layers.
    riding = getattr(cache, "memory", None)
    if riding is not None:
      memory = riding if memory is None else memory
      cache = dataclasses.replace(cache, memory=None)
    if self.needs_memory != (memory is not None):
      raise UserError(
        "this stack looks at a memory: pass what `remember` returns"
        if self.needs_memory
        else "this stack looks at no memory: build it with cross=True"
      )
    mod, out_mod = cond or (None, None)
    if keys is not None and self.drop:
      branches = getattr(self.block, "branches", 2)
      branches = branches if mod is None else mod.shape[2] // 3
      stays = drop_path(
        keys, self.drop, self.depth, first=self.drop_from, branches=branches
      )[..., None]
      if mod is None:
        mod = stays
      else:
        gates, rest = jnp.split(mod, [branches], axis=2)
        mod = jnp.concatenate([gates * stays.astype(mod.dtype), rest], axis=2)
    if cache is not None and mask is None:
      mask = cache.mask(x.shape[1])

    def layer(block, carry, inputs):
      x, cache = carry
      index, mod, kv = inputs
      own = None if keys is None else fold(keys, index)
      # Blocks of other kinds need not know of memories.
      seen = {} if kv is None else {"memory": Memory(*kv, memory.seen)}
      x, cache = block(
        x, mod, mask, pos=pos, cache=cache, layer=index, keys=own, **seen
      )
      if after is not None:
        x = jnp.where(index == after[0], after[1](x), x)
      return (by_example(x), cache), None

    x = by_example(x.astype(self.dtype))
    kv = None if memory is None else (memory.k, memory.v)
    if cache is not None and cache.is_unstacked:
      h, cache = self._one_by_one(layer, x, cache, (mod, kv))
    else:
      if policy := _policy(self.remat):
        layer = nn.remat(layer, prevent_cse=False, policy=policy)
      stack = nn.scan(
        layer,
        variable_axes={"params": 0, LORA: 0},
        split_rngs={"params": True},
      )
      layers = jnp.arange(self.depth)
      (h, cache), _ = stack(self.block, (x, cache), (layers, mod, kv))
    if self.out_norm is not None:
      h = self.out_norm(h).astype(jnp.float32)
    else:
      scale, shift = parts(out_mod[0].astype(jnp.float32), x.shape[1])
      h = modulate(layer_norm(h, self.block.eps), scale, shift)
    if cache is None:
      return h, None
    cache = cache.advance(x.shape[1])
    if riding is not None:
      cache = dataclasses.replace(cache, memory=riding)
    return h, cache

  def _one_by_one(
    self, layer: Any, x: Array, cache: Cache, every: Any
  ) -> tuple[Array, Cache]:
    """The stack without a loop, its layers as `ready` has made them for the
    calls of a loop around it; `every` has a leading axis over layers, too."""
    block = self.block.clone(parent=None, _deep_clone=True, _reset_names=True)
    params = self.block.variables["params"]
    lora = self.block.variables.get(LORA)
    for i in range(self.depth):
      if self.has_variable(TRANSPOSED, "layers"):
        own = self.get_variable(TRANSPOSED, "layers")[i]
      else:
        own = {"params": jax.tree.map(lambda p, i=i: p[i], params)}
      if lora is not None:
        own = {**own, LORA: jax.tree.map(lambda p, i=i: p[i], lora)}
      bound = functools.partial(block.apply, own)
      inputs = jax.tree.map(lambda y, i=i: y[i], every)
      (x, cache), _ = layer(bound, (x, cache), (i, *inputs))
    return x, cache

  def cache(
    self, batch: int, length: int, width: int, memory: Memory | None = None
  ) -> Any:
    """What the layers know before the first of `length` positions of D =
    `width`: for an Attention an empty cache of so many rows, and what
    `remember` returns, where they look at a memory."""
    empty = self.block.empty(self.depth, batch, length, width, self.dtype)
    if memory is None:
      return empty
    return dataclasses.replace(empty, memory=memory)

  def head_width(self, width: int) -> int:
    """Features of a head of attention, in layers of D = `width`."""
    return self.block.mixer.head_width(width)

  def ready(self, params: Any, rows: int) -> Any:
    """What the collection `linear.TRANSPOSED` holds for a loop of steps of so
    many rows over this stack of these parameters."""
    return transposed(params["block"], rows)
