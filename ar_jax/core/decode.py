"""How the steps of a plan are run.

A *step* is a function `(carry, s, keys) -> (carry, units)`: it reads what is
known from the carry, draws the units of step s with one key per example, and
returns the new carry. Each example's key is folded with s, so what it draws
depends on the example and the step, never on the batch around it.

A *program* is a whole generator of this kind as a value: how it begins and
how it goes on. `run` puts it into the caller's program; `stream` drives it
from the host and shows what is there so far.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.plan import Plan

Array = jax.Array
Carry = Any
Step = Callable[[Carry, Any, Array], tuple[Carry, Array]]


def fold(keys: Array, step: Array | int) -> Array:
  """Key[B]: the keys of one step, i32[] or one for each example, i32[B]."""
  axes = (0, 0 if jnp.ndim(step) else None)
  return jax.vmap(jax.random.fold_in, axes)(keys, step)


def scan_steps(
  step: Step, carry: Carry, n: int, keys: Array, *, start: int = 0
) -> tuple[Carry, Array]:
  """Runs n steps of equal shapes in one loop, traced once.

  Args:
    step: draws units [B, ...] at the traced step number s, i32[].
    carry: the state, of constant shapes.
    n: number of steps.
    keys: Key[B], one per example.
    start: number of the first step.

  Returns:
    The last carry, and the units of all steps, [B, n, ...].
  """
  body = lambda carry, s: step(carry, s, fold(keys, s))
  carry, units = jax.lax.scan(body, carry, jnp.arange(start, start + n))
  return carry, jnp.moveaxis(units, 0, 1)


def unroll_steps(
  step: Step, carry: Carry, plan: Plan, keys: Array
) -> tuple[Carry, Array]:
  """Runs the steps of a plan one after the other, each with its own shapes.

  Args:
    step: draws units [B, plan.sizes[s], ...] at the static step number s.
    carry: the state; its shapes may change from step to step.
    plan: gives the number of steps.
    keys: Key[B], one per example.

  Returns:
    The last carry, and the units of all steps, [B, L, ...].
  """
  units = []
  for s in range(plan.steps):
    carry, new = step(carry, s, fold(keys, s))
    units.append(new)
  return carry, jnp.concatenate(units, axis=1)


def fill_steps(
  step: Step,
  carry: Carry,
  units: Array,
  start: Array | int,
  stop: Array | int,
  keys: Array,
  offset: Array | None = None,
) -> tuple[Carry, Array]:
  """Runs steps whose number is known only at run time, in one loop.

  Args:
    step: draws one unit per example, i32[B], for the place it is given; with
      an offset, places are i32[B], one for each example.
    carry: the state, of constant shapes.
    units: i32[B, L], filled in place.
    start: the first place.
    stop: the place after the last.
    keys: Key[B], one per example.
    offset: i32[B], added to the places of each example (ragged batches); what
      lies beyond L is dropped.

  Returns:
    The last carry, and the units.
  """
  rows = jnp.arange(len(units))

  def body(s, state):
    carry, units = state
    place = s if offset is None else s + offset
    carry, new = step(carry, place, fold(keys, place))
    return carry, units.at[rows, place].set(new, mode="drop")

  return jax.lax.fori_loop(start, stop, body, (carry, units))


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


class Program(Protocol):
  """A generator of one unit a step; hashable, a static argument of jit.

  Attributes:
    length: L, units of an example.
  """

  length: int

  def begin(self, variables: Any, cond: Any, keys: Array) -> tuple:
    """(carry, i32[B]): reads the condition and draws the first unit."""

  def step(self, variables: Any, carry: Carry, s: Array, keys: Array) -> tuple:
    """(carry, i32[B]): reads the unit before and draws unit s."""


def run(program: Program, variables: Any, cond: Any, keys: Array) -> Array:
  """Units i32[B, L] of a whole program, inside the caller's jit."""
  carry, first = program.begin(variables, cond, fold(keys, 0))
  step = functools.partial(program.step, variables)
  _, rest = scan_steps(step, carry, program.length - 1, keys, start=1)
  return jnp.concatenate([first[:, None], rest], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _begin(program, variables, cond, keys):
  carry, first = program.begin(variables, cond, fold(keys, 0))
  units = jnp.zeros((len(first), program.length), jnp.int32)
  return carry, units.at[:, 0].set(first)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(2, 3))
def _advance(program, variables, carry, units, start, stop, keys):
  step = functools.partial(program.step, variables)
  return fill_steps(step, carry, units, start, stop, keys)


def stream(
  program: Program, variables: Any, cond: Any, keys: Array, *, every: int
) -> Iterator[tuple[np.ndarray, int]]:
  """The same units as `run`, shown while they are drawn.

  Two compiled programs for any number of calls: one reads the condition, one
  goes on by `every` steps and updates its state, the cache, in place.

  Yields:
    Units i32[B, L] and how many of them are drawn; the last time all.
  """
  carry, units = _begin(program, variables, cond, keys)
  done = 1
  while True:
    if done == program.length or done % every == 0:
      yield np.array(units), done
    if done == program.length:
      return
    stop = min(program.length, done - done % every + every)
    carry, units = _advance(
      program, variables, carry, units, np.int32(done), np.int32(stop), keys
    )
    done = stop
