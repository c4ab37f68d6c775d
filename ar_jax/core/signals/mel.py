"""What is heard of a sound: power by pitch, on the scale of mel.

Shapes: B batch, N samples, T frames, K samples of a window, F bands of mel.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

WINDOWS = ("hamming", "hann", "povey")


def window(name: str, count: int) -> np.ndarray:
  """f32[K]: Hamming, Hann, or Kaldi's, which is Hann's to the power 0.85.

  Raises:
    ValueError: there is no such window.
  """
  if name not in WINDOWS:
    raise ValueError(f"window {name!r}: there are {', '.join(WINDOWS)}")
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(count) / max(count - 1, 1))
  made = {"hamming": 0.08 + 0.92 * hann, "hann": hann, "povey": hann**0.85}
  return made[name].astype(np.float32)


def mel(hertz: np.ndarray) -> np.ndarray:
  """1127 ln(1 + f / 700), as HTK and Kaldi have it."""
  return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)


@functools.cache
def bank(
  rate: int, size: int, bands: int, low: float = 20.0, high: float = 0.0
) -> np.ndarray:
  """f32[size / 2 + 1, F]: triangles that are even in mel, of the bins of a
  Fourier transform.

  Args:
    rate: of the samples, in Hz.
    size: of the transform.
    bands: F.
    low: where the first triangle begins, in Hz.
    high: where the last one ends; half the rate plus this if it is not
      positive.
  """
  high = high if high > 0 else rate / 2 + high
  edges = np.linspace(mel(low), mel(high), bands + 2)
  at = mel(np.arange(size // 2 + 1) * rate / size)[:, None]
  left, middle, right = edges[:-2], edges[1:-1], edges[2:]
  up, down = (at - left) / (middle - left), (right - at) / (right - middle)
  return np.maximum(0.0, np.minimum(up, down)).astype(np.float32)


def frames(count: Array | int, size: int, hop: int) -> Array | int:
  """T of so many samples: only whole windows count, and one at least."""
  most = jnp.maximum if isinstance(count, jax.Array) else max
  return 1 + most(count - size, 0) // hop


def log_mel(
  audio: Array,
  *,
  rate: int,
  bands: int = 80,
  size: int = 0,
  hop: int = 0,
  name: str = "hamming",
  emphasis: float = 0.97,
  floor: float = 1e-7,
) -> Array:
  """log f32[B, T, F] of the power of each band in each window.

  As Kaldi's filter banks, but for its dither: the mean of a window is taken
  out, then each sample loses `emphasis` times the one before, and the window is
  applied.

  Args:
    audio: f32[B, N] in [-1, 1].
    rate: of the samples, in Hz.
    bands: F.
    size: K; 25 ms if 0.
    hop: from one window to the next; 10 ms if 0.
    name: one of WINDOWS.
    emphasis: 0 for none.
    floor: of the power, under the logarithm.
  """
  size, hop = size or rate * 25 // 1000, hop or rate * 10 // 1000
  short = max(size - audio.shape[1], 0)
  audio = jnp.pad(audio.astype(jnp.float32), ((0, 0), (0, short)))
  count = frames(audio.shape[1], size, hop)
  at = np.arange(count)[:, None] * hop + np.arange(size)[None]
  x = audio[:, at]
  x = x - jnp.mean(x, -1, keepdims=True)
  before = jnp.concatenate([x[..., :1], x[..., :-1]], -1)
  x = (x - emphasis * before) * window(name, size)[None, None]
  whole = 1 << (size - 1).bit_length()
  power = jnp.square(jnp.abs(jnp.fft.rfft(x, whole)))
  found = power @ bank(rate, whole, bands)
  return jnp.log(jnp.maximum(found, floor))


def stacked(x: Array, count: int, skip: int) -> Array:
  """f32[B, ceil(T / skip), count F]: `count` frames side by side, from every
  `skip`-th on ("low frame rate"); the first is repeated (count - 1) // 2 times
  before the beginning and the last one behind the end.

  Args:
    x: [B, T, F].
    count: frames of one.
    skip: from one to the next.
  """
  t, left = x.shape[1], (count - 1) // 2
  rows = -(-t // skip)
  at = np.arange(rows)[:, None] * skip + np.arange(count)[None] - left
  at = np.clip(at, 0, t - 1)
  return x[:, at].reshape(len(x), rows, -1)


def masked(
  x: Array, keys: Array, *, times: int, bands: int, count: int = 2
) -> Array:
  """Runs of frames and of bands of x [B, T, F] at zero, by keys Key[B]
  (SpecAugment, arXiv 1904.08779).

  Args:
    x: features of mean zero.
    keys: see above.
    times: frames of a run at most.
    bands: bands of a run at most.
    count: runs of each kind.
  """

  def hidden(key, size, most):
    key = jax.random.split(key, 2)
    length = jax.random.randint(key[0], (count, 1), 0, most + 1)
    share = jax.random.uniform(key[1], (count, 1))
    start = jnp.floor(share * jnp.maximum(size - length + 1, 1))
    at = jnp.arange(size)[None]
    return ((at >= start) & (at < start + length)).any(0)

  def one(key):
    own = jax.random.split(key, 2)
    when = hidden(own[0], x.shape[1], min(times, x.shape[1]))
    which = hidden(own[1], x.shape[2], min(bands, x.shape[2]))
    return when[:, None] | which[None]

  return jnp.where(jax.vmap(one)(keys), 0.0, x)
