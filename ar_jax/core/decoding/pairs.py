"""Guidance by pairs of rows: every example with its condition and without.

The two lie side by side, [B, 2], so that sharding keeps a pair on one device.

Shapes: B examples.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick

Array = jax.Array


def double(x: Any, guided: bool = True) -> Any:
  """[2 B, ...]: every row of x [B, ...] twice; x itself unless `guided`. x may
  be a tree of arrays, such as the fields of a condition."""
  twice = lambda leaf: jnp.repeat(leaf, 2, axis=0)
  return jax.tree.map(twice, x) if guided else x


def without(batch: int) -> Array:
  """bool[2 B]: which rows are those without the condition."""
  return jnp.arange(2 * batch) % 2 == 1


def join(given: Array, null: Array) -> Array:
  """[2 B, ...] of the rows with and those without, [B, ...] each."""
  return jnp.stack([given, null], axis=1).reshape(-1, *given.shape[1:])


def split(x: Array) -> tuple[Array, Array]:
  """The rows with the condition and those without, [B, ...] each, of x
  [2 B, ...]."""
  x = x.reshape(-1, 2, *x.shape[1:])
  return x[:, 0], x[:, 1]


def guided(h: Array, scale: Array | float | None) -> Array:
  """Hidden states f32[B, ...] of pairs h [2 B, ...], guided by `scale`; h
  itself where it is None. Of a linear head: guiding its input guides the
  logits."""
  if scale is None:
    return h
  return pick.guide(*split(h.astype(jnp.float32)), scale)
