"""The user's own images, one sub-folder per class."""

from __future__ import annotations

import os
import pathlib

import numpy as np
from PIL import Image

from ar_jax.core.system import UserError
from ar_jax.data.dataset import Dataset, split_by_seed
from ar_jax.data.images import transforms
from ar_jax.data.images.pictures import Pictures

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_TEST_NAMES = ("test", "val", "validation")


def folder(
  *,
  size: int,
  channels: int,
  path: str,
  crop: str = "center",
  classes: int | None = None,
  test_fraction: float = 0.1,
) -> Dataset:
  """Images under path/CLASS/, or path/train/CLASS/ and path/test/CLASS/.

  Args:
    size: side in pixels.
    channels: 1 or 3.
    path: the folder. With a `train` sub-folder and one of `test`, `val` or
      `validation`, these are the two parts; otherwise a fixed random part of
      the images is held out.
    crop: "center", or "random" for random crops in training.
    classes: 1 takes every image below `path` as one class, for unconditional
      models; another number is checked against the sub-folders.
    test_fraction: the part held out where there is no test folder.

  Raises:
    UserError: no such folder, no images, one class only, or train and test
      disagree about the classes. A file that is no image is reported when it
      is read.
  """
  root = pathlib.Path(path).expanduser()
  if not path or not root.is_dir():
    raise UserError(
      f"data.path={path!r}: no such folder; name the folder that holds one "
      "sub-folder of images per class"
    )
  test_root = next((root / n for n in _TEST_NAMES if (root / n).is_dir()), None)
  split = (root / "train").is_dir() and test_root is not None
  names, files = _scan(root / "train" if split else root, classes)
  if split:
    test_names, test_files = _scan(test_root, classes)
    if test_names != names:
      raise UserError(
        f"{root}: train has the classes {names} and {test_root.name} has "
        f"{test_names}; both need the same sub-folders"
      )
  else:
    if len(files) < 2:
      raise UserError(f"{root}: one image cannot be split; add more images")
    held = min(max(round(len(files) * test_fraction), 1), len(files) - 1)
    train, test = split_by_seed(len(files), held)
    files, test_files = _pick(files, train), _pick(files, test)

  def part(chosen: list[tuple[str, int]]) -> Pictures:
    def read(i: int) -> tuple[Image.Image, int]:
      file, label = chosen[i]
      return transforms.open_image(file, channels), label

    return Pictures(read, len(chosen), size=size, crop=crop)

  return Dataset("folder", part(files), part(test_files), len(names), names)


def find_images(root: pathlib.Path) -> list[str]:
  """Every image file below `root`, sorted."""
  found = []
  for parent, _, files in os.walk(root, followlinks=True):
    found += [
      os.path.join(parent, f) for f in files if f.lower().endswith(SUFFIXES)
    ]
  return sorted(found)


def _scan(
  root: pathlib.Path, classes: int | None
) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
  """(class names, [(file, label)])."""
  if classes == 1:
    names, groups = (root.name,), [find_images(root)]
  else:
    folders = sorted(f for f in root.iterdir() if f.is_dir())
    found = {f.name: find_images(f) for f in folders}
    names = tuple(name for name, files in found.items() if files)
    groups = [found[name] for name in names]
  if not any(groups):
    hint = "" if classes == 1 else " in class sub-folders"
    loose = classes != 1 and any(
      f.name.lower().endswith(SUFFIXES) for f in root.iterdir()
    )
    more = "; for images without classes set classes=1" if loose else ""
    raise UserError(
      f"{root}: no images{hint}; put {', '.join(SUFFIXES[:4])} files "
      f"there{more}"
    )
  if len(names) == 1 and classes != 1:
    raise UserError(
      f"{root}: only one class sub-folder ({names[0]!r}); add another, or set "
      "classes=1 for an unconditional model"
    )
  if classes not in (None, len(names)):
    raise UserError(
      f"{root}: {len(names)} class sub-folders, but classes={classes}; "
      "mend the one or the other"
    )
  return names, [(f, k) for k, files in enumerate(groups) for f in files]


def _pick(
  files: list[tuple[str, int]], rows: np.ndarray
) -> list[tuple[str, int]]:
  return [files[i] for i in rows]
