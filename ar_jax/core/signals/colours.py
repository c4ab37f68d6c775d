"""The colours of one image given to another: what restoring must not change.

As StableSR (arXiv 2305.07015) and NSARM (arXiv 2510.00820) use both, the first
and then the second.

Shapes: B batch, H W sides, c channels.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

_EPS = 1e-5  # added to variances


def with_moments(x: Array, like: Array) -> Array:
  """x [B, H, W, c] with the mean and the deviation of each channel of `like`
  [B, h, w, c] (adaptive instance normalisation, arXiv 1703.06868)."""

  def moments(y):
    count = y.shape[1] * y.shape[2]
    mean = jnp.mean(y, (1, 2), keepdims=True)
    squares = jnp.sum(jnp.square(y - mean), (1, 2), keepdims=True)
    return mean, jnp.sqrt(squares / max(count - 1, 1) + _EPS)

  (mean, deviation), (wanted, spread) = moments(x), moments(like)
  return (x - mean) / deviation * spread + wanted


@functools.cache
def blur(size: int, levels: int) -> np.ndarray:
  """f32[size, size], along one axis: the taps 1/4, 1/2, 1/4 for each level, 1,
  2, 4, ... apart; borders are repeated."""
  found, at = np.eye(size), np.arange(size)
  for level in range(levels):
    step = np.eye(size) / 2
    for side in (-(2**level), 2**level):
      np.add.at(step, (at, np.clip(at + side, 0, size - 1)), 0.25)
    found = step @ found
  return found.astype(np.float32)


def with_low_bands(x: Array, like: Array, levels: int = 5) -> Array:
  """x [B, H, W, c] with the coarse part of `like`, of the same shape, in place
  of its own (the wavelet transfer of StableSR).

  Args:
    x: gives the details.
    like: gives the colours.
    levels: of blur, 1, 2, 4, ... pixels apart; what all leave is the coarse
      part.
  """
  rows, columns = (blur(side, levels) for side in x.shape[1:3])
  apart = like - x
  coarse = jnp.einsum(
    "ij,bjkc,lk->bilc", rows, apart, columns, precision="highest"
  )
  return x + coarse


def transferred(x: Array, like: Array, kind: str = "both") -> Array:
  """x [B, H, W, c] in [0, 1] with the colours of `like`, of the same shape.

  Args:
    x: what was made.
    like: what it was made of, enlarged.
    kind: "moments", "bands", "both", the first and then the second, or "none".

  Raises:
    ValueError: there is no such kind.
  """
  if kind not in KINDS:
    raise ValueError(f"kind={kind!r}: must be one of {', '.join(KINDS)}")
  if kind in ("moments", "both"):
    x = with_moments(x, like)
  if kind in ("bands", "both"):
    x = with_low_bands(x, like)
  return jnp.clip(x, 0, 1)


KINDS = ("both", "moments", "bands", "none")
