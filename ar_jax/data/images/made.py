"""Images by rule that ask much of a tokenizer: fine patterns, and text."""

from __future__ import annotations

import abc

import numpy as np

from ar_jax.core import forms
from ar_jax.core.errors import UserError
from ar_jax.data.dataset import Dataset, Example, utf8
from ar_jax.data.images import glyphs, transforms

KINDS = ("grating", "checkerboard", "dots", "hatch")
_CYCLES = 16  # of the finest grating, across an image


class _Made(abc.ABC):
  """Images u8[size, size, channels] that are computed when asked for; image i
  of a split is always the same."""

  def __init__(self, size: int, channels: int, length: int, seed: int):
    transforms.check_size(size, channels)
    if length < 1:
      raise UserError(f"data.length={length}: must be at least 1")
    self._size, self._channels = size, channels
    self._length, self._seed = length, seed

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, i: int) -> Example:
    if not 0 <= i < self._length:
      raise IndexError(i)
    return self._example(int(i), np.random.default_rng((self._seed, int(i))))

  @abc.abstractmethod
  def _example(self, i: int, rng: np.random.Generator) -> Example:
    """Example i, whose randomness is that of `rng`."""

  def _painted(self, ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of ink f32[size, size] in [0, 1], a dark colour on a light one or the
    other way round."""
    dark = rng.integers(0, 96, self._channels)
    light = rng.integers(160, 256, self._channels)
    paper, pen = (light, dark) if rng.random() < 0.5 else (dark, light)
    image = paper + ink[..., None] * (pen - paper.astype(np.float64))
    return np.floor(image + 0.5).astype(np.uint8)


def patterns(
  *, size: int, channels: int = 3, length: int = 1024, seed: int = 0
) -> Dataset:
  """Gratings, checkerboards, random dots and hatching, in two colours each.

  From: a rule.
  Command: --config.data.name=patterns
  Fields: image, label (which of the four).

  The details that VTBench (arXiv 2505.13439) asks tokenizers to keep, made
  here. Gratings have 1 to 16 cycles and any direction.

  Args:
    size: side in pixels.
    channels: 1 or 3.
    length: images for training; an eighth of it for test.
    seed: of all of them.
  """
  train = _Patterns(size, channels, length, 2 * seed)
  test = _Patterns(size, channels, max(length // 8, 1), 2 * seed + 1)
  return Dataset("patterns", train, test, len(KINDS), KINDS, "rule 1")


class _Patterns(_Made):
  def label(self, i: int) -> int:
    return i % len(KINDS)

  def _example(self, i: int, rng: np.random.Generator) -> Example:
    kind = KINDS[self.label(i)]
    ink = getattr(self, f"_{kind}")(rng)
    label = np.int32(self.label(i))
    return {"image": self._painted(ink, rng), "label": label}

  def _along(self, rng: np.random.Generator) -> np.ndarray:
    """Distance f64[size, size] of pixels in a random direction, 0 to 1 across
    the image."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[: self._size, : self._size] / self._size
    return x * np.cos(angle) + y * np.sin(angle)

  def _grating(self, rng: np.random.Generator) -> np.ndarray:
    cycles = rng.uniform(1, min(_CYCLES, self._size / 4))
    phase = cycles * self._along(rng) + rng.random()
    return 0.5 + 0.5 * np.sin(2 * np.pi * phase)

  def _checkerboard(self, rng: np.random.Generator) -> np.ndarray:
    side = rng.integers(1, max(self._size // 4, 1) + 1)
    y, x = (np.mgrid[: self._size, : self._size] + rng.integers(side)) // side
    return ((x + y) % 2).astype(np.float64)

  def _dots(self, rng: np.random.Generator) -> np.ndarray:
    share = rng.uniform(0.02, 0.3)
    return (rng.random((self._size, self._size)) < share).astype(np.float64)

  def _hatch(self, rng: np.random.Generator) -> np.ndarray:
    cycles = rng.uniform(2, min(_CYCLES, self._size / 4))
    lines = [
      (cycles * self._along(rng) + rng.random()) % 1 < 0.25 for _ in range(2)
    ]
    return np.logical_or(*lines).astype(np.float64)


def rendered_text(
  *,
  size: int,
  channels: int = 1,
  scale: int = 2,
  length: int = 1024,
  seed: int = 0,
) -> Dataset:
  """Random words in letters of 5 x 7 dots, whose text is known.

  From: a rule.
  Command: --config.data.name=rendered_text
  Fields: image, text (i32, UTF-8 bytes).

  Words are of random capitals and figures, so nothing but the image says what
  is written; `ar_jax.evals.text.reading` reads it again.

  Args:
    size: side in pixels.
    channels: 1 or 3.
    scale: pixels of a dot.
    length: images for training; an eighth of it for test.
    seed: of all of them.

  Raises:
    UserError: there is no room for a word.
  """
  if scale < 1 or min(glyphs.cells(size, scale)) < 1:
    raise UserError(
      f"data.scale={scale}: an image of {size} pixels has no room for a letter "
      f"of {glyphs.WIDTH}x{glyphs.HEIGHT} dots of {scale} pixels"
    )
  train = _Written(size, channels, length, 2 * seed, scale)
  test = _Written(size, channels, max(length // 8, 1), 2 * seed + 1, scale)
  fields = {"image": forms.Image(), "text": forms.Text()}
  return Dataset("rendered_text", train, test, digest="rule 1", forms=fields)


class _Written(_Made):
  def __init__(
    self, size: int, channels: int, length: int, seed: int, scale: int
  ):
    super().__init__(size, channels, length, seed)
    self._scale = scale

  def _example(self, i: int, rng: np.random.Generator) -> Example:
    count, room = glyphs.cells(self._size, self._scale)
    lines = [self._line(room, rng) for _ in range(count)]
    ink = glyphs.drawn(lines, self._size, self._scale).astype(np.float64)
    text = utf8(" ".join(lines), count * (room + 1))
    return {"image": self._painted(ink, rng), "text": text}

  def _line(self, room: int, rng: np.random.Generator) -> str:
    """Words of 2 to 5 letters, as many as there is room for."""
    words, left = [], room
    while not words or left > 2:
      most = min(5, left - bool(words))
      letters = rng.integers(min(2, most), most + 1)
      word = rng.choice([*glyphs.SYMBOLS], letters)
      words.append("".join(word))
      left -= letters + (len(words) > 1)
    return " ".join(words)
