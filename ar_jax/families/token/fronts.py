"""The transformer of next-neighbour prediction: one head for every axis.

Shapes: B batch, rows of the net (B, or 2 B pairs where guided), P positions of
the prefix, L units, F fronts, W units of the widest front, A axes, T new
positions, D width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import steps
from ar_jax.core.plans.plan import Plan, plan
from ar_jax.core.system import Vars
from ar_jax.families.token import prefix as prefixes
from ar_jax.families.token.masks import hide_padding, padding_mask
from ar_jax.families.token.prefix import Cond, Prefix
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.linear import TRANSPOSED
from ar_jax.nn.layers.norms import RMSNorm
from ar_jax.nn.layers.positions import rope_grid
from ar_jax.nn.stacks.blocks import dropout
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array
AXES = ("col", "row", "frame")


@functools.cache
def parents(grid: Plan) -> tuple[np.ndarray, np.ndarray]:
  """Where the law of every unit comes from.

  The unit at cell u has one parent on every axis a with u_a > 0, the cell
  before it on that axis, which lies in the front before. Its logits are the
  mean of what the heads of these axes say there (NAR, arXiv 2503.10696). In
  regions the only axis is the place within the region.

  Args:
    grid: a plan of fronts, with the columns of AXES that it has; or one of
      regions.

  Returns:
    i32[A, L], the slot of each parent, -1 where there is none, and its weight
    f32[A, L]. The first front takes the mean of all heads at the prefix.
  """
  axes = [axis for axis in AXES if axis in grid.names]
  names = axes
  if "region" in grid.names:
    axes, names = ["place"], ["place", "region"]
  cell = np.stack([grid[name] for name in names])
  extent = cell.max(1) + 1
  number = lambda cell: np.ravel_multi_index(tuple(cell), extent)
  slot = np.argsort(number(cell))  # the slot of every cell
  found = np.full((len(axes), len(grid)), -1, np.int32)
  for a in range(len(axes)):
    inside = cell[a] > 0
    before = cell[:, inside].copy()
    before[a] -= 1
    found[a, inside] = slot[number(before)]
  weight = (found >= 0).astype(np.float32)
  weight[:, grid.span(0)] = 1
  return found, weight / weight.sum(0)


class NextNeighbour(nn.Module):
  """The transformer over prefix and fronts.

  The stack `stacks[0]` is the trunk; each further one continues the one
  before it and is read by the next axis.

  Attributes:
    plan: of fronts.
    vocab: V.
    width: D.
    prefix: of a condition, see `prefix`.
    stacks: A backbones without a norm of their own.
    heads: A laws of a unit, in the order of AXES.
    prefix_rope: see `positions.rope_grid`; None for learned positions.
    stddev: initial standard deviation of the embedding of units.
    dropout: of the embeddings, in training.
  """

  plan: Plan
  vocab: int
  width: int
  prefix: Prefix
  stacks: Sequence[Backbone]
  heads: Sequence[Categorical]
  prefix_rope: str | None = "zero"
  stddev: float = 0.02
  dropout: float = 0.0

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    self.units = nn.Embed(self.vocab, self.width, embedding_init=init)
    self.norms = [RMSNorm() for _ in self.stacks]
    if self.prefix_rope is None:
      shape = (self.prefix.length + len(self.plan), self.width)
      self.places = self.param("places", init, shape)

  def rotations(self) -> Array | None:
    """The rotations f32[P + L, K / 2, 2] of all positions."""
    if self.prefix_rope is None:
      return None
    features = self.stacks[0].head_width(self.width)
    return jnp.asarray(
      rope_grid(
        self.plan,
        features,
        prefix=self.prefix.length,
        prefix_rope=self.prefix_rope,
      )
    )

  def logits(
    self,
    cond: Cond,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """Logits f32[B, L, V] of all units, given the fronts before them.

    Args:
      cond: what `prefix` takes.
      units: i32[B, L], in the order of the plan.
      hidden: bool[B], examples whose condition is not shown; None for none.
      keys: Key[B] for dropout, or None.
    """
    count = self.prefix.length
    before = prefixes.rows(self.prefix, cond, hidden, len(units))
    x = jnp.concatenate([before, self.units(units)], 1)
    x = dropout(self._placed(x, 0), keys, self.dropout, 2**20)
    # The positions of the prefix, then a front is a step.
    before = (1,) * count if self.prefix.causal else (count,)
    mask = plan(before + self.plan.sizes)
    valid = self.prefix.valid(cond)
    if valid is not None:
      mask = hide_padding(jnp.asarray(mask.mask())[None, None], valid)
    hs, _ = self._run(x, mask, self.rotations(), None, keys)
    slots, weights = parents(self.plan)
    # The prefix's last position stands before the slots, for the first unit.
    hs = [h[:, count - 1 :] for h in hs]
    return self.mixed(hs, np.maximum(slots + 1, 0), weights)

  def mixed(self, hs: Sequence[Array], at: Array, weights: Array) -> Array:
    """Logits f32[B, T, V]: the mean over axes, taken before the softmax.

    Args:
      hs: A hidden states [B, N, D].
      at: i32[A, T], where in N each axis is read.
      weights: f32[A, T].
    """
    total = 0.0
    for head, h, place, weight in zip(self.heads, hs, at, weights, strict=True):
      logits = head.logits(jnp.take(h, place, axis=1))
      total = total + jnp.asarray(weight)[None, :, None] * logits
    return total

  def ready(self, variables: Vars, rows: int) -> Vars:
    """The variables, made ready for a loop of steps of so many rows."""
    every = variables["params"]
    stacks = {
      f"stacks_{i}": stack.ready(every[f"stacks_{i}"], rows)
      for i, stack in enumerate(self.stacks)
    }
    return {**variables, TRANSPOSED: stacks}

  def begin(
    self, cond: Cond, batch: int, hidden: Array | None = None
  ) -> tuple[list[Array], tuple[Cache, ...]]:
    """Reads the prefix of so many examples: A hidden states [B, 1, D] of its
    last position, and a cache for each stack with room for all units."""
    x = self._placed(prefixes.rows(self.prefix, cond, hidden, batch), 0)
    count = x.shape[1]
    # The widest front may be written behind the last unit.
    rows = count + len(self.plan) + max(self.plan.sizes)
    caches = [s.cache(len(x), rows, self.width) for s in self.stacks]
    mask, valid = caches[0].causal(count), self.prefix.valid(cond)
    if not self.prefix.causal:
      mask = jnp.ones_like(mask)
    if valid is not None:
      mask = hide_padding(mask, valid)
    pos = self.rotations()
    pos = None if pos is None else pos[:count]
    hs, caches = self._run(x, mask, pos, caches, None)
    caches = [dataclasses.replace(c, index=jnp.int32(count)) for c in caches]
    if jax.default_backend() == "cpu":
      caches = [c.unstacked() for c in caches]
    return [h[:, -1:] for h in hs], tuple(caches)

  def step(
    self,
    units: Array,
    start: Array,
    size: Array,
    caches: tuple[Cache, ...],
    valid: Array | None = None,
  ) -> tuple[list[Array], tuple[Cache, ...]]:
    """Reads a front, in W lanes of which the first `size` are real.

    The other lanes write behind the front, where the next one overwrites
    them, and nothing sees them.

    Args:
      units: i32[B, W].
      start: i32[], the first slot of the front.
      size: i32[], its units.
      caches: of all fronts before.
      valid: bool[B, P], the positions of the prefix that are no padding.

    Returns:
      A hidden states [B, W, D], and the caches.
    """
    count, width = self.prefix.length, units.shape[1]
    row = count + start
    caches = tuple(dataclasses.replace(c, index=row) for c in caches)
    mask = caches[0].mask(size)
    if valid is not None:
      mask = mask & padding_mask(mask, valid)
    at = jnp.minimum(row + jnp.arange(width), count + len(self.plan) - 1)
    pos = self.rotations()
    pos = None if pos is None else jnp.take(pos, at, axis=0)
    return self._run(
      self._placed(self.units(units), at), mask, pos, caches, None
    )

  def _placed(self, x: Array, at: Array | int) -> Array:
    if self.prefix_rope is not None:
      return x
    if isinstance(at, int):
      at = at + np.arange(x.shape[1])
    return x + jnp.take(self.places, at, axis=0)[None]

  def _run(self, x, mask, pos, caches, keys):
    hs, new = [], []
    for i, (stack, norm) in enumerate(
      zip(self.stacks, self.norms, strict=True)
    ):
      own = keys if keys is None or i == 0 else steps.fold(keys, 2**20 + i)
      cache = None if caches is None else caches[i]
      x, cache = stack(x, mask, pos=pos, cache=cache, keys=own)
      hs.append(norm(x))
      new.append(cache)
    return hs, tuple(new)
