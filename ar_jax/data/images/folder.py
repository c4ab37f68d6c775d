"""The user's own images, one sub-folder per class, or with texts."""

from __future__ import annotations

import pathlib

from PIL import Image

from ar_jax.core import forms
from ar_jax.core.errors import UserError
from ar_jax.data import digests
from ar_jax.data.dataset import Dataset, Source
from ar_jax.data.folders import layout as layouts
from ar_jax.data.folders import parts
from ar_jax.data.images import captions, reader, scan, transforms
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
  text: int = 0,
) -> Dataset:
  """Your own pictures, one sub-folder per class, or with texts.

  From: any folder; `path/CLASS/*.jpg`, or `path/train/CLASS/` and
  `path/test/CLASS/`. With `text` it may be without CLASS: the text of `a.jpg`
  is `a.txt` beside it, or in the `captions.tsv` (`.csv`, `.txt`) of its folder
  or of one above it, a line each: `a.jpg` or `a`, a tab (or bar, comma, space)
  and the text; or in Hugging Face's `metadata.csv` or `metadata.jsonl` with
  `file_name` and `text`.
  Command: --config.data.name=folder --config.data.path=DIR
  Fields: image, label; with `maps`, map; with `text` > 0, text.

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
    skip_bad: leave out pictures that cannot be read, or that lack a text, in
      place of an error.
    maps: a folder of control maps (depth, segments, lines), one for each
      picture: `maps/CLASS/NAME.png` for `path/CLASS/NAME.jpg`, cut as it is.
    text: if positive, adds the field `text`, i32[text]: the UTF-8 bytes of the
      picture's text, cut or filled up with zeros. Where several lines belong
      to a picture, training draws one of them (of units that are stored, one
      for each of `cache.views`), and tests take the first.

  Raises:
    UserError: no such folder, no images, one class only, a class without a
      file that can be read, train and test disagree about the classes,
      pictures that cannot be read, all of them in one line, or without a text
      that is asked for. Damage in the midst of a picture is reported when it
      is read.
  """
  transforms.check_size(size, channels)
  root = parts.root(path, test_fraction, "one sub-folder of images per class")
  tree = scan.pictures(root)
  if classes is None and text > 0 and tree.files:
    single = len({e.parts[0] for e in tree.files}) == 1
    classes = 1 if single or layouts.without_classes(tree) else None
  found = layouts.layout(root, tree, classes)
  train, sizes, bad = _readable(root, found.train, skip_bad)
  test, more, more_bad = _readable(root, found.test, skip_bad)
  sizes += more
  pictures = [e for e, _ in (*train, *test)]
  if text > 0:
    texts, said = captions.found(root, tree, pictures, text, skip_bad)
    sizes = [
      size for e, size in zip(pictures, sizes, strict=True) if e.parts in texts
    ]
    train, test = (
      [(e, k) for e, k in part if e.parts in texts] for part in (train, test)
    )
  else:
    texts, said = {}, captions.unread(tree, pictures)
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
  said = [*bad, *more_bad, *remarks, *said]
  parts.tell("folder", root, tree, found, said)

  def alone(chosen: list[layouts.Labelled]) -> Pictures:
    def read(i: int) -> Image.Image:
      return reader.open_image(chosen[i][0].path, channels)

    return Pictures(
      read, lambda i: chosen[i][1], len(chosen), size=size, crop=crop
    )

  def part(chosen: list[layouts.Labelled]) -> Source:
    if not texts:
      return alone(chosen)
    own = [texts[e.parts] for e, _ in chosen]
    return captions.WithTexts(alone(chosen), own, text)

  of, stats = part, [("train", train), ("test", test)]
  form = {"image": forms.Image()}
  if texts:
    form["text"] = forms.Text()
  if maps:
    beside, form["map"] = Maps(maps, crop), forms.Image()

    def of(chosen: list[layouts.Labelled]) -> WithMaps:
      found = [(e, 0) for e in beside.of([e for e, _ in chosen])]
      stats.append(("maps", found))
      return WithMaps(part(chosen), alone(found))

  parts_of = of(train), of(test)
  digest = digests.of_stats(
    ("/".join((side, *e.parts)), e.size, e.changed)
    for side, files in stats
    for e, _ in files
  )
  if texts:
    digest = digests.fingerprint(digest, sorted(texts.items()))
  return Dataset("folder", *parts_of, len(names), names, digest, forms=form)


def _readable(
  root: pathlib.Path, files: list[layouts.Labelled], skip: bool
) -> tuple[list[layouts.Labelled], list[tuple[int, int]], list[str]]:
  """As `scan.check`, with the labels."""
  label = {e.parts: k for e, k in files}
  good, sizes, said = scan.check(root, [e for e, _ in files], skip=skip)
  return [(e, label[e.parts]) for e in good], sizes, said
