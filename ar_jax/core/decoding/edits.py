"""Edits between two lines of ids, inside a compiled program.

Shapes: B batch, N and M ids at most.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def distance(a: Array, count_a: Array, b: Array, count_b: Array) -> Array:
  """i32[B]: the least number of ids to insert, drop or replace to make the
  first `count_b` of b i32[B, M] of the first `count_a` of a i32[B, N]
  (Levenshtein 1966)."""
  m = b.shape[1]
  start = jnp.broadcast_to(jnp.arange(m + 1)[None], (len(a), m + 1))

  def row(above, inputs):
    i, symbol = inputs
    replaced = above[:, :-1] + (b != symbol[:, None])
    least = jnp.minimum(above[:, 1:] + 1, replaced)
    first = jnp.full((len(a), 1), i + 1)
    # What is inserted costs one a place: a running minimum of the rest.
    rest = jnp.concatenate([first, least], 1) - jnp.arange(m + 1)[None]
    now = jax.lax.cummin(rest, axis=1) + jnp.arange(m + 1)[None]
    now = jnp.where((i < count_a)[:, None], now, above)
    return now, None

  steps = jnp.arange(a.shape[1]), jnp.swapaxes(a, 0, 1)
  last, _ = jax.lax.scan(row, start, steps)
  return jnp.take_along_axis(last, count_b[:, None], 1)[:, 0]
