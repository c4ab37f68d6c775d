"""The user's own images, one sub-folder per class."""

from __future__ import annotations

import pathlib

from PIL import Image

from ar_jax.core import forms
from ar_jax.core.errors import UserError
from ar_jax.data import digests
from ar_jax.data.dataset import Dataset
from ar_jax.data.folders import layout as layouts
from ar_jax.data.folders import parts
from ar_jax.data.images import reader, scan, transforms
from ar_jax.data.images.maps import Maps, WithMaps
from ar_jax.data.images.pictures import Pictures


def folder(
  *,
  size: int,
  channels: int = 3,
  path: str = "",
  crop: str = "center",
  classes: int | None = None,
  test_fraction: float = 0.1,
  skip_bad: bool = False,
  maps: str = "",
) -> Dataset:
  """Your own pictures, one sub-folder per class.

  From: any folder; `path/CLASS/*.jpg`, or `path/train/CLASS/` and
  `path/test/CLASS/`.
  Command: --config.data.name=folder --config.data.path=DIR
  Fields: image, label; with `maps`, map.

  All of the folder is looked at before anything is read, and one line says
  what was found: how many pictures, which classes, what was left out. Classes
  are numbered by the order of their names. Hidden folders and those that
  systems make (`__MACOSX`, `@eaDir`, `.Trash-1000`) are passed over.

  Args:
    size: side in pixels.
    channels: 1 or 3.
    path: the folder. With a `train` or `training` sub-folder and one of
      `test`, `testing`, `val`, `valid`, `validation` and `eval`, in any case,
      these are the two parts, the first of the latter that has the class
      folders; otherwise a fixed random part of the images is held out.
    crop: "center", "cover" for the same by Lanczos (as VTBench does it),
      "random" for random crops in training, or "pad" for black margins around
      what is smaller (what is larger is made smaller).
    classes: 1 takes every image below `path` as one class, for unconditional
      models; another number is checked against the sub-folders.
    test_fraction: the part held out where there is no test folder, 0 to 1.
    skip_bad: leave out pictures that cannot be read, in place of an error.
    maps: a folder of control maps (depth, segments, lines), one for each
      picture: `maps/CLASS/NAME.png` for `path/CLASS/NAME.jpg`, cut as it is.

  Raises:
    UserError: no such folder, no images, one class only, a class without a
      file that can be read, train and test disagree about the classes, or
      pictures that cannot be read, all of them in one line. Damage in the
      midst of a picture is reported when it is read.
  """
  transforms.check_size(size, channels)
  root = parts.root(path, test_fraction, "one sub-folder of images per class")
  tree = scan.pictures(root)
  found = layouts.layout(root, tree, classes)
  train, sizes, bad = _readable(root, found.train, skip_bad)
  test, more, more_bad = _readable(root, found.test, skip_bad)
  sizes += more
  parts.check_classes(root, found.names, train, "picture")
  remarks: list[str] = []
  if not found.test:
    train, test, remarks = parts.hold_out(root, train, test_fraction)
  elif not test:
    raise UserError(f"{root}: no picture for test that can be read")
  small = sum(min(s) < size for s in sizes) if crop != "pad" else 0
  if small:
    remarks.append(f"{small} smaller than {size} pixels are enlarged")
  names = found.names
  found = layouts.Layout(names, train, test, found.remarks)
  parts.tell("folder", root, tree, found, [*bad, *more_bad, *remarks])

  def part(chosen: list[layouts.Labelled]) -> Pictures:
    def read(i: int) -> Image.Image:
      return reader.open_image(chosen[i][0].path, channels)

    return Pictures(
      read, lambda i: chosen[i][1], len(chosen), size=size, crop=crop
    )

  of, stats = part, [("train", train), ("test", test)]
  form = {"image": forms.Image()}
  if maps:
    beside, form["map"] = Maps(maps, crop), forms.Image()

    def of(chosen: list[layouts.Labelled]) -> WithMaps:
      found = [(e, 0) for e in beside.of([e for e, _ in chosen])]
      stats.append(("maps", found))
      return WithMaps(part(chosen), part(found))

  parts_of = of(train), of(test)
  digest = digests.of_stats(
    ("/".join((side, *e.parts)), e.size, e.changed)
    for side, files in stats
    for e, _ in files
  )
  return Dataset("folder", *parts_of, len(names), names, digest, forms=form)


def _readable(
  root: pathlib.Path, files: list[layouts.Labelled], skip: bool
) -> tuple[list[layouts.Labelled], list[tuple[int, int]], list[str]]:
  """As `scan.check`, with the labels."""
  label = {e.parts: k for e, k in files}
  good, sizes, said = scan.check(root, [e for e, _ in files], skip=skip)
  return [(e, label[e.parts]) for e in good], sizes, said
