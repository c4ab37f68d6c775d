"""Masked refinement: orders of each example's own, a set of units a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding.steps import fold

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Stretch:
  """Steps of `refine` that share one compiled program.

  Attributes:
    start: number of the first of these steps.
    sizes: units of each.
    before: units known at the first.
  """

  start: int
  sizes: tuple[int, ...]
  before: int

  @property
  def width(self) -> int:
    """Units that each step draws; those beyond its size are dropped."""
    return max(self.sizes)

  @property
  def rows(self) -> int:
    """Units known at the last of these steps: enough for all of them."""
    return self.before + sum(self.sizes[:-1])


def stretches(sizes: Sequence[int], waste: float = 0.5) -> list[Stretch]:
  """Cuts the steps of `refine` where their sizes change.

  Args:
    sizes: units of each step.
    waste: a stretch ends before its largest step is so much larger than its
      smallest: 0 is one program for each size, more is fewer programs and
      more units drawn in vain.
  """
  result, known, start = [], 0, 0
  for step in range(1, len(sizes) + 1):
    run = sizes[start : step + 1]
    if step == len(sizes) or max(run) > (1 + waste) * min(run):
      result.append(Stretch(start, tuple(sizes[start:step]), known))
      known += sum(sizes[start:step])
      start = step
  return result


def refine(
  predict: Callable[..., Array],
  canvas: Array,
  order: Array,
  sizes: Sequence[int],
  keys: Array,
  *,
  waste: float = 0.5,
) -> Array:
  """Fills a canvas a few places at a time, in any order (masked models).

  Args:
    predict: (canvas, known i32[], at i32[B, w], step i32[], keys, rows=) ->
      units [B, w, ...] for the places `at`, by the canvas at the first
      `known` places of the order, at most `rows`, which is static.
    canvas: [B, L, ...]; what it holds is never looked at before it is drawn,
      but for what `predict` makes of it.
    order: i32[B, L], a permutation for each example.
    sizes: places that each step fills; they sum to L.
    keys: Key[B], one per example.
    waste: see `stretches`.

  Returns:
    The canvas, all of it filled.
  """
  b, length = order.shape
  rows = jnp.arange(b)[:, None]
  for run in stretches(sizes, waste):
    w = run.width
    padded = jnp.pad(order, ((0, 0), (0, w)))

    def step(canvas, row, w=w, run=run, padded=padded):
      s, known, size = row
      at = jax.lax.dynamic_slice_in_dim(padded, known, w, axis=1)
      units = predict(canvas, known, at, s, fold(keys, s), rows=run.rows)
      at = jnp.where((jnp.arange(w) < size)[None], at, length)
      return canvas.at[rows, at].set(units, mode="drop"), None

    n = np.array(run.sizes, np.int32)
    table = (
      run.start + np.arange(len(n), dtype=np.int32),
      run.before + np.cumsum(n, dtype=np.int32) - n,
      n,
    )
    canvas, _ = jax.lax.scan(step, canvas, table)
  return canvas
