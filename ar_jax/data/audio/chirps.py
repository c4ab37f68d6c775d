"""Speech of a sort by rule: each symbol is a chirp, each speaker a pitch."""

from __future__ import annotations

import dataclasses
import math
import string

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Audio, Text
from ar_jax.data.dataset import Dataset, Example

_LETTERS = string.ascii_lowercase
_LOW, _HIGH = 0.03, 0.15  # of the rate, the frequencies of a pitch of 1
_MIDDLE = math.sqrt(0.8 * 1.6)  # between the first and the last speaker's pitch


def chirps(
  *,
  symbols: int = 8,
  longest: int = 6,
  shortest: int = 3,
  speakers: int = 4,
  each: int = 400,
  rate: int = 8000,
  noise: float = 0.01,
  pitch: float = 2.0,
  phases: bool = False,
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
      with silence behind the end, before which there are `audio_length`. The
      fastest speak in four fifths of it.
    rate: of the samples, in Hz.
    noise: standard deviation of white noise, of a voice of 0.5.
    pitch: of the last speaker, as a multiple of that of the first.
    phases: whether a chirp begins anywhere in its period, and not always at 0.
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
    pitch=(pitch, 1.0, 2.0),
    length=(length, 1, 2**40),
  )
  for name, (value, low, high) in bounds.items():
    if not low <= value <= high:
      raise UserError(f"data.{name}={value}: must be from {low} to {high}")
  rule = Rule(symbols, speakers, pitch)
  make = lambda n, seed: Chirps(
    rule, longest, shortest, each, noise, phases, n, seed
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


@dataclasses.dataclass(frozen=True)
class Rule:
  """How letters sound.

  Attributes:
    symbols: how many.
    speakers: how many.
    pitch: of the last, as a multiple of that of the first.
  """

  symbols: int
  speakers: int
  pitch: float = 2.0

  @property
  def pitches(self) -> np.ndarray:
    """f64[speakers]; as far below the middle as above."""
    share = np.linspace(-0.5, 0.5, self.speakers) if self.speakers > 1 else [0]
    return _MIDDLE * self.pitch ** np.asarray(share)

  @property
  def sweeps(self) -> list[tuple[float, float]]:
    """The frequencies at the beginning and the end of each symbol, of a pitch
    of 1, as shares of the rate."""
    levels = max(2, math.ceil(math.sqrt(self.symbols)))
    grid = np.geomspace(_LOW, _HIGH, levels)
    return [(grid[s // levels], grid[s % levels]) for s in range(self.symbols)]

  def chirp(
    self, symbol: int, pitch: float, samples: int, phase: float = 0.0
  ) -> np.ndarray:
    """f64[samples] of symbol 0 .. symbols - 1: from one frequency to the other,
    evenly in octaves, from this share of a period on."""
    first, last = self.sweeps[symbol]
    frequency = pitch * np.geomspace(first, last, samples)
    angle = 2 * np.pi * (np.cumsum(frequency) + phase)
    return 0.5 * np.sin(angle) * np.hanning(samples) ** 0.5


class Chirps:
  """Examples computed when asked for; example i is a function of i alone."""

  def __init__(
    self,
    rule: Rule,
    longest: int,
    shortest: int,
    each: int,
    noise: float,
    phases: bool,
    length: int,
    seed: int,
  ):
    self.rule, self._each, self._phases = rule, each, phases
    self._longest, self._shortest = longest, shortest
    self._noise, self._length, self._seed = noise, length, seed
    self._pitches = rule.pitches

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
    text[:count] = rng.integers(1, self.rule.symbols + 1, size=count)
    samples = int(self._each * rng.uniform(0.8, 1.0))
    audio = np.zeros(self._longest * self._each)
    pitch = self._pitches[self.label(i)]
    phase = rng.uniform(size=count) if self._phases else np.zeros(count)
    for place, symbol in enumerate(text[:count]):
      start = place * samples
      audio[start : start + samples] = self.rule.chirp(
        symbol - 1, pitch, samples, phase[place]
      )
    audio += self._noise * rng.standard_normal(len(audio))
    audio = np.clip(audio, -1, 1).astype(np.float32)
    return {
      "audio": audio,
      "audio_length": np.int32(count * samples),
      "text": text,
      "label": np.int32(self.label(i)),
    }
