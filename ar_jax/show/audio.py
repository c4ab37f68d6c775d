"""Sounds: wave form and spectrogram, and WAV files."""

from __future__ import annotations

import pathlib
import wave

import numpy as np
from numpy import fft

from ar_jax.core.forms import Audio
from ar_jax.show.files import numbered
from ar_jax.show.sheet import COLOURS, Sheet

_WIDTH, _WAVE, _SPECTRUM = 320, 56, 96  # pixels of a panel
_COLUMNS = 3
_RANGE = 80.0  # decibels below the loudest that are told apart
# Quiet to loud.
_TONES = np.array(
  [(0, 0, 8), (60, 15, 110), (160, 45, 110), (235, 105, 55), (250, 250, 160)],
  np.float64,
)


def picture(
  form: Audio, x: np.ndarray, beside: dict, *, columns: int, truth=None
) -> np.ndarray:
  """Of each sound the wave form, -1 to 1, above the logarithm of its
  spectrum, 0 Hz below and half the rate above."""
  del beside, truth
  height = _WAVE + _SPECTRUM
  sheet = Sheet(len(x), min(columns, _COLUMNS), _WIDTH, height)
  for i in range(sheet.count):
    left, top = sheet.corner(i)
    middle = top + _WAVE / 2
    low, high = _bounds(x[i], _WIDTH)
    for k in range(_WIDTH):
      y = [middle - v * (_WAVE / 2 - 1) for v in (high[k], low[k])]
      sheet.pen.line((left + k, y[0], left + k, y[1]), COLOURS[0])
    sheet.paste((left, top + _WAVE), spectrogram(x[i], _WIDTH, _SPECTRUM))
    sheet.frame(i)
    seconds = f"{i}: {x.shape[1] / form.rate:.2f} s"
    sheet.write((left + 3, top + 2), seconds)
    at = (left + 3, top + _WAVE + 2)
    sheet.write(at, f"{form.rate / 2000:g} kHz")
  return sheet.array()


def _bounds(x: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
  """The least and the largest value in each of so many columns."""
  edges = np.linspace(0, len(x), width + 1).astype(int)
  parts = [x[a : max(b, a + 1)] for a, b in zip(edges, edges[1:], strict=False)]
  parts = [p if len(p) else x[-1:] for p in parts]
  return np.array([p.min() for p in parts]), np.array([p.max() for p in parts])


def spectrogram(x: np.ndarray, width: int, height: int) -> np.ndarray:
  """u8[height, width, 3]: decibels over time and frequency, low ones below, of
  windows (Hann) that overlap by at least three quarters."""
  size = int(min(512, max(16, 2 ** int(np.log2(max(len(x) // 8, 16))))))
  x = np.pad(np.asarray(x, np.float64), size // 2)
  hop = max(1, min(size // 4, (len(x) - size) // width or 1))
  starts = np.arange(0, max(1, len(x) - size + 1), hop)
  rows = np.stack([x[s : s + size] for s in starts]) * np.hanning(size)
  power = np.abs(fft.rfft(rows)) ** 2
  decibels = 10 * np.log10(np.maximum(power, 1e-10))
  share = np.clip(1 + (decibels - max(decibels.max(), -20.0)) / _RANGE, 0, 1)
  at = lambda n, m: np.minimum((np.arange(m) + 0.5) * n / m, n - 1).astype(int)
  share = share[at(len(share), width)][:, at(share.shape[1], height)]
  place = share.T[::-1] * (len(_TONES) - 1)
  below = np.minimum(place.astype(int), len(_TONES) - 2)
  part = (place - below)[..., None]
  tones = (1 - part) * _TONES[below] + part * _TONES[below + 1]
  return tones.round().astype(np.uint8)


def write(
  folder: pathlib.Path,
  stem: str,
  form: Audio,
  x: np.ndarray,
  beside: dict,
  columns: int,
  most: int,
) -> list[pathlib.Path]:
  """`stem.000.wav` and so on: 16 bits, one channel."""
  del beside, columns

  def one(i: int, path: pathlib.Path) -> None:
    samples = np.round(np.clip(x[i], -1, 1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
      file.setnchannels(1)
      file.setsampwidth(2)
      file.setframerate(form.rate)
      file.writeframes(samples.tobytes())

  return numbered(folder, stem, "wav", min(len(x), most), one)


def said(form: Audio, x: np.ndarray) -> tuple[str, str]:
  return "sounds", f"{x.shape[1] / form.rate:.3g} seconds at {form.rate} Hz"
