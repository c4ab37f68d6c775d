"""Sounds while they are drawn, a few latents at a time; see `spoken`.

Two compiled programs for any number of calls: one reads the condition, one goes
on. The state of the decoder is carried, so the pieces are the sound.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import steps
from ar_jax.core.system import Batch, Vars
from ar_jax.families.token.spoken import UntilStopped

Array = jax.Array


def pieces(
  system: Any,
  program: UntilStopped,
  variables: Vars,
  cond: Batch,
  keys: Array,
  every: int,
) -> Iterator[Array]:
  """f32[B, every r] until all examples have ended, zeros behind the end of
  each.

  Args:
    system: as `systems.clear`.
    program: how it draws.
    variables, cond, keys: as for its `sample`.
    every: latents of a piece.
  """
  state = _begin(system, program, variables, cond)
  for s in range(0, len(system.plan), every):
    at = np.int32(s)
    audio, state = _go_on(system, program, every, variables, state, at, keys)
    yield audio
    if np.all(state[2]):
      return


@functools.partial(jax.jit, static_argnums=(0, 1))
def _begin(system, program, variables, cond):
  carry = system.opened(program, variables, cond)
  b = len(cond["text"])
  return carry, system.codec(variables).begin(b), jnp.zeros(b, bool)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _go_on(system, program, every, variables, state, start, keys):
  carry, before, done = state
  own = system.net_variables(variables)

  def step(state, s):
    carry, done = state
    carry, unit, ends = program.next(own, carry, s, steps.fold(keys, s))
    return (carry, done | ends), (unit, ~done)

  at = start + jnp.arange(every)
  (carry, done), (units, real) = jax.lax.scan(step, (carry, done), at)
  units = jnp.where(real[..., None], units, 0.0)
  units = system.as_coded(variables, jnp.moveaxis(units, 0, 1))
  audio, before = system.codec(variables).go_on(units, before)
  there = jnp.repeat(real.T, system.tokenizer.stride, axis=1)
  return jnp.where(there, audio, 0.0), (carry, before, done)
