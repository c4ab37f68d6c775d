"""Draws texts one unit after the other, with neighbours that are looked up in
the loop: once for every chunk, when it is complete.

Shapes: B batch, L units, M units of a prompt, m of a chunk, k neighbours, V
codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick, steps
from ar_jax.core.system import Vars
from ar_jax.families.token.retrieval.retro_net import RetroNet

Array = jax.Array


def draw(
  net: RetroNet,
  variables: Vars,
  given: Array,
  known: Array,
  keys: Array,
  *,
  search: Callable[[Array], tuple[Array, Array]] | None,
  neighbours: int,
  stop: int | None,
  law: Mapping[str, float],
) -> Array:
  """Units i32[B, L], 0 behind the end of a text; over when all have ended.

  Args:
    net: the transformer.
    variables: of it.
    given: i32[B, M], units of a prompt, M < L.
    known: i32[B], how many of them there are.
    keys: Key[B].
    search: chunks i32[B, m] -> their neighbours i32[B, k, 2 m] and which are
      there, bool[B, k]; None for none.
    neighbours: k.
    stop: the code that ends a text; None for none.
    law: arguments of `pick.law`.
  """
  batch, length, width, m = len(keys), net.length, net.width, net.stack.chunk
  prompt = jnp.pad(given, ((0, 0), (0, length - given.shape[1])))
  rows = neighbours * 2 * m
  bound = lambda: net.bind(variables)

  def look(history, s, chunk):
    ids = jax.lax.dynamic_slice_in_dim(history, jnp.maximum(s - m, 0), m, 1)
    found, there = search(ids)
    return bound().remember(found, chunk), jnp.repeat(there, 2 * m, 1)

  def step(carry, s, keys):
    history, caches, chunk, memory, seen = carry
    before = jnp.maximum(s - 1, 0)  # at s = 0 the start is read
    x, h, caches = bound().ask(history[:, before], s, caches)
    chunk = jax.lax.dynamic_update_slice_in_dim(chunk, h, before % m, 1)
    if search is not None:
      stay = lambda *_: (memory, seen)
      full = (s > 0) & (s % m == 0)
      memory, seen = jax.lax.cond(full, look, stay, history, s, chunk)
    logits, caches = bound().answer(x, h, memory, seen, caches)
    drawn = pick.draw(pick.law(logits, **law), keys)
    drawn = jnp.where(s < known, prompt[:, s], drawn)
    history = history.at[:, s].set(drawn)
    ends = (drawn == (-1 if stop is None else stop)) & (s >= known)
    return (history, caches, chunk, memory, seen), drawn, ends

  index = jnp.zeros((), jnp.int32)
  caches = net.stack.empty(batch, length, width)
  carry = (
    jnp.zeros((batch, length), jnp.int32),
    tuple(dataclasses.replace(c, index=index) for c in caches),
    jnp.zeros((batch, m, width), jnp.float32),
    net.stack.blank(batch, rows, width),
    jnp.zeros((batch, rows), bool),
  )
  return steps.until_steps(step, carry, length, keys).units
