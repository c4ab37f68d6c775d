"""Images as square patches of pixels, and back.

Shapes: B batch, H W image sides, c image channels, p side of a patch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def cut(x: Array, patch: int) -> Array:
  """Patches f32[B, H / p, W / p, p p c] of images f32[B, H, W, c]."""
  b, height, width, c = x.shape
  h, w, p = height // patch, width // patch, patch
  x = jnp.swapaxes(x.reshape(b, h, p, w, p, c), 2, 3)
  return x.reshape(b, h, w, p * p * c)


def join(patches: Array, patch: int) -> Array:
  """Images f32[B, H, W, c] of patches f32[B, H / p, W / p, p p c]."""
  (b, h, w, _), p = patches.shape, patch
  x = jnp.swapaxes(patches.reshape(b, h, w, p, p, -1), 2, 3)
  return x.reshape(b, h * p, w * p, -1)
