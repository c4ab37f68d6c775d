"""Resizing as fixed matrices, equal to `torch.nn.functional.interpolate`.

Published tokenizers were trained with PyTorch's kernels, and another kernel
gives other tokens: `jax.image.resize` uses a = -0.5 for bicubic, antialiases
and renormalises at the borders. Here every method is a matrix A[to, size]
computed once on the host; an image becomes A_h X A_w^T.

  area      adaptive average pooling; cell i is the mean of the inputs
            floor(i n / m) ... ceil((i + 1) n / m) - 1, so cells overlap
            where m does not divide n
  bicubic   half-pixel centres, kernel a = -0.75, index clamped at borders
  bicubic_corners  the same kernel, outer pixels upon outer pixels
                   (align_corners=True)
  bicubic_tenth    as bicubic by the factor (m + 0.1) / n, which older readers
                   of DINOv2's position tables take
  bilinear  half-pixel centres, clamped
  nearest   input floor(i n / m)
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def _area(size: int, to: int) -> np.ndarray:
  cell, source = np.arange(to)[:, None], np.arange(size)[None]
  start, stop = cell * size // to, -(-(cell + 1) * size // to)
  inside = (start <= source) & (source < stop)
  return inside / inside.sum(axis=1, keepdims=True)


def _taps(size: int, to: int, offsets, weights) -> np.ndarray:
  """Rows that put `weights[i, t]` on input `offsets[i, t]`, clamped."""
  matrix = np.zeros((to, size))
  rows = np.broadcast_to(np.arange(to)[:, None], offsets.shape)
  np.add.at(matrix, (rows, np.clip(offsets, 0, size - 1)), weights)
  return matrix


def _centres(size: int, to: int) -> tuple[np.ndarray, np.ndarray]:
  """Floor and fraction of where output pixels fall among input pixels."""
  return _split((np.arange(to) + 0.5) * size / to - 0.5)


def _split(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  floor = np.floor(at)
  return floor.astype(int)[:, None], (at - floor)[:, None]


def _bilinear(size: int, to: int) -> np.ndarray:
  floor, t = _centres(size, to)
  offsets = floor + np.arange(2)
  return _taps(size, to, offsets, np.concatenate([1 - t, t], axis=1))


def _bicubic(size: int, to: int) -> np.ndarray:
  return _cubic(size, *_centres(size, to))


def _bicubic_corners(size: int, to: int) -> np.ndarray:
  return _cubic(size, *_split(np.arange(to) * (size - 1) / max(to - 1, 1)))


def _bicubic_tenth(size: int, to: int) -> np.ndarray:
  return _cubic(size, *_split((np.arange(to) + 0.5) * size / (to + 0.1) - 0.5))


def _cubic(
  size: int, floor: np.ndarray, t: np.ndarray, a: float = -0.75
) -> np.ndarray:
  """Rows for outputs that fall `t` behind the inputs `floor`, [to, 1] both."""
  to, offsets = len(floor), np.arange(-1, 3)
  x = np.abs(t - offsets)
  near = (a + 2) * x**3 - (a + 3) * x**2 + 1
  far = a * (x**3 - 5 * x**2 + 8 * x - 4)
  return _taps(size, to, floor + offsets, np.where(x <= 1, near, far))


def _nearest(size: int, to: int) -> np.ndarray:
  # In float32, as PyTorch does: rounding decides some of the indices.
  scale = np.float32(size) / np.float32(to)
  source = np.floor(np.arange(to, dtype=np.float32) * scale).astype(int)
  return _taps(size, to, source[:, None], np.ones((to, 1)))


_METHODS = {
  "area": _area,
  "bicubic": _bicubic,
  "bicubic_corners": _bicubic_corners,
  "bicubic_tenth": _bicubic_tenth,
  "bilinear": _bilinear,
  "nearest": _nearest,
}


@functools.cache
def matrix(size: int, to: int, method: str) -> np.ndarray:
  """The f32[to, size] matrix that resizes one axis; each row sums to 1.

  Args:
    size: input length.
    to: output length.
    method: a name of the list above.

  Raises:
    ValueError: unknown method.
  """
  if method not in _METHODS:
    raise ValueError(f"method={method!r}: must be one of {sorted(_METHODS)}")
  # Cells are exact when computed in float64 and rounded once.
  result = _METHODS[method](size, to).astype(np.float32)
  result.setflags(write=False)
  return result


def resize(x: Array, size: tuple[int, int], method: str) -> Array:
  """Resizes the two axes before the last, as PyTorch does.

  Args:
    x: f32[..., H, W, C]; narrower floats are resized in float32.
    size: (h, w) of the result.
    method: as in `matrix`.

  Returns:
    [..., h, w, C] in the dtype of x.
  """
  height, width = x.shape[-3:-1]
  if (height, width) == tuple(size):
    return x
  rows, columns = (
    matrix(height, size[0], method),
    matrix(width, size[1], method),
  )
  out = jnp.einsum(
    "iy,jx,...yxc->...ijc",
    rows,
    columns,
    x.astype(jnp.float32),
    precision=jax.lax.Precision.HIGHEST,
  )
  return out.astype(x.dtype)
