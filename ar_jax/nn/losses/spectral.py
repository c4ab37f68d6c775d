"""How far two sounds are apart, by their short-time spectra.

Shapes: B batch, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ar_jax.core.signals import stft

Array = jax.Array
_LEAST = 1e-3  # added to magnitudes before a logarithm; a full sine has 1


def multi_scale(x: Array, y: Array, sizes: Sequence[int]) -> Array:
  """f32[B]: of each size of window, with a hop of a quarter, the distance of
  the magnitudes over the norm of those of x, and the mean distance of their
  logarithms; the mean over the sizes (Parallel WaveGAN, arXiv 1910.11480,
  section 3.2).

  Args:
    x: f32[B, N], what is true.
    y: f32[B, N].
    sizes: of the windows.
  """
  total = 0.0
  for size in sizes:
    true, own = (stft.magnitudes(v, size, size // 4) for v in (x, y))
    norm = lambda v: jnp.sqrt(jnp.square(v).sum((1, 2)) + 1e-8)
    total += norm(true - own) / norm(true)
    logs = jnp.log(true + _LEAST) - jnp.log(own + _LEAST)
    total += jnp.abs(logs).mean((1, 2))
  return total / len(sizes)
