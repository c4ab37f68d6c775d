"""A generator of one unit a step as a value: how it begins and goes on.

`run` puts it into the caller's program; `stream` drives it from the host and
shows what is there so far.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding.steps import fill_steps, fold, scan_steps

Array = jax.Array
Carry = Any


class Program(Protocol):
  """A generator of one unit a step; hashable, a static argument of jit.

  Attributes:
    length: L, units of an example.
  """

  length: int

  def begin(
    self, variables: Any, cond: Any, keys: Array, **given: Array
  ) -> tuple:
    """(carry, [B, ...]): reads the condition, and whatever else this program
    takes, and draws the first unit, of any shape and type."""

  def step(self, variables: Any, carry: Carry, s: Array, keys: Array) -> tuple:
    """(carry, [B, ...]): reads the unit before and draws unit s."""


def run(
  program: Program, variables: Any, cond: Any, keys: Array, **given: Array
) -> Array:
  """Units [B, L, ...] of a whole program, inside the caller's jit; `given` is
  passed on to its `begin`."""
  carry, first = program.begin(variables, cond, fold(keys, 0), **given)
  step = functools.partial(program.step, variables)
  _, rest = scan_steps(step, carry, program.length - 1, keys, start=1)
  return jnp.concatenate([first[:, None], rest], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _begin(program, variables, cond, keys, given):
  carry, first = program.begin(variables, cond, fold(keys, 0), **given)
  shape = (len(first), program.length, *first.shape[1:])
  return carry, jnp.zeros(shape, first.dtype).at[:, 0].set(first)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(2, 3))
def _advance(program, variables, carry, units, start, stop, keys):
  step = functools.partial(program.step, variables)
  return fill_steps(step, carry, units, start, stop, keys)


def stream(
  program: Program,
  variables: Any,
  cond: Any,
  keys: Array,
  *,
  every: int,
  **given: Array,
) -> Iterator[tuple[np.ndarray, int]]:
  """The same units as `run`, shown while they are drawn.

  Two compiled programs for any number of calls: one reads the condition, one
  goes on by `every` steps and updates its state, the cache, in place.

  `given` is passed on to `begin`.

  Yields:
    Units [B, L, ...] and how many of them are drawn; the last time all.
  """
  carry, units = _begin(program, variables, cond, keys, given)
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
