"""WAV files of plain numbers, integers or floats.

The standard library's `wave` knows neither floats nor, before Python 3.12, the
"extensible" head that most programs write for 24 bits.
"""

from __future__ import annotations

import dataclasses
import math
import os
import stat
import struct

import numpy as np

_INTEGER, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_WIDTHS = {_INTEGER: (1, 2, 3, 4), _FLOAT: (4, 8)}  # bytes of a sample
_STREAMED = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # sizes that say: up to the end
_MOST = 1000  # channels, and more than any file has


class Unreadable(Exception):
  """Says why, in a few words."""


@dataclasses.dataclass(frozen=True)
class Head:
  """What a file says of itself.

  Attributes:
    rate: samples a second.
    count: samples of each channel.
    channels: how many.
    width: bytes of a sample.
    floating: whether they are floats.
    start: where in the file they begin.
  """

  rate: int
  count: int
  channels: int
  width: int
  floating: bool
  start: int

  def at(self, rate: int) -> int:
    """How many samples there are at another rate."""
    return samples(self.count, self.rate, rate)


def samples(count: int, old: int, new: int) -> int:
  """How many samples of the rate `new` last as long as `count` of `old`."""
  return -(-count * new // old)


def head(path: str) -> Head:
  """Reads the head of a file, and whether the samples are all there.

  Raises:
    Unreadable: it is no such file, is cut short, or holds nothing.
  """
  try:
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
      raise Unreadable("no ordinary file")
    with open(path, "rb") as file:
      form, start, size = _chunks(file)
  except OSError as e:
    raise Unreadable((e.strerror or str(e)).lower()) from e
  except struct.error as e:
    raise Unreadable("no WAV file, or cut short in its head") from e
  kind, channels, rate, align, bits = form
  if kind not in _WIDTHS:
    raise Unreadable(f"compressed, format {kind}; save it as PCM")
  width = align // channels if 0 < channels < _MOST else 0
  if width not in _WIDTHS[kind] or align % channels or rate < 1:
    raise Unreadable(f"{bits} bits, {channels} channels, {rate} Hz")
  there = found.st_size - start
  if size in _STREAMED:
    size = there
  if size > there:
    raise Unreadable(f"cut short: {size} bytes of sound, {there} are left")
  if size < align:
    raise Unreadable("no sound in it")
  made = Head(rate, size // align, channels, width, kind == _FLOAT, start)
  if made.floating:  # these may hold anything
    read(path, made, 0, made.count)
  return made


def _chunks(file) -> tuple[tuple[int, int, int, int, int], int, int]:
  """((format, channels, rate, bytes of all channels, bits), where the samples
  begin, how many bytes they say to be)."""
  riff, _, wave = struct.unpack("<4sI4s", file.read(12))
  if riff != b"RIFF" or wave != b"WAVE":
    raise Unreadable("no WAV file")
  form = None
  while True:
    name, size = struct.unpack("<4sI", file.read(8))
    start = file.tell()
    if name == b"data":
      if form is None:
        raise Unreadable("damaged: sound before its format")
      return form, start, size
    if name == b"fmt ":
      body = file.read(min(size, 40))
      kind, channels, rate, _, align, bits = struct.unpack("<HHIIHH", body[:16])
      if kind == _EXTENSIBLE:
        (kind,) = struct.unpack("<H", body[24:26])
      form = kind, channels, rate, align, bits
    file.seek(start + size + size % 2)


def read(path: str, head: Head, start: int, count: int) -> np.ndarray:
  """f32[n] in [-1, 1], n <= count: samples from `start` on, their channels
  averaged; fewer where the file ends.

  Raises:
    Unreadable: the file has been changed, or holds what is no number.
  """
  count = max(min(count, head.count - start), 0)
  align = head.channels * head.width
  try:
    with open(path, "rb") as file:
      file.seek(head.start + start * align)
      raw = file.read(count * align)
  except OSError as e:
    raise Unreadable((e.strerror or str(e)).lower()) from e
  if len(raw) != count * align:
    raise Unreadable("cut short")
  sound = decoded(raw, head.width, head.floating)
  if not np.isfinite(sound).all():
    raise Unreadable("holds NaN or infinity")
  mono = sound.reshape(-1, head.channels).mean(1, dtype=np.float64)
  return np.clip(mono, -1, 1).astype(np.float32)


def decoded(raw: bytes, width: int, floating: bool = False) -> np.ndarray:
  """f64[n] of little-endian numbers, `width` bytes each. Integers come to
  [-1, 1): of one byte 128 is silence, those of more are signed."""
  if floating:
    return np.frombuffer(raw, f"<f{width}").astype(np.float64)
  if width == 1:
    return (np.frombuffer(raw, np.uint8) - 128.0) / 128
  if width == 3:  # as the upper bytes of four
    wide = np.zeros((len(raw) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
    raw, width = wide.tobytes(), 4
  return np.frombuffer(raw, f"<i{width}") / 2.0 ** (8 * width - 1)


def resampled(sound: np.ndarray, old: int, new: int) -> np.ndarray:
  """f32[m] in [-1, 1] of f32[n], from one rate to another, with a filter
  against aliases."""
  if old == new:
    return sound
  from scipy import signal  # slow to import

  common = math.gcd(old, new)
  made = signal.resample_poly(
    sound.astype(np.float64), new // common, old // common
  )
  return np.clip(made, -1, 1).astype(np.float32)
