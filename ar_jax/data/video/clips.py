"""Clips of pictures that move by rule, over any set of images."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image as Pictures

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Image, Video
from ar_jax.data import digests
from ar_jax.data.dataset import Around, Dataset, Example, Source
from ar_jax.data.images import transforms

_MOTIONS = ("drift", "bounce", "turn")
_VERSION = 1  # of what is made of the same pictures
_LARGEST = 500_000_000  # bytes of one clip


def clips(
  *,
  size: int,
  channels: int = 1,
  frames: int = 8,
  source: str = "digits",
  path: str = "",
  motion: str = "bounce",
  sprite: int = 0,
  speed: int = 1,
  rate: float = 8.0,
  length: int = 0,
  stills: bool = False,
) -> Dataset:
  """Short videos of a digit, a piece of clothing or a pictogram that moves.

  From: a rule over a set of images, `digits` and others.
  Command: --config.data.name=clips --config.data.motion=drift
  Fields: video, label (that of the picture); with `stills` image, label.

  Clip i shows picture i in a motion that is fixed; in training the motion is
  drawn anew each time. Pictures of the training and of the test part are
  those of the set of images. All places are whole pixels.

  Args:
    size: side of the frames in pixels.
    channels: 1 or 3.
    frames: how many there are.
    source: the set of images, `digits`, `fashion_mnist`, `emoji`, `fake` or
      any other one, with its own defaults.
    path: where that set lies, for one that has a `path`.
    motion: "drift" (on at an even speed, and in again on the other side),
      "bounce" (back from the borders), "turn" (about its middle), or several
      with a plus between them, as "drift+turn", of which each clip has one.
    sprite: side of the picture in pixels; by default five eighths of `size`.
    speed: the largest speed along each axis, in pixels a frame.
    rate: frames a second.
    length: clips per epoch for training, an eighth of it for test; by default
      as many as there are pictures.
    stills: single frames in place of clips, for a tokenizer of frames.

  Raises:
    UserError: the set has no images, or an option is out of range.
  """
  transforms.check_size(size, channels)
  kinds = _kinds(motion)
  sprite = sprite or max(1, size * 5 // 8)
  _check(size, channels, frames, sprite, speed, rate, length, kinds)
  from ar_jax.data import sources  # which knows this loader

  where = {"path": path} if path else {}
  made = sources.load(source, size=sprite, channels=channels, **where)
  if not isinstance(made.forms.get("image"), Image):
    raise UserError(
      f"data.source={source!r}: its examples have no image; choose a set of "
      "images"
    )
  rule = Rule(size, frames, kinds, speed, stills)
  parts = {
    "train": Moving(made.train, rule, length or len(made.train), seed=0),
    "test": Moving(
      made.test, rule, max(length // 8, 1) if length else len(made.test), seed=1
    ),
  }
  return dataclasses.replace(
    made,
    name="clips",
    **parts,
    digest=digests.fingerprint(_VERSION, made.digest) if made.digest else "",
    forms={"image": Image()} if stills else {"video": Video(rate)},
  )


def _kinds(motion: str) -> tuple[str, ...]:
  kinds = tuple(motion.split("+"))
  for kind in kinds:
    if kind not in _MOTIONS:
      raise UserError(
        f"data.motion={motion!r}: must be {', '.join(_MOTIONS)}, or several "
        "with a plus between them"
      )
  return kinds


def _check(size, channels, frames, sprite, speed, rate, length, kinds) -> None:
  for name, value in (("frames", frames), ("speed", speed), ("rate", rate)):
    if value <= 0:
      raise UserError(f"data.{name}={value}: must be more than 0")
  if length < 0:
    raise UserError(f"data.length={length}: must be at least 0")
  if frames * size * size * channels > _LARGEST:
    raise UserError(
      f"data.frames={frames}: a clip of so many frames of {size} pixels takes "
      f"more than {_LARGEST // 10**6} MB; choose fewer, or smaller ones"
    )
  if not 1 <= sprite <= size:
    raise UserError(
      f"data.sprite={sprite}: the picture must have 1 to {size} pixels, the "
      "side of a frame"
    )
  if "bounce" in kinds and sprite == size:
    raise UserError(
      f"data.sprite={sprite}: as large as a frame, it cannot bounce; make it "
      "smaller, or say motion=drift"
    )


@dataclasses.dataclass(frozen=True)
class Rule:
  """How pictures u8[h, h, C] move.

  Attributes:
    size: side of a frame.
    frames: T.
    kinds: of motion, of which a clip has one.
    speed: the largest, in pixels a frame along an axis.
    stills: make one frame of the T only.
  """

  size: int
  frames: int
  kinds: tuple[str, ...]
  speed: int
  stills: bool = False

  def video(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """u8[T, H, W, C], or u8[H, W, C] of stills; a function of both arguments.
    Around the picture is what is most frequent at its border."""
    kind = self.kinds[int(rng.integers(len(self.kinds)))]
    side = len(picture)
    room = self.size - side
    start = rng.integers(self.size if kind == "drift" else room + 1, size=2)
    velocity = rng.integers(-self.speed, self.speed + 1, size=2)
    if not velocity.any():  # it moves
      velocity[int(rng.integers(2))] = self.speed
    angle = float(rng.uniform(10, 45) * rng.choice([-1, 1]))  # a frame
    ground = _ground(picture)
    times = range(self.frames)
    if self.stills:
      times = [int(rng.integers(self.frames))]
    made = []
    for t in times:
      frame = np.empty((self.size, self.size, picture.shape[-1]), np.uint8)
      frame[...] = ground
      if kind == "turn":
        top, left = start
        frame[top : top + side, left : left + side] = _turned(
          picture, angle * t, ground
        )
      elif kind == "bounce":
        top, left = room - np.abs((start + velocity * t) % (2 * room) - room)
        frame[top : top + side, left : left + side] = picture
      else:
        frame[:side, :side] = picture
        frame = np.roll(frame, start + velocity * t, (0, 1))
      made.append(frame)
    return made[0] if self.stills else np.stack(made)


def _ground(picture: np.ndarray) -> np.ndarray:
  """u8[C]: the middle value of the border of a picture."""
  border = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
  return np.median(np.concatenate(border), axis=0).astype(np.uint8)


def _turned(
  picture: np.ndarray, angle: float, ground: np.ndarray
) -> np.ndarray:
  """The picture, turned against the clock by an angle in degrees."""
  turned = [
    Pictures.fromarray(np.ascontiguousarray(picture[..., c])).rotate(
      angle, Pictures.Resampling.BILINEAR, fillcolor=int(ground[c])
    )
    for c in range(picture.shape[-1])
  ]
  return np.stack([np.asarray(x) for x in turned], -1)


class Moving(Around):
  """Clip i shows picture i modulo their number, as `rule` moves it."""

  def __init__(self, source: Source, rule: Rule, length: int, seed: int):
    super().__init__(source)
    self._rule, self._length, self._seed = rule, length, seed
    if length != len(source) and hasattr(self, "labels"):
      known = self.labels
      self.labels = lambda: np.resize(known(), length)
    if hasattr(self, "label"):
      one = self.label
      self.label = lambda i: one(i % len(source))

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, i: int) -> Example:
    if not 0 <= i < self._length:
      raise IndexError(i)
    return self.draw(i, np.random.default_rng((self._seed, i)))

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    example = dict(self.source[i % len(self.source)])
    made = self._rule.video(example.pop("image"), rng)
    name = "image" if self._rule.stills else "video"
    return {name: made, **example}
