"""Guidance by pairs of rows: every example with its condition and without.

The two lie side by side, [B, 2], so that sharding keeps a pair on one device.

Shapes: B examples.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def double(x: Array, guided: bool = True) -> Array:
  """[2 B, ...]: every row of x [B, ...] twice; x itself unless `guided`."""
  return jnp.repeat(x, 2, axis=0) if guided else x


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
