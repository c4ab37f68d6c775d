"""Gaussian blur of images.

Shapes: B batch, H W sides, c channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def blurred(x: Array, size: int, sigma: float) -> Array:
  """Images f32[B, H, W, c] by a Gaussian of size x size pixels, with zeros
  around them; as they are where size is 0."""
  if not size:
    return x
  bell = np.exp(-0.5 * ((np.arange(size) - (size - 1) // 2) / sigma) ** 2)
  bell /= bell.sum()

  def rows(n):  # [n, n]: y_i = sum_j bell[j - i + size // 2] x_j
    at = np.arange(n)[None] - np.arange(n)[:, None] + size // 2
    inside = (at >= 0) & (at < size)
    return np.where(inside, bell[np.clip(at, 0, size - 1)], 0).astype(
      np.float32
    )

  return jnp.einsum(
    "iy,jx,byxc->bijc", rows(x.shape[1]), rows(x.shape[2]), x,
    precision=jax.lax.Precision.HIGHEST,
  )  # fmt: skip
