"""Lists of scales as data: one compiled program serves them all.

A model without residuals may be trained on another list of maps at every step
(FlexVAR, arXiv 2502.20313). Here a list is an array of sides, zeros behind
them; the slots of its maps are padded to one length and described by integers,
and what depends on the sides, the rows of the matrices that resize one map to
the next, is looked up by them.

Glossary: K sides of a list, L slots, S sides that may be in a list.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.signals.resize import matrix

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Lists:
  """The law from which training draws its lists; hashable.

  The defaults are the published ones. A third of their lists ends below 16.

  Attributes:
    base: the list that is drawn with the probability `fixed`, and on which a
      model is evaluated.
    always: sides of every other list.
    some: (how many, of which sides), drawn without repetition.
    fixed: see `base`.
    thin: the probability that so many sides, one of them, two, ..., are left
      out again: any but the first two and the last.
    limit: L. While a list has more slots, one of its last four maps, the
      finest among them, is left out.
  """

  base: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
  always: tuple[int, ...] = (1, 2, 16)
  some: tuple[tuple[int, tuple[int, ...]], ...] = (
    (5, (3, 4, 5, 6, 7, 8, 9, 10)),
    (2, (11, 12, 13, 14, 15)),
  )
  fixed: float = 0.05
  thin: tuple[float, ...] = (0.1, 0.05, 0.02, 0.01)
  limit: int = 680

  def __post_init__(self):
    for number, sides in self.some:
      if number > len(sides):
        raise UserError(f"lists: cannot take {number} of the sides {sides}")
    if min(self.base[0], *self.always) != 1 or self.base[0] != 1:
      raise UserError("lists: every list must begin with the side 1")
    if sum(p * p for p in self.base) > self.limit:
      raise UserError(f"lists: base={self.base} has over {self.limit} slots")

  @property
  def others(self) -> tuple[int, ...]:
    """The sides that are not in `base`, ascending."""
    every = {*self.always, *(p for _, sides in self.some for p in sides)}
    return tuple(sorted(every - set(self.base)))

  @property
  def most(self) -> int:
    """K, the most sides of a list."""
    free = len(self.always) + sum(number for number, _ in self.some)
    return max(len(self.base), free)

  def draw(self, key: Array) -> Array:
    """One list, i32[K], ascending, zeros behind it."""
    sides = np.array(sorted({*self.base, *self.others}))
    count, removals = len(sides), len(self.thin) + self.most - 1
    # One call: random numbers are slow to compile.
    noise = jax.random.uniform(key, (2 + removals, count))
    score, chance = noise[0], noise[1]
    here = jnp.asarray(np.isin(sides, self.always))
    for number, of in self.some:
      among = np.isin(sides, of)
      above = (score[None] > score[:, None]) & among[None]
      here |= among & (jnp.sum(above, axis=1) < number)
    base = jnp.asarray(np.isin(sides, self.base))
    here = jnp.where(chance[0] < self.fixed, base, here)

    scores = iter(noise[2:])
    for share in self.thin:
      rank, last = jnp.cumsum(here) - 1, jnp.sum(here) - 1
      inner = here & (rank >= 2) & (rank < last)
      here &= ~(_one_of(inner, next(scores)) & (chance[1] < share))
    for score in scores:
      rank, left = jnp.cumsum(here) - 1, jnp.sum(here)
      late = here & (rank >= jnp.maximum(left - 4, 1))
      over = jnp.sum(jnp.where(here, sides**2, 0)) > self.limit
      here &= ~(_one_of(late, score) & over)
    place = jnp.cumsum(here) - 1
    at = here[None] & (place[None] == jnp.arange(self.most)[:, None])
    return jnp.sum(jnp.where(at, sides[None], 0), axis=1).astype(jnp.int32)


def _one_of(mask: Array, score: Array) -> Array:
  """bool[S]: the one that the mask bool[S] holds of the highest score f32[S],
  or none if it is empty."""
  score = jnp.where(mask, score, -1.0)
  return mask & (score == jnp.max(score))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Layout:
  """The slots of the maps of a list, padded to L of them; i32[L] each.

  Attributes:
    level: the number of a slot's map, from 0; -1 for a pad.
    row: of a slot on its map.
    col: the same.
    side: of its map.
    before: side of the map before; its own for the first.
    start: the first slot of its map.
  """

  level: Array
  row: Array
  col: Array
  side: Array
  before: Array
  start: Array

  def take(self, index: Array, level: Array) -> Layout:
    """The slots `index` i32[T] alone, with other levels i32[T]."""
    rows = jax.tree.map(lambda x: x[index], self)
    return dataclasses.replace(rows, level=level)


def layout(sides: Array, length: int) -> Layout:
  """The slots of the maps of sides i32[K], zeros behind them.

  Slots beyond `length` are dropped: the list must have no more.
  """
  sides = jnp.asarray(sides, jnp.int32)
  ends = jnp.cumsum(sides * sides)
  slot = jnp.arange(length)
  level = jnp.sum(slot[:, None] >= ends[None], axis=1)
  pad = slot >= ends[-1]
  level = jnp.where(pad, 0, level)
  side = sides[level]
  start = ends[level] - side * side
  at = jnp.where(pad, 0, slot - start)
  return Layout(
    level=jnp.where(pad, -1, level),
    row=at // side,
    col=at % side,
    side=side,
    before=sides[jnp.maximum(level - 1, 0)],
    start=start,
  )


@functools.cache
def _matrices(sizes: tuple[int, ...], targets: tuple[int, ...], method: str):
  """f32[m, t, T, M]: `matrix` from each size to each target, zeros around it,
  with T and M the largest; and where a number is among the sizes and among
  the targets, i32[...]."""
  table = np.zeros(
    (len(sizes), len(targets), max(targets), max(sizes)), np.float32
  )
  for i, size in enumerate(sizes):
    for j, to in enumerate(targets):
      table[i, j, :to, :size] = matrix(size, to, method)
  place = lambda numbers: np.array(
    [numbers.index(n) if n in numbers else 0 for n in range(max(numbers) + 1)]
  )
  return table, place(sizes), place(targets)


def _rows(
  sizes: Sequence[int],
  targets: Sequence[int],
  method: str,
  size: Array | int,
  to: Array,
  row: Array,
) -> Array:
  """f32[L, M]: row `row` of the matrix from `size` to `to`, i32[L] each."""
  table, of_size, of_target = map(
    jnp.asarray, _matrices(tuple(sizes), tuple(targets), method)
  )
  return table[of_size[size], of_target[to], row]


def grid_weights(
  at: Layout, sides: Sequence[int], grid: int
) -> tuple[Array, Array]:
  """As `positions.grid_weights`, f32[L, grid] both, of maps whose sides are
  among `sides`."""
  take = lambda row: _rows((grid,), sides, "area", grid, at.side, row)
  return take(at.row), take(at.col)


def previous_map(codes: Array, at: Layout, sides: Sequence[int]) -> Array:
  """The input of each slot, f32[B, L, C]: the map before its own,
  resized bicubically. The slots of the first map, and pads, get 0.

  Args:
    codes: f32[B, L, C] of all slots.
    at: where they are.
    sides: all that may occur.
  """
  take = lambda row: _rows(sides, sides, "bicubic", at.before, at.side, row)
  rows, cols = take(at.row), take(at.col)
  # A product of matrices: few enough slots, and no gather of vectors.
  before = (at.level[:, None] == at.level[None] + 1) & (at.level[None] >= 0)
  weight = rows[:, at.row] * cols[:, at.col] * before
  return jnp.einsum(
    "ij,bjc->bic", weight, codes, precision=jax.lax.Precision.HIGHEST
  )
