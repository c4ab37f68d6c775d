"""How the steps of a plan are run.

A *step* is a function `(carry, s, keys) -> (carry, units)`: it reads what is
known from the carry, draws the units of step s with one key per example, and
returns the new carry. Each example's key is folded with s, so what it draws
depends on the example and the step, never on the batch around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ar_jax.core.plans.plan import Plan

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
  step: Step, carry: Carry, plan: Plan, keys: Array, *, start: int = 0
) -> tuple[Carry, Array]:
  """Runs the steps of a plan one after the other, each with its own shapes.

  Args:
    step: draws units [B, plan.sizes[s], ...] at the static step number s.
    carry: the state; its shapes may change from step to step.
    plan: gives the number of steps.
    keys: Key[B], one per example.
    start: number of the first step.

  Returns:
    The last carry, and the units of these steps, [B, L, ...].
  """
  units = []
  for s in range(start, plan.steps):
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
  *,
  ends: Callable[[Array], Array] | None = None,
  done: Array | None = None,
) -> tuple[Carry, Array]:
  """Runs steps whose number is known only at run time, in one loop.

  Args:
    step: draws one unit per example, [B, ...], for the place it is given;
      with an offset, places are i32[B], one for each example.
    carry: the state, of constant shapes.
    units: [B, L, ...], filled in place.
    start: the first place.
    stop: the place after the last.
    keys: Key[B], one per example.
    offset: i32[B], added to the places of each example (ragged batches); what
      lies beyond L is dropped.
    ends: units [B, ...] -> bool[B], which examples end with them. Nothing is
      written behind where an example ends, and the loop is over when all have.
    done: bool[B], examples that have ended before; None for none.

  Returns:
    The last carry, and the units.
  """
  rows = jnp.arange(len(units))

  def draw(s, carry, units, done):
    place = s if offset is None else s + offset
    carry, new = step(carry, place, fold(keys, place))
    # Of those that have ended, what is drawn is put beyond L and dropped.
    at = place if done is None else jnp.where(done, units.shape[1], place)
    return carry, new, units.at[rows, at].set(new, mode="drop")

  if ends is None:
    body = lambda s, state: draw(s, *state, None)[::2]
    return jax.lax.fori_loop(start, stop, body, (carry, units))

  def until(state):
    s, carry, units, done = state
    carry, new, units = draw(s, carry, units, done)
    return s + 1, carry, units, done | ends(new)

  done = jnp.zeros(len(units), bool) if done is None else done
  on = lambda state: (state[0] < stop) & ~jnp.all(state[3])
  state = jnp.int32(start), carry, units, done
  return jax.lax.while_loop(on, until, state)[1:3]


class Until(NamedTuple):
  """What `until_steps` returns.

  Attributes:
    carry: the last one. Its rows of examples that are done have gone on with
      the others, so they mean nothing.
    units: [B, n, ...], zeros behind the last unit of each example.
    count: i32[B], the units that each example has drawn, its last included.
    done: bool[B], which examples have ended.
  """

  carry: Carry
  units: Array
  count: Array
  done: Array


def until_steps(
  step: Callable[[Carry, Array, Array], tuple[Carry, Array, Array]],
  carry: Carry,
  n: int,
  keys: Array,
  *,
  start: int = 0,
  done: Array | None = None,
) -> Until:
  """Runs steps until every example has ended, at most n, in one loop.

  Each example gets the units that `scan_steps` would draw for it, up to where
  it ends: they do not depend on how long the others go on.

  Args:
    step: as for `scan_steps`, and it also returns bool[B], the examples that
      end with this unit.
    carry: the state, of constant shapes.
    n: the most steps.
    keys: Key[B], one per example.
    start: number of the first step.
    done: bool[B], examples that have ended before; None for none.
  """
  if done is None:
    done = jnp.zeros(len(keys), bool)
  one = jax.eval_shape(lambda c: step(c, start, fold(keys, start))[1], carry)
  units = jnp.zeros((n, *one.shape), one.dtype)

  def on(state):
    s, _, _, _, done = state
    return (s < start + n) & ~jnp.all(done)

  def body(state):
    s, carry, units, count, done = state
    carry, new, ends = step(carry, s, fold(keys, s))
    kept = done.reshape(-1, *(1,) * (new.ndim - 1))
    units = units.at[s - start].set(jnp.where(kept, 0, new))
    return s + 1, carry, units, count + ~done, done | ends

  count = jnp.zeros(len(keys), jnp.int32)
  state = jnp.int32(start), carry, units, count, done
  _, carry, units, count, done = jax.lax.while_loop(on, body, state)
  return Until(carry, jnp.moveaxis(units, 0, 1), count, done)
