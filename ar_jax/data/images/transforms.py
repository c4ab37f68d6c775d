"""Geometry and augmentation, in uint8 with PIL, one example at a time.

Geometry (`resize`, `pad`, `center_crop`, `random_crop`) brings an image to
its final size; augmentation takes a whole example and a generator, and is a
pure function of both:

  augment(example, rng) -> example
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from ar_jax.core.system import UserError
from ar_jax.data.dataset import Example

Augment = Callable[[Example, np.random.Generator], Example]

_MODES = {1: "L", 3: "RGB"}
_LONGEST = 16  # times the short side
_LARGEST = 8192  # beyond it one RGB image takes more than 200 MB


def check_size(size: int, channels: int) -> None:
  """Raises UserError unless images of this side and these channels can be."""
  if not 1 <= size <= _LARGEST:
    raise UserError(
      f"data.size={size}: must lie between 1 and {_LARGEST} pixels"
    )
  if channels not in (1, 3):
    raise UserError(f"data.channels={channels}: must be 1 (grey) or 3 (colour)")


def to_array(image: Image.Image) -> np.ndarray:
  """u8[H, W, C] of a grey or colour image."""
  array = np.asarray(image, np.uint8)
  return array[..., None] if array.ndim == 2 else array


def resize(image: np.ndarray, size: int, channels: int) -> np.ndarray:
  """Bicubic: u8[h, w(, c)] -> u8[size, size, channels]; identity at size."""
  if image.ndim == 3 and image.shape[-1] == 1:
    image = image[..., 0]
  if image.ndim == 2 and image.shape == (size, size):
    return np.repeat(image[..., None], channels, -1)
  picture = Image.fromarray(image)
  if picture.size != (size, size):
    picture = picture.resize((size, size), Image.Resampling.BICUBIC)
  return to_array(picture.convert(_MODES[channels]))


def stretched(image: Image.Image, height: int, width: int) -> np.ndarray:
  """u8[height, width, C], bicubically, whatever the proportions of an image."""
  if image.size != (width, height):
    image = image.resize((width, height), Image.Resampling.BICUBIC)
  return to_array(image)


def pad(image: np.ndarray, size: int, channels: int) -> np.ndarray:
  """Black margins: u8[h, w(, c)] -> u8[size, size, channels], h, w <= size."""
  height, width = image.shape[:2]
  top, left = (size - height) // 2, (size - width) // 2
  padded = np.zeros((size, size, channels), np.uint8)
  inside = padded[top : top + height, left : left + width]
  inside[...] = image.reshape(height, width, -1)
  return padded


def fit_inside(image: Image.Image, size: int) -> Image.Image:
  """The image, made smaller if need be so that no side exceeds `size`."""
  if max(image.size) <= size:
    return image
  scale = size / max(image.size)
  shape = tuple(max(1, round(side * scale)) for side in image.size)
  return image.resize(shape, Image.Resampling.BICUBIC)


def short_side(image: Image.Image, size: int) -> Image.Image:
  """Resizes so that the short side is `size`, keeping the proportions.

  Halves with a box filter while possible, then bicubically: the ADM recipe
  (Dhariwal and Nichol 2021), which every published ImageNet figure assumes.
  Of a strip of more than 16 times its width, the middle 16 are taken first:
  what is cut out of it would not show the rest.
  """
  short = min(image.size)
  if max(image.size) > _LONGEST * short:
    keep = [min(side, _LONGEST * short) for side in image.size]
    left, top = ((a - b) // 2 for a, b in zip(image.size, keep, strict=True))
    image = image.crop((left, top, left + keep[0], top + keep[1]))
  while min(image.size) >= 2 * size:
    half = (image.width // 2, image.height // 2)
    image = image.resize(half, Image.Resampling.BOX)
  scale = size / min(image.size)
  shape = tuple(max(size, round(side * scale)) for side in image.size)
  if shape == image.size:
    return image
  return image.resize(shape, Image.Resampling.BICUBIC)


def center_crop(image: Image.Image, size: int) -> np.ndarray:
  """ADM's central square: `short_side`, then the middle."""
  image = short_side(image, size)
  left, top = (image.width - size) // 2, (image.height - size) // 2
  return to_array(image.crop((left, top, left + size, top + size)))


def cover(image: Image.Image, size: int | tuple[int, int]) -> np.ndarray:
  """VTBench's central rectangle (arXiv 2505.13439): by Lanczos to the least
  size that covers it, then the middle.

  Args:
    image: any.
    size: of a square, or (width, height).
  """
  wanted = (size, size) if isinstance(size, int) else size
  scale = max(w / side for w, side in zip(wanted, image.size, strict=True))
  # Never a pixel too small.
  shape = tuple(
    max(w, round(side * scale))
    for w, side in zip(wanted, image.size, strict=True)
  )
  if shape != image.size:
    image = image.resize(shape, Image.Resampling.LANCZOS)
  left, top = ((a - b) // 2 for a, b in zip(shape, wanted, strict=True))
  return to_array(image.crop((left, top, left + wanted[0], top + wanted[1])))


def random_crop(
  image: Image.Image,
  size: int,
  rng: np.random.Generator,
  smallest: float = 0.8,
) -> np.ndarray:
  """ADM's random crop: the window is `smallest` to 1 times the short side."""
  short = int(rng.integers(size, math.ceil(size / smallest) + 1))
  image = short_side(image, short)
  left = int(rng.integers(image.width - size + 1))
  top = int(rng.integers(image.height - size + 1))
  return to_array(image.crop((left, top, left + size, top + size)))


def flip(example: Example, rng: np.random.Generator) -> Example:
  """Mirrors left and right, half of the time."""
  fields = _pixels(example)
  if rng.random() < 0.5:
    return example
  mirrored = {
    k: np.ascontiguousarray(v[..., ::-1, :]) for k, v in fields.items()
  }
  return {**example, **mirrored}


def shift(example: Example, rng: np.random.Generator) -> Example:
  """A random crop after reflecting an eighth of the image at each border."""
  fields = _pixels(example)
  sides = {v.shape[-3:-1] for v in fields.values()}
  if len(sides) > 1:
    raise UserError(
      f"augment='shift': {', '.join(fields)} are of several sizes, and no "
      "shift is whole pixels of all; leave it out"
    )
  height, width = next(iter(sides))
  margin = max(height // 8, 1)
  mode = "reflect" if height > 1 else "edge"
  top, left = rng.integers(2 * margin + 1, size=2)

  def moved(x: np.ndarray) -> np.ndarray:
    around = [(0, 0)] * (x.ndim - 3) + [(margin, margin)] * 2 + [(0, 0)]
    wide = np.pad(x, around, mode)
    inside = wide[..., top : top + height, left : left + width, :]
    return np.ascontiguousarray(inside)

  return {**example, **{k: moved(v) for k, v in fields.items()}}


def _pixels(example: Example) -> Example:
  """The fields that are pixels, u8[..., H, W, C]: they are moved alike, for an
  image and what is made of it belong together, as the frames of a video do."""
  found = {
    k: v
    for k, v in example.items()
    if getattr(v, "dtype", None) == np.uint8 and v.ndim >= 3
  }
  if not found:
    raise UserError(
      "augment: these examples hold no pixels, and units cannot be flipped or "
      "shifted; write the cache with views > 1 instead"
    )
  return found


_AUGMENTS: dict[str, Augment] = {"flip": flip, "shift": shift}


def augmentation(*names: str) -> Augment | None:
  """The named augmentations one after the other; None for no name.

  Args:
    *names: of "flip" and "shift".

  Raises:
    UserError: there is no augmentation of that name.
  """
  for name in names:
    if name not in _AUGMENTS:
      raise UserError(
        f"augment={name!r}: unknown, use one of {', '.join(_AUGMENTS)}"
      )
  if not names:
    return None

  def augment(example: Example, rng: np.random.Generator) -> Example:
    for name in names:
      example = _AUGMENTS[name](example, rng)
    return example

  return augment
