"""A mark in pixels, the baseline of marks in units: spread spectrum (Cox et
al., Secure Spread Spectrum Watermarking for Multimedia, 1997), in its simplest
form.

A keyed pattern of signs, of mean 0, is added to an image, as strong as a peak
signal-to-noise ratio allows; it is found by correlation. Images are
u8[N, H, W, c].
"""

from __future__ import annotations

import hashlib

import numpy as np

_LEAST, _MOST, _HALVINGS = 0.0, 255.0, 20


def pattern(key: str, shape: tuple[int, ...]) -> np.ndarray:
  """f64[H, W, c] of -1 and 1, less their mean."""
  count = int(np.prod(shape))
  seed = b"spread spectrum\0" + key.encode()
  bits = np.frombuffer(hashlib.shake_256(seed).digest(count), np.uint8) & 1
  signs = 2.0 * bits.reshape(shape) - 1
  return signs - signs.mean()


def embedded(images: np.ndarray, key: str, psnr: np.ndarray) -> np.ndarray:
  """The images with the pattern, each as strong as its PSNR f64[N] in dB
  allows, 8 bits and what is clipped included."""
  sign, x = pattern(key, images.shape[1:]), images.astype(np.float64)
  error = 255**2 / 10 ** (np.asarray(psnr, np.float64) / 10)

  def put(gain):
    made = x + gain[:, None, None, None] * sign
    return np.clip(np.floor(made + 0.5), 0, 255)

  low = np.full(len(x), _LEAST)
  high = np.full(len(x), _MOST)
  for _ in range(_HALVINGS):
    gain = (low + high) / 2
    fits = np.square(put(gain) - x).mean((1, 2, 3)) <= error
    low, high = np.where(fits, gain, low), np.where(fits, high, gain)
  return put(low).astype(np.uint8)


def score(images: np.ndarray, key: str) -> np.ndarray:
  """f64[N]: the correlation with the pattern, in deviations of the image, what
  is smooth in it taken out: the difference to the mean of the four pixels
  beside it."""
  sign, x = pattern(key, images.shape[1:]), images.astype(np.float64)
  own, sign = _rough(x), _rough(sign[None])[0]
  sign = sign / np.linalg.norm(sign)
  size = np.sqrt(np.square(own).mean((1, 2, 3)))
  return (own * sign).sum((1, 2, 3)) / np.maximum(size, 1e-9)


def _rough(x: np.ndarray) -> np.ndarray:
  wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
  beside = wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1]
  beside += wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]
  return x - beside / 4
