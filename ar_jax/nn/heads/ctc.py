"""Connectionist temporal classification (Graves 2006): a symbol or a blank at
each place of a line, whose repeats and blanks are then dropped.

Shapes: B batch, T places, N symbols of a target, V symbols with the blank.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

Array = jax.Array


def loss(
  logits: Array,
  there: Array,
  target: Array,
  real: Array,
  *,
  blank: int = 0,
) -> Array:
  """-log p f32[B] of each target, over all ways to place it in T; about 1e5
  where there is none.

  Args:
    logits: [B, T, V].
    there: bool[B, T], the places that are no padding; these are at the end.
    target: i32[B, N], without blanks.
    real: bool[B, N], the symbols of it that are no padding.
    blank: its id.
  """
  pad = lambda x: 1.0 - x.astype(jnp.float32)
  logits = logits.astype(jnp.float32)
  return optax.ctc_loss(logits, pad(there), target, pad(real), blank_id=blank)


def collapse(
  ids: Array, there: Array | None = None, *, blank: int = 0
) -> tuple[Array, Array]:
  """(ids i32[B, T] moved to the front, `blank` behind them, and how many they
  are, i32[B]) of what is said at each place i32[B, T]: repeats are one, then
  blanks go. Places that are not `there` bool[B, T] say nothing."""
  before = jnp.pad(ids[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
  kept = (ids != blank) & (ids != before)
  if there is not None:
    kept &= there
  # What goes is written beyond the end, and dropped.
  at = jnp.where(kept, jnp.cumsum(kept, 1) - 1, ids.shape[1])
  rows = jnp.arange(len(ids))[:, None]
  front = jnp.full_like(ids, blank).at[rows, at].set(ids, mode="drop")
  return front, jnp.sum(kept, 1).astype(jnp.int32)


def greedy(
  logits: Array, there: Array | None = None, *, blank: int = 0
) -> tuple[Array, Array]:
  """`collapse` of the likeliest symbol at each place of logits [B, T, V]."""
  ids = jnp.argmax(logits, -1).astype(jnp.int32)
  return collapse(ids, there, blank=blank)
