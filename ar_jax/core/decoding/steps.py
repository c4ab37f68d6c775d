"""How the steps of a plan are run.

A *step* is a function `(carry, s, keys) -> (carry, units)`: it reads what is
known from the carry, draws the units of step s with one key per example, and
returns the new carry. Each example's key is folded with s, so what it draws
depends on the example and the step, never on the batch around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
