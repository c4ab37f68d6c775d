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

from ar_jax.core.plan import Plan

Array = jax.Array
Carry = Any
Step = Callable[[Carry, Any, Array], tuple[Carry, Array]]


def fold(keys: Array, step: Array | int) -> Array:
  """Key[B]: the keys of one step."""
  return jax.vmap(jax.random.fold_in, (0, None))(keys, step)


def scan_steps(
  step: Step, carry: Carry, n: int, keys: Array
) -> tuple[Carry, Array]:
  """Runs n steps of equal shapes in one loop, traced once.

  Args:
    step: draws units [B, ...] at the traced step number s, i32[].
    carry: the state, of constant shapes.
    n: number of steps.
    keys: Key[B], one per example.

  Returns:
    The last carry, and the units of all steps, [B, n, ...].
  """
  body = lambda carry, s: step(carry, s, fold(keys, s))
  carry, units = jax.lax.scan(body, carry, jnp.arange(n))
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
