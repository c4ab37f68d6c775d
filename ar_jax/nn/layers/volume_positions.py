"""Rotations by places in time, rows and columns (MM-RoPE of Lumos-1, arXiv
2507.08801).

K features of a head.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError, check_choice

Array = jax.Array
AXES = ("interleaved", "blocks", "line")


def channel_axes(features: int, kind: str = "interleaved") -> np.ndarray:
  """i64[K / 2]: the axis by which each pair of features turns, 0 time, 1 row, 2
  column, in shares of 2 : 3 : 3.

  Args:
    features: K, a multiple of 32.
    kind: "interleaved", so that every axis has the whole range of frequencies
      (MM-RoPE, arXiv 2507.08801); "blocks", one axis after the other; "line",
      all by one axis, 0.

  Raises:
    UserError: no such kind, or K is not a multiple of 32.
  """
  check_choice("rope", kind, AXES)
  if features % 32:
    raise UserError(
      f"heads of {features} features: time, rows and columns need a multiple "
      "of 32"
    )
  half = features // 2
  if kind == "line":
    return np.zeros(half, int)
  if kind == "blocks":
    return np.repeat([0, 1, 2], [half // 4, half * 3 // 8, half * 3 // 8])
  of = np.array([0, 0, 0, 0, 1, 1, 2, 2, 1, 1, 2, 2, 1, 1, 2, 2])
  return of[np.arange(half) % 16]


def turns(
  places: Array, features: int, kind: str = "interleaved", base: float = 1e4
) -> Array:
  """Rotations f32[..., K / 2, 2] of places f32[..., 3] in time, row and column;
  pair j turns by one of them, see `channel_axes`, with base^(-2 j / K). Where
  all three are equal it is that of a line."""
  axes = channel_axes(features, kind)
  frequency = base ** (-2 * np.arange(features // 2) / features)
  frequency = frequency.astype(np.float32)
  frequency = frequency.reshape((1,) * (places.ndim - 1) + (-1,))
  angle = places[..., axes] * frequency
  return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
