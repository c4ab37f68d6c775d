"""Crops of large photographs, for tokenizers and scale models."""

from __future__ import annotations

import pathlib
import re
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ar_jax.core.errors import UserError
from ar_jax.data import digests, notes
from ar_jax.data.dataset import Dataset, Example
from ar_jax.data.folders import walk
from ar_jax.data.images import reader, scan, transforms

_WALLPAPERS = ("/usr/share/backgrounds/gnome", "/usr/share/wallpapers")
_LIMIT = 1024  # pictures are held in memory, with this short side at most
_MEMORY = 8e9  # bytes of all of them
_HELD_OUT = ("astronaut", "flower")


class _Picture(NamedTuple):
  """One that may be opened.

  Attributes:
    name: what it shows; versions of a picture have one name.
    where: for messages.
    load: opens it.
    entry: its file, if it is one.
  """

  name: str
  where: str
  load: Callable[[], Image.Image]
  entry: walk.Entry | None = None


def photos(
  *,
  size: int,
  channels: int = 3,
  path: str = "",
  length: int = 4096,
  folders: Sequence[str] = _WALLPAPERS,
  samples: bool = True,
  skip_bad: bool = False,
) -> Dataset:
  """Square windows of random place and scale in large pictures; one class.

  From: scikit-learn's and scikit-image's sample pictures, and the Debian
  packages `gnome-backgrounds` and `plasma-workspace-wallpapers`, where these
  are installed; or a folder of your own pictures.
  Command: --config.data.name=photos (--config.data.path=DIR)
  Fields: image, label (always 0).

  Training and test windows come from different pictures, and pictures that
  are versions of each other (day and night, resolutions) stay together.

  Args:
    size: side in pixels; windows are at least as large.
    channels: 1 or 3.
    path: another folder of pictures, in place of `folders`; all pictures in
      it and below are taken.
    length: windows per epoch; an eighth of it for test.
    folders: of wallpapers, of which the largest file of each is taken; those
      that do not exist are passed over.
    samples: whether the sample pictures are among them.
    skip_bad: leave out pictures that cannot be read, in place of an error.

  Raises:
    UserError: no picture is large enough, some cannot be read, or all of them
      are too many to be held in memory.
  """
  transforms.check_size(size, channels)
  if length < 1:
    raise UserError(f"data.length={length}: must be at least 1")
  own = pathlib.Path(path).expanduser() if path else None
  if own is not None and not own.is_dir():
    raise UserError(f"data.path={path!r}: no such folder of pictures")
  found = _samples() if samples else []
  said: list[str] = []
  if own is not None:
    more, said = _own(own, skip_bad)
    found += more
  else:
    found += [p for f in folders for p in _wallpapers(pathlib.Path(f))]
  if not found:
    raise UserError(
      "photos: no pictures; give a folder of them with data.path, or set "
      "data.samples=True"
    )
  held_out = _held_out([p.name for p in found], own is not None and not samples)
  _check_memory(found, channels)
  parts = []
  for side in (False, True):
    chosen = [p for p in found if (p.name in held_out) == side]
    chosen.sort(key=lambda p: (p.name, p.where))
    if not chosen:
      raise UserError(
        f"photos: {len(found)} pictures of one name cannot be divided into "
        "training and test; add another"
      )
    decoded = {p.where: _decode(p.load, channels, size) for p in chosen}
    large = {w: p for w, p in decoded.items() if min(p.size) >= size}
    if not large:
      largest = max(min(p.size) for p in decoded.values())
      raise UserError(
        f"data.size={size}: the largest picture has {largest} pixels; choose "
        "a smaller size or give larger pictures with data.path"
      )
    small = [w for w in decoded if w not in large]
    if small:
      said.append(
        f"{len(small)} smaller than {size} pixels: {notes.listed(small, 3)}"
      )
    count = max(length // 8, 1) if side else length
    parts.append(_Windows([*large.values()], size, count, seed=int(side)))
  notes.once(
    f"photos: {parts[0].pictures} + {parts[1].pictures} pictures"
    + (f" of {own}" if own is not None else "")
    + (", samples included" if samples and own is not None else "")
    + (f"; skipped {'; '.join(said)}" if said else "")
  )
  digest = digests.of_stats(
    ("/".join(p.entry.parts), p.entry.size, p.entry.changed)
    for p in found
    if p.entry is not None
  )
  return Dataset("photos", *parts, 1, ("photo",), digest)


def _held_out(names: Sequence[str], one_at_least: bool) -> set[str]:
  """By the name alone, so that new pictures move no others."""
  checksum = lambda name: zlib.crc32(name.encode("utf-8", "replace"))
  chosen = {n for n in names if n in _HELD_OUT or checksum(n) % 8 == 0}
  if one_at_least and not chosen:
    chosen = {min(names, key=lambda n: (checksum(n) % 8, checksum(n), n))}
  return chosen


def _samples() -> list[_Picture]:
  import skimage.data
  from sklearn import datasets  # slow to import

  names = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "rocket")
  arrays = {name: getattr(skimage.data, name) for name in names}
  for name in ("china", "flower"):
    arrays[name] = lambda n=name: datasets.load_sample_image(f"{n}.jpg")
  return [
    _Picture(name, name, lambda load=load: Image.fromarray(load()))
    for name, load in arrays.items()
  ]


def _own(
  folder: pathlib.Path, skip_bad: bool
) -> tuple[list[_Picture], list[str]]:
  """Every picture of the user's folder, and what to tell of the rest."""
  tree = scan.pictures(folder)
  good, _, said = scan.check(folder, tree.files, skip=skip_bad)
  if not good:
    raise UserError(
      f"{folder}: no pictures that can be read; put "
      f"{', '.join(scan.suffixes()[:6])} ... files there"
    )
  made = []
  for e in good:
    stem = re.sub(r"-(d|l|dark|light)$", "", pathlib.Path(e.parts[-1]).stem)
    made.append(_opened("/".join((*e.parts[:-1], stem)), e))
  rest = walk.skipped(tree)
  return made, ([rest] if rest else []) + said


def _wallpapers(folder: pathlib.Path) -> list[_Picture]:
  """One file, the largest, of every wallpaper: these come in many sizes."""
  if not folder.is_dir():
    return []
  best: dict[str, walk.Entry] = {}
  for e in scan.pictures(folder).files:
    stem = pathlib.Path(e.parts[0]).stem
    name = re.sub(r"-(d|l|dark|light)$", "", stem)
    if name not in best or e.size > best[name].size:
      best[name] = e
  return [_opened(name, e) for name, e in best.items()]


def _opened(name: str, e: walk.Entry) -> _Picture:
  return _Picture(name, e.name, lambda: reader.open_image(e.path, 3), e)


def _check_memory(found: Sequence[_Picture], channels: int) -> None:
  """Raises UserError if the pictures are more than memory should hold."""
  most = 0.0
  for p in found:
    if p.entry is not None:
      width, height = reader.look(p.entry.path, whole=False)[1]
      shrunk = min(1.0, _LIMIT / max(min(width, height), 1))
      most += width * height * shrunk**2 * channels
  if most > _MEMORY:
    raise UserError(
      f"photos: {len(found)} pictures are held in memory and would take "
      f"{most / 1e9:.0f} GB; use data.name=folder with classes=1 and "
      "crop=random, or fewer pictures"
    )


def _decode(
  load: Callable[[], Image.Image], channels: int, size: int
) -> Image.Image:
  image = reader.convert(load(), channels)
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

  @property
  def pictures(self) -> int:
    return len(self._pictures)

  def __len__(self) -> int:
    return self._length

  def label(self, i: int) -> int:
    return 0

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
