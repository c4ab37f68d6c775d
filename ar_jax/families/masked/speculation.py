"""Speculation over masked models (MAR): a cheap one draws some steps, and one
forward of the target judges all that these have drawn.

A unit that is added changes what the target says of all others, so it judges
drafts by what was verified before them, each by itself; none is dropped for
another (the released code of arXiv 2411.11925). By an exact rule what is drawn
so has the law of the target that draws all units of a block at once.

Shapes: B batch, L units, C channels of a unit, w places of a step, W = n w
places of a block of n steps, N rows of laws.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import densities, place_keys
from ar_jax.core.decoding.densities import Density, Rule
from ar_jax.core.decoding.speculate_vectors import Stats

Array = jax.Array
# (canvas, known i32[], at i32[B, w], rows) -> states [B, w, R, D].
States = Callable[[Array, Array, Array, int], Array]


@dataclasses.dataclass(frozen=True)
class Model:
  """A model of units in any order.

  Attributes:
    states: of places, by the units that are known.
    law: (states [N, R, D], scale of guidance f32[N]) -> the law of N units.
  """

  states: States
  law: Callable[[Array, Array], Density]


def blocks(sizes: Sequence[int], first: int, every: int) -> list[list[int]]:
  """The numbers of the steps of each block.

  Args:
    sizes: units of each step.
    first: steps before the first block, of the target alone.
    every: a block ends with a step whose number is a multiple of it, and with
      the last step.
  """
  found, own = [], []
  for step in range(first, len(sizes)):
    own.append(step)
    if step % every == 0 or step == len(sizes) - 1:
      found.append(own)
      own = []
  return found


def generate(
  target: Model,
  drafter: Model,
  order: Array,
  channels: int,
  sizes: Sequence[int],
  scales: Sequence[float],
  keys: Array,
  *,
  rule: Rule,
  first: int,
  every: int,
  most: int = 64,
  shared: bool = True,
  waste: float = 0.5,
) -> tuple[Array, Stats]:
  """Draws the units of one image per key, f32[B, L, C].

  Args:
    target, drafter: of the same units.
    order: i32[B, L], which unit comes when.
    channels: C.
    sizes: units of each step.
    scales: of guidance, of each step; a block is judged with its last one.
    keys: Key[B], threefry.
    rule: what is compared.
    first: steps of the target alone, before the first draft.
    every: see `blocks`.
    most: see `densities.residual`.
    shared: whether the target looks with the noise of the drafts.
    waste: see `refine.stretches`.
  """
  batch, length = order.shape
  run = _Run(target, drafter, rule, keys, most, shared)
  ends = np.cumsum(sizes)
  before = (ends - sizes).astype(np.int32)
  canvas = jnp.zeros((batch, length, channels))
  zeros = jnp.zeros(batch, jnp.int32)
  stats = Stats(zeros, zeros, zeros, jnp.zeros(batch), zeros, zeros)
  alone = [[step] for step in range(first)]
  drafted = blocks(sizes, first, every)
  for steps, method in ((alone, run.alone), (drafted, run.block)):
    for some in _alike(steps, sizes, waste):
      width = max(sizes[step] for block in some for step in block)
      padded = jnp.pad(order, ((0, 0), (0, width)))
      rows = int(before[some[-1][-1]])

      def body(carry, row, method=method, given=(padded, width, rows)):
        return method(*carry, row, *given), None

      table = _table(some, before, sizes, scales)
      (canvas, stats), _ = jax.lax.scan(body, (canvas, stats), table)
  return canvas, stats


@dataclasses.dataclass(frozen=True)
class _Run:
  """What does not change from block to block."""

  target: Model
  drafter: Model
  rule: Rule
  keys: Array
  most: int
  shared: bool

  def alone(self, canvas, stats, row, order, width, rows):
    """A step of the target alone."""
    known, size, scale = (x[0] for x in row)
    at, live = _places(order, known, width, size)
    h = self.target.states(canvas, known, at, rows)
    law, bank = self._laws(self.target, h, scale), self._bank(at)
    unit = self.rule.fresh(law, self.rule.look(law, bank), bank)
    canvas = _put(canvas, at, live, unit.reshape(*at.shape, -1))
    return canvas, stats._replace(forwards=stats.forwards + 1)

  def block(self, canvas, stats, row, order, width, rows):
    """Steps of the drafter, and the verdict of the target on all of them."""
    begun = row[0][0]

    def step(canvas, row):
      known, size, scale = row
      at, live = _places(order, known, width, size)
      h = self.drafter.states(canvas, known, at, rows)
      law = self._laws(self.drafter, h, scale)
      sample, noted = self.rule.draw(law, self._bank(at))
      unit = self.rule.unit(law, sample).reshape(*at.shape, -1)
      drafted = _put(canvas, at, live, unit)
      by = jax.tree.map(
        lambda x: x.reshape(*at.shape, *x.shape[1:]), (sample, noted)
      )
      scale = jnp.broadcast_to(scale, at.shape)
      return drafted, (at, live, h, scale, unit, *by)

    _, found = jax.lax.scan(step, canvas, row)
    # [n, B, w, ...] -> [B, W, ...].
    at, live, h, scale, unit, sample, noted = jax.tree.map(_joined, found)
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    sample, noted = jax.tree.map(flat, (sample, noted))
    # By what was known before the block.
    seen_h = self.target.states(canvas, begun, at, rows)
    last = row[2][-1]
    q = self.drafter.law(flat(h), flat(scale))
    p = self._laws(self.target, seen_h, last)
    seen = self.rule.look(p, self._bank(at, self.shared))
    ratio = self.rule.log_ratio(q, p, sample, noted, seen)
    use = lambda use: flat(place_keys.keys_at(self.keys, at, use))
    stands = jnp.log(densities.uniform(use(place_keys.ACCEPT))) < ratio
    live, stands = flat(live), stands & flat(live)
    again = densities.residual(
      self.rule, q, p, noted, seen, live & ~stands,
      use(place_keys.RESAMPLE), self.most,
    )  # fmt: skip
    unit = jnp.where(stands[:, None], flat(unit), again.unit)
    canvas = _put(
      canvas, at, live.reshape(at.shape), unit.reshape(*at.shape, -1)
    )
    total = lambda x: jnp.sum(x.reshape(at.shape), 1)
    chance = jnp.where(live, jnp.exp(jnp.minimum(ratio, 0.0)), 0.0)
    new = (1, total(live), total(stands), total(chance),
           total(again.proposals), total(again.capped))  # fmt: skip
    return canvas, Stats(*(a + b for a, b in zip(stats, new, strict=True)))

  def _laws(self, model: Model, h: Array, scale: Array) -> Density:
    h = h.reshape(-1, *h.shape[2:])
    return model.law(h, jnp.broadcast_to(scale, len(h)))

  def _bank(self, at: Array, shared: bool = True) -> Array:
    use = None if shared else place_keys.FILL
    return place_keys.keys_at(self.keys, at, use).reshape(-1)


def _places(order, known, width, size) -> tuple[Array, Array]:
  """The places i32[B, w] of a step, and which are of it."""
  at = jax.lax.dynamic_slice_in_dim(order, known, width, axis=1)
  return at, jnp.broadcast_to((jnp.arange(width) < size)[None], at.shape)


def _put(canvas, at, live, unit) -> Array:
  rows = jnp.arange(len(canvas))[:, None]
  at = jnp.where(live, at, canvas.shape[1])
  return canvas.at[rows, at].set(unit, mode="drop")


def _joined(x: Array) -> Array:
  x = jnp.swapaxes(x, 0, 1)
  return x.reshape(x.shape[0], -1, *x.shape[3:])


def _alike(
  steps: list[list[int]], sizes: Sequence[int], waste: float
) -> list[list[list[int]]]:
  """Runs of blocks that share one program: of as many steps, of about as many
  units each."""
  runs: list[list[list[int]]] = []
  for block in steps:
    if runs:
      own = [sizes[s] for b in (*runs[-1], block) for s in b]
      same = len(runs[-1][0]) == len(block)
      if same and max(own) <= (1 + waste) * min(own):
        runs[-1].append(block)
        continue
    runs.append([block])
  return runs


def _table(
  some: list[list[int]],
  before: np.ndarray,
  sizes: Sequence[int],
  scales: Sequence[float],
) -> tuple[np.ndarray, ...]:
  """[blocks, steps]: units known, units of the step, scale of guidance."""
  at = np.array(some)
  sizes, scales = np.asarray(sizes, np.int32), np.asarray(scales, np.float32)
  return before[at], sizes[at], scales[at]
