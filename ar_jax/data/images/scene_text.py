"""Words as a camera sees them: drawn in some face, slanted, blurred, on uneven
ground.

H, W sides of an image, c channels.
"""

from __future__ import annotations

import functools
import pathlib
import string

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ar_jax.core import forms
from ar_jax.core.errors import UserError, check_choice
from ar_jax.data import digests
from ar_jax.data.dataset import Dataset, Example, split_by_seed
from ar_jax.data.images import glyphs, transforms
from ar_jax.data.text import corpora
from ar_jax.data.text.spelled import spell

LETTERS = ("fonts", "dots")
_FOLDERS = [
  pathlib.Path("/usr/share/fonts/truetype", name)
  for name in ("dejavu", "liberation")
]
_ENDINGS = (".ttf", ".otf")
_POINTS = 28  # of a letter before it is brought to its size
_HELD_OUT = 1 / 9  # of the words, for test
_RANDOM = 4000  # words, where they are made by rule


def scene_text(
  *,
  height: int = 32,
  width: int = 96,
  channels: int = 1,
  letters: str = "fonts",
  words: str = "wordlist",
  least: int = 3,
  most: int = 10,
  fonts: str = "",
  held_out: int = 4,
  hard: float = 1.0,
  stretch: bool = True,
  length: int = 8000,
  path: str = "",
) -> Dataset:
  """Words in images, in faces that training has not seen where they are read.

  From: the Debian packages `fonts-dejavu-core`, `fonts-liberation` and
  `wamerican`; or a rule, with `letters=dots` and `words=random`.
  Command: --config.data.name=scene_text
  Fields: image, text, i32[most + 1].

  Each word is drawn in a face at a size of its own, slanted by up to 15
  degrees and turned by up to 4, on ground that changes from one grey (or
  colour) to another, darker than it in one of two; then come a bar across it
  in one of six, blur and noise. Words of the test part are not among those of
  training, and neither are its faces. Example i is a pure function of i.

  Args:
    height: H.
    width: W.
    channels: 1 or 3.
    letters: "fonts", or "dots", letters of 5 x 7 dots that need no font.
    words: "wordlist", English words of small letters; or "random" letters.
    least: letters of a word.
    most: letters of a word; longer ones are left out.
    fonts: a folder of .ttf and .otf files in place of Debian's.
    held_out: faces that are for test alone.
    hard: how much of slant, turn, dark ground, bars, blur and noise there is; 0
      is none.
    stretch: whether a word fills most of the image whatever its length, as a
      cut-out that is brought to its sides; else letters keep their proportions
      and begin at the left.
    length: images for training; an eighth of it for test.
    path: a file with a word in every line in place of Debian's.

  Raises:
    UserError: fonts or words are not there, or an option is out of range.
  """
  transforms.check_size(min(height, width), channels)
  transforms.check_size(max(height, width), channels)
  check_choice("data.letters", letters, LETTERS)
  if not 1 <= least <= most or length < 1 or hard < 0:
    raise UserError(
      f"data.least={least}, most={most}, length={length}, hard={hard}: words "
      "have 1 letter at least, and at most as many as the second says; the "
      "others must be positive"
    )
  parts, digest = _words(words, path, least, most)
  faces: list[list[str | None]] = [[None], [None]]
  if letters == "fonts":
    found = _faces(fonts)
    if not 0 < held_out < len(found):
      raise UserError(
        f"data.held_out={held_out}: must be from 1 to {len(found) - 1}, there "
        f"are {len(found)} faces"
      )
    train, test = split_by_seed(len(found), held_out)
    faces = [[str(found[i]) for i in rows] for rows in (train, test)]
    digest = digests.fingerprint(digest, [f.name for f in found])
  make = lambda part, n: SceneText(
    parts[part],
    faces[part],
    (height, width),
    channels,
    most,
    hard,
    stretch,
    n,
    part,
  )
  symbols = ("", *string.ascii_lowercase)
  return Dataset(
    "scene_text",
    make(0, length),
    make(1, max(length // 8, 1)),
    digest=digests.fingerprint("rule 1", digest),
    forms={"image": forms.Image(), "text": forms.Text(symbols)},
  )


def _words(
  name: str, path: str, least: int, most: int
) -> tuple[list[list[str]], str]:
  """(words for training and for test, the digest of where they are from)."""
  if name == "random":
    rng = np.random.default_rng(0)
    every = dict.fromkeys(
      "".join(rng.choice([*string.ascii_lowercase], n))
      for n in rng.integers(least, most + 1, _RANDOM)
    )
    found, digest = list(every), "random"
  elif name == "wordlist":
    corpus = corpora.read(name, path)
    digest = corpus.digest
    small = lambda w: w.isascii() and w.isalpha() and w.islower()
    found = [w for w in corpus.texts if least <= len(w) <= most and small(w)]
  else:
    raise UserError(f"data.words={name!r}: choose 'wordlist' or 'random'")
  if len(found) < 2:
    raise UserError(
      f"data.words={name!r}: {len(found)} words of {least} to {most} letters"
    )
  test = max(1, round(_HELD_OUT * len(found)))
  return [
    [found[i] for i in r] for r in split_by_seed(len(found), test)
  ], digest


def _faces(folder: str) -> list[pathlib.Path]:
  """The files of faces, by their names."""
  roots = [pathlib.Path(folder).expanduser()] if folder else _FOLDERS
  found = [
    f for root in roots if root.is_dir() for f in root.iterdir()
    if f.suffix.lower() in _ENDINGS and "Math" not in f.name
  ]  # fmt: skip
  if len(found) < 2:
    raise UserError(
      f"scene_text: no two faces (.ttf, .otf) in {', '.join(map(str, roots))}; "
      "apt-get install fonts-dejavu-core fonts-liberation, name a folder with "
      "data.fonts=DIR, or take data.letters=dots"
    )
  return sorted(found, key=lambda f: f.name)


@functools.lru_cache(256)
def _face(path: str) -> ImageFont.FreeTypeFont:
  try:
    return ImageFont.truetype(path, _POINTS)
  except OSError as e:
    raise UserError(f"{path}: cannot be read as a font ({e})") from e


def ink(word: str, face: str | None) -> Image.Image:
  """The word in white on black, cut to its ink; without a face, of dots."""
  if face is None:
    line = word.upper()
    scale = 3
    wide = len(line) * glyphs.ADVANCE * scale
    mask = glyphs.drawn([line], wide, scale)
    rows = np.flatnonzero(mask.any(1))
    mask = mask[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(mask.any(0))
    mask = mask[:, columns[0] : columns[-1] + 1]
    return Image.fromarray(np.uint8(255) * mask)
  font = _face(face)
  left, top, right, bottom = font.getbbox(word)
  picture = Image.new("L", (right - left, bottom - top))
  ImageDraw.Draw(picture).text((-left, -top), word, font=font, fill=255)
  return picture


class SceneText:
  """Images computed when asked for.

  Attributes:
    words: of this part.
    faces: files of fonts, or None for dots.
    size: (H, W).
    channels: c.
    most: letters of a word.
    hard, stretch: see `scene_text`.
    length: how many.
    seed: of the part.
  """

  def __init__(
    self, words, faces, size, channels, most, hard, stretch, length, seed
  ):  # fmt: skip
    self.words, self.faces, self.size = words, faces, size
    self.channels, self.most = channels, most
    self.hard, self.stretch = hard, stretch
    self.length, self.seed = length, seed

  def __len__(self) -> int:
    return self.length

  def __getitem__(self, i: int) -> Example:
    if not 0 <= i < self.length:
      raise IndexError(i)
    rng = np.random.default_rng((self.seed, int(i)))
    word = self.words[rng.integers(len(self.words))]
    face = self.faces[rng.integers(len(self.faces))]
    return {
      "image": self.image(word, face, rng),
      "text": spell([word], self.most + 1)[0],
    }

  def image(
    self, word: str, face: str | None, rng: np.random.Generator
  ) -> np.ndarray:
    """u8[H, W, c] of a word."""
    (h, w), hard = self.size, self.hard
    mask = self._placed(ink(word, face), rng)
    if rng.random() < hard / 6:
      mask = self._bar(mask, rng)
    radius = hard * rng.uniform(0, 0.03) * h
    mask = mask.filter(ImageFilter.GaussianBlur(radius))
    alpha = np.asarray(mask, np.float32)[..., None] / 255
    # Ground and letters are 70 levels apart at least, wherever they are.
    low, high = rng.integers(0, 90, 2), rng.integers(160, 256, 2)
    lighter = rng.random() < min(hard, 1) / 2  # the letters than the ground
    ground, pen = (low, high) if lighter else (high, low)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    share = 0.5 + 0.5 * (
      (x / w - 0.5) * np.cos(angle) + (y / h - 0.5) * np.sin(angle)
    )
    tint = rng.uniform(0.8, 1.0, (2, self.channels)) ** (self.channels > 1)
    grey = ground[0] + share[..., None] * (float(ground[1]) - ground[0])
    image = (1 - alpha) * grey * tint[0] + alpha * pen[0] * tint[1]
    noise = rng.standard_normal((h, w, self.channels), np.float32)
    image = image + hard * rng.uniform(0, 15) * noise
    return np.clip(np.round(image), 0, 255).astype(np.uint8)

  def _placed(self, mask: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The word slanted, turned and brought to most of the image."""
    h, w = self.size
    tall = max(4, round(rng.uniform(0.55, 0.9) * h))
    wide = max(4, round(rng.uniform(0.75, 0.97) * w))
    if not self.stretch:
      wide = min(wide, max(4, round(tall * mask.width / mask.height)))
    shear = self.hard * np.tan(np.deg2rad(rng.uniform(-15, 15)))
    turn = self.hard * np.tan(np.deg2rad(rng.uniform(-4, 4)))
    room = w - wide if self.stretch else min(w - wide, h / 4)
    left = rng.uniform(0, room)
    top = rng.uniform(0, h - tall)
    # From places of the image to those of the mask, about its middle: what is
    # slanted is made narrower, so that it stays within its box.
    sx = (mask.width + abs(shear) * mask.height) / wide
    sy = (mask.height + abs(turn) * mask.width) / tall
    cx, cy = left + wide / 2, top + tall / 2
    a, b = sx, shear * sy
    d, e = turn * sx, sy
    c = mask.width / 2 - a * cx - b * cy
    f = mask.height / 2 - d * cx - e * cy
    return mask.transform(
      (w, h), Image.Transform.AFFINE, (a, b, c, d, e, f),
      Image.Resampling.BICUBIC,
    )  # fmt: skip

  def _bar(self, mask: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A bar of ink, or of ground, across the word."""
    h, w = self.size
    thick = max(1, round(rng.uniform(0.03, 0.08) * h))
    ends = [(0, rng.uniform(0, h)), (w, rng.uniform(0, h))]
    fill = 255 * int(rng.integers(2))
    ImageDraw.Draw(mask).line(ends, fill=fill, width=thick)
    return mask
