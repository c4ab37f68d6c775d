"""Short-time spectra of sounds.

Shapes: B batch, N samples, W samples of a window, T windows, F = W / 2 + 1
frequencies.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
_LEAST = 1e-8  # under the root, whose slope at 0 has no end


def hann(size: int) -> np.ndarray:
  """f32[W]: the periodic window of Hann."""
  angle = 2 * np.pi * np.arange(size) / size
  return (0.5 - 0.5 * np.cos(angle)).astype(np.float32)


def windows(x: Array, size: int, hop: int) -> Array:
  """f32[B, T, W]: the windows of sounds f32[B, N], each `hop` behind the one
  before; the first has its middle at sample 0, and all samples lie in one.

  Raises:
    ValueError: a window is not whole hops.
  """
  if size % hop:
    raise ValueError(f"a window of {size} is not whole hops of {hop}")
  count, parts = -(-x.shape[1] // hop), size // hop
  whole = (count + parts - 1) * hop
  before = size // 2
  behind = max(whole - before - x.shape[1], 0)
  x = jnp.pad(x, ((0, 0), (before, behind)))[:, :whole]
  # Not by their indices, whose gradient adds up sample by sample.
  rows = x.reshape(len(x), -1, hop)
  shifted = [rows[:, i : i + count] for i in range(parts)]
  return jnp.concatenate(shifted, axis=-1)


def magnitudes(x: Array, size: int, hop: int) -> Array:
  """f32[B, T, F]: the magnitudes of the spectra of `windows` of Hann, divided
  by W / 4, so that a full sine has one of 1."""
  rows = windows(x.astype(jnp.float32), size, hop)
  rows = rows * hann(size)[None, None]
  found = jnp.fft.rfft(rows, axis=-1) / (size / 4)
  power = jnp.square(found.real) + jnp.square(found.imag)
  return jnp.sqrt(power + _LEAST)
