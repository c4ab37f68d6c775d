"""Trees of drafts: whose rows are above whose.

Shapes: B examples, K drafts, S = K + 1 rows, row 0 being the unit before all
drafts and row j + 1 draft j.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def ancestry(parents: Array) -> tuple[Array, Array]:
  """Who descends from whom in a tree.

  Args:
    parents: i32[B, K], see `speculate.Draft`.

  Returns:
    bool[B, S, S], whether row j is row i or above it; and the depth of each
    row, i32[B, S], 0 for the root.
  """
  batch, k = parents.shape
  rows = jnp.arange(batch)
  own = jnp.eye(k + 1, dtype=bool)
  lines = jnp.broadcast_to(own, (batch, k + 1, k + 1))

  def add(j, lines):
    line = lines[rows, parents[:, j]] | own[j + 1][None]
    return lines.at[:, j + 1].set(line)

  lines = jax.lax.fori_loop(0, k, add, lines)
  return lines, jnp.sum(lines, -1, dtype=jnp.int32) - 1


def path(verdict: Any, parents: Array | None, size: int) -> Array:
  """i32[B, size]: the rows from the root to the one that drew the token."""
  batch = len(verdict.row)
  if parents is None:
    return jnp.broadcast_to(jnp.arange(size), (batch, size))

  def up(i, state):
    row, rows = state
    place = verdict.accepted - i
    place = jnp.where(place < 0, size, place)
    rows = rows.at[jnp.arange(batch), place].set(row, mode="drop")
    above = at(parents, jnp.maximum(row - 1, 0))
    return jnp.where(row > 0, above, 0), rows

  rows = jnp.zeros((batch, size), jnp.int32)
  return jax.lax.fori_loop(0, size, up, (verdict.row, rows))[1]


def at(x: Array, place: Array) -> Array:
  """[B]: x [B, N] at place i32[B] of each row."""
  return jnp.take_along_axis(x, place[:, None], axis=1)[:, 0]
