"""Crops of large photographs, for tokenizers and scale models.

The pictures are the samples that scikit-learn and scikit-image ship, and the
wallpapers of GNOME and KDE where these are installed.
"""

from __future__ import annotations

import pathlib
import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from ar_jax.core.system import UserError
from ar_jax.data.dataset import Dataset, Example
from ar_jax.data.images import transforms
from ar_jax.data.images.folder import find_images

_WALLPAPERS = ("/usr/share/backgrounds/gnome", "/usr/share/wallpapers")
_LIMIT = 1024  # pictures are held in memory, with this short side at most
_HELD_OUT = ("astronaut", "flower")

Open = Callable[[], Image.Image]


def photos(
  *,
  size: int,
  channels: int,
  path: str,
  length: int = 4096,
  folders: Sequence[str] = _WALLPAPERS,
) -> Dataset:
  """Square windows of random place and scale; one class.

  Training and test windows come from different pictures, and pictures that
  are versions of each other (day and night, resolutions) stay together.

  Args:
    size: side in pixels; windows are at least as large.
    channels: 1 or 3.
    path: another folder of pictures, in place of `folders`.
    length: windows per epoch; an eighth of it for test.
    folders: of wallpapers; those that do not exist are passed over.

  Raises:
    UserError: no picture is large enough.
  """
  if length < 1:
    raise UserError(f"data.length={length}: must be at least 1")
  if path and not pathlib.Path(path).is_dir():
    raise UserError(f"data.path={path!r}: no such folder of pictures")
  found = {**_samples(), **_wallpapers((path,) if path else folders)}
  parts = []
  for held_out in (False, True):
    opened = [f for n, f in sorted(found.items()) if _is_test(n) == held_out]
    pictures = [_decode(load, channels, size) for load in opened]
    largest = max(min(p.size) for p in pictures)
    if largest < size:
      raise UserError(
        f"data.size={size}: the largest picture has {largest} pixels; choose "
        "a smaller size or give larger pictures with data.path"
      )
    large = [p for p in pictures if min(p.size) >= size]
    count = max(length // 8, 1) if held_out else length
    parts.append(_Windows(large, size, count, seed=int(held_out)))
  return Dataset("photos", *parts, 1, ("photo",))


def _is_test(name: str) -> bool:
  """By the name alone, so that new pictures move no others."""
  return name in _HELD_OUT or zlib.crc32(name.encode()) % 8 == 0


def _samples() -> dict[str, Open]:
  import skimage.data
  from sklearn import datasets  # slow to import

  names = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "rocket")
  arrays = {name: getattr(skimage.data, name) for name in names}
  for name in ("china", "flower"):
    arrays[name] = lambda n=name: datasets.load_sample_image(f"{n}.jpg")
  return {
    name: lambda load=load: Image.fromarray(load())
    for name, load in arrays.items()
  }


def _wallpapers(folders: Sequence[str]) -> dict[str, Open]:
  """One file, the largest, of every picture found."""
  best: dict[str, pathlib.Path] = {}
  for folder in folders:
    for file in map(pathlib.Path, find_images(pathlib.Path(folder))):
      first = file.relative_to(folder).parts[0]
      name = re.sub(r"-(d|l|dark|light)$", "", pathlib.Path(first).stem)
      if name not in best or file.stat().st_size > best[name].stat().st_size:
        best[name] = file
  return {
    name: lambda file=file: transforms.open_image(file, 3)
    for name, file in best.items()
  }


def _decode(load: Open, channels: int, size: int) -> Image.Image:
  image = transforms.convert(load(), channels)
  short = max(_LIMIT, size)
  return (
    transforms.short_side(image, short) if min(image.size) > short else image
  )


class _Windows:
  """Example i is a fixed window; `draw` gives a new one each time."""

  def __init__(
    self, pictures: list[Image.Image], size: int, length: int, seed: int
  ):
    self._pictures, self._size = pictures, size
    self._length, self._seed = length, seed

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, i: int) -> Example:
    if not 0 <= i < self._length:
      raise IndexError(i)
    return self.draw(i, np.random.default_rng((self._seed, i)))

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    image = self._pictures[i % len(self._pictures)]
    low, high = np.log(self._size), np.log(min(image.size))
    side = max(self._size, int(np.exp(rng.uniform(low, high))))
    left = int(rng.integers(image.width - side + 1))
    top = int(rng.integers(image.height - side + 1))
    window = image.crop((left, top, left + side, top + side))
    window = transforms.center_crop(window, self._size)
    return {"image": window, "label": np.int32(0)}
