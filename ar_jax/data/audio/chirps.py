"""Speech of a sort by rule: each symbol is a chirp, each speaker a pitch."""

from __future__ import annotations

import math
import string

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Audio, Text
from ar_jax.data.dataset import Dataset, Example

_LETTERS = string.ascii_lowercase
_LOW, _HIGH = 0.03, 0.15  # of the rate, the frequencies of a pitch of 1
_DEEP, _SHRILL = 0.8, 1.6  # the pitches of the first and the last speaker


def chirps(
  *,
  symbols: int = 8,
  longest: int = 6,
  shortest: int = 3,
  speakers: int = 4,
  each: int = 400,
  rate: int = 8000,
  noise: float = 0.01,
  length: int = 1024,
) -> Dataset:
  """Strings of letters "spoken" as chirps, for speech systems in seconds.

  From: a rule.
  Command: --config.data.name=chirps
  Fields: audio, audio_length, text, label (the speaker).

  A letter sweeps from one of a few frequencies to another, and no two letters
  do the same; a speaker multiplies all frequencies by a pitch and speaks a
  little faster or slower each time. Every text is drawn alike, so text and
  speaker are independent of each other.

  Args:
    symbols: how many letters, 1 to 26; id 1 is `a`, and 0 ends a text.
    longest: letters of a text, at most; `text` is i32[longest].
    shortest: and at least.
    speakers: how many.
    each: samples of a letter at the slowest; `audio` is f32[longest * each],
      with silence behind the end, which `audio_length` says. The fastest speak
      in four fifths of it.
    rate: of the samples, in Hz.
    noise: standard deviation of white noise, of a voice of 0.5.
    length: number of training examples; an eighth of it for test.

  Raises:
    UserError: an option is out of range.
  """
  bounds = dict(
    symbols=(symbols, 1, 26),
    longest=(longest, 1, 10_000),
    shortest=(shortest, 0, longest),
    speakers=(speakers, 1, 1000),
    each=(each, 16, 10_000_000 // longest if longest > 0 else 0),
    rate=(rate, 100, 200_000),
    noise=(noise, 0.0, 1.0),
    length=(length, 1, 2**40),
  )
  for name, (value, low, high) in bounds.items():
    if not low <= value <= high:
      raise UserError(f"data.{name}={value}: must be from {low} to {high}")
  make = lambda n, seed: Chirps(
    symbols, longest, shortest, speakers, each, rate, noise, n, seed
  )
  names = tuple(f"speaker {i}" for i in range(speakers))
  return Dataset(
    "chirps",
    make(length, 1),
    make(max(length // 8, 1), 2),
    speakers,
    names,
    "rule 1",
    forms={
      "audio": Audio(rate),
      "text": Text(("", *_LETTERS[:symbols])),
    },
  )


class Chirps:
  """Examples computed when asked for; example i is a function of i alone."""

  def __init__(
    self,
    symbols: int,
    longest: int,
    shortest: int,
    speakers: int,
    each: int,
    rate: int,
    noise: float,
    length: int,
    seed: int,
  ):
    self._symbols, self._each, self._rate = symbols, each, rate
    self._longest, self._shortest = longest, shortest
    self._noise, self._length, self._seed = noise, length, seed
    self._pitches = np.geomspace(_DEEP, _SHRILL, speakers)
    levels = max(2, math.ceil(math.sqrt(symbols)))
    grid = np.geomspace(_LOW, _HIGH, levels)
    self._sweeps = [
      (grid[s // levels], grid[s % levels]) for s in range(symbols)
    ]

  def __len__(self) -> int:
    return self._length

  def label(self, i: int) -> int:
    return i % len(self._pitches)

  def labels(self) -> np.ndarray:
    return (np.arange(self._length) % len(self._pitches)).astype(np.int32)

  def __getitem__(self, i: int) -> Example:
    if not 0 <= i < self._length:
      raise IndexError(i)
    rng = np.random.default_rng((self._seed, i))
    count = int(rng.integers(self._shortest, self._longest + 1))
    text = np.zeros(self._longest, np.int32)
    text[:count] = rng.integers(1, self._symbols + 1, size=count)
    samples = int(self._each * rng.uniform(0.8, 1.0))
    audio = np.zeros(self._longest * self._each)
    pitch = self._pitches[self.label(i)]
    for place, symbol in enumerate(text[:count]):
      start = place * samples
      audio[start : start + samples] = self._chirp(symbol - 1, pitch, samples)
    audio += self._noise * rng.standard_normal(len(audio))
    audio = np.clip(audio, -1, 1).astype(np.float32)
    return {
      "audio": audio,
      "audio_length": np.int32(count * samples),
      "text": text,
      "label": np.int32(self.label(i)),
    }

  def _chirp(self, symbol: int, pitch: float, samples: int) -> np.ndarray:
    """f64[samples]: from one frequency to the other, evenly in octaves."""
    first, last = self._sweeps[symbol]
    frequency = pitch * np.geomspace(first, last, samples)
    phase = 2 * np.pi * np.cumsum(frequency)
    return 0.5 * np.sin(phase) * np.hanning(samples) ** 0.5
