"""The colours of one image given to another: what restoring must not change.

As StableSR (arXiv 2305.07015) and NSARM (arXiv 2510.00820) use both, the first
and then the second.

Shapes: B batch, H W sides, c channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

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


def blurred(x: Array, distance: int) -> Array:
  """x [B, H, W, c] by the taps 1/4, 1/2, 1/4 in both directions, so many pixels
  apart; borders are repeated."""
  for axis in (1, 2):
    at = jnp.arange(x.shape[axis])
    near = lambda step, x=x, axis=axis, at=at: jnp.take(
      x, jnp.clip(at + step, 0, x.shape[axis] - 1), axis=axis
    )
    x = (near(-distance) + near(distance)) / 4 + x / 2
  return x


def with_low_bands(x: Array, like: Array, levels: int = 5) -> Array:
  """x [B, H, W, c] with the coarse part of `like`, of the same shape, in place
  of its own (the wavelet transfer of StableSR).

  Args:
    x: gives the details.
    like: gives the colours.
    levels: of blur, 1, 2, 4, ... pixels apart; what all leave is the coarse
      part.
  """
  coarse = lambda y: _coarse(y, levels)
  return x - coarse(x) + coarse(like)


def _coarse(x: Array, levels: int) -> Array:
  for level in range(levels):
    x = blurred(x, 2**level)
  return x


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
