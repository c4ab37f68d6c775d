"""Pictograms from the npm packages `emoji-datasource-STYLE`.

A package holds `emoji.json` and one sheet of 64-pixel cells, each with a
margin of one pixel.
"""

from __future__ import annotations

import functools
import json
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Image, Text
from ar_jax.data import digests
from ar_jax.data.dataset import Arrays, Dataset, utf8
from ar_jax.data.images import reader, transforms

_CELL = 64
_STYLES = ("google", "twitter", "apple", "facebook")


class _Sign(NamedTuple):
  box: tuple[int, int, int, int]
  category: str
  name: str
  held_out: bool


def emoji(
  *,
  size: int,
  channels: int = 3,
  path: str = "",
  styles: Sequence[str] = ("google",),
  text: int = 0,
) -> Dataset:
  """About 3,700 pictograms in each style, on white; the class is the group.

  From: the npm packages `emoji-datasource-STYLE`.
  Command: npm install emoji-datasource-google, then
    --config.data.name=emoji --config.data.path=FOLDER
  Fields: image, label, style, with `text` > 0 also text.

  A tenth of the signs is held out, by their code point: all skin tones and
  all styles of a sign are in the same part.

  Args:
    size: side in pixels; the originals have 64.
    channels: 1 or 3.
    path: folder that holds the packages, or a `node_modules` with them; by
      default ./node_modules.
    styles: of "google", "twitter", "apple" and "facebook". The field `style`,
      i32[], is the place in this list.
    text: if positive, adds the field `text`, i32[text]: the UTF-8 bytes of the
      sign's name, cut or filled up with zeros.

  Raises:
    UserError: a style is unknown, or its package missing or damaged.
  """
  transforms.check_size(size, channels)
  packages = {style: _find(style, path) for style in styles}
  sheets = [_read(package, style) for style, package in packages.items()]
  if not sheets:
    raise UserError("data.styles: name at least one style")
  signs = [sign for _, found in sheets for sign in found]
  names = tuple(sorted({sign.category for sign in signs}))
  image = np.concatenate([cells for cells, _ in sheets])
  label = np.asarray([names.index(sign.category) for sign in signs])
  extra = {
    "style": np.repeat(
      np.arange(len(sheets), dtype=np.int32), [len(f) for _, f in sheets]
    )
  }
  if text > 0:
    extra["text"] = np.stack([utf8(sign.name, text) for sign in signs])
  fit = functools.partial(transforms.resize, size=size, channels=channels)
  held_out = np.asarray([sign.held_out for sign in signs])

  def part(rows: np.ndarray) -> Arrays:
    fields = {"image": image[rows], "label": label[rows]}
    fields |= {k: v[rows] for k, v in extra.items()}
    return Arrays(fields, {"image": fit}, num_classes=len(names), where="emoji")

  digest = ",".join(
    digests.of_files(package, [package / "emoji.json", _sheet(package, style)])
    for style, package in packages.items()
  )
  forms = {"image": Image()} | ({"text": Text()} if text > 0 else {})
  return Dataset(
    "emoji", part(~held_out), part(held_out), len(names), names, digest, forms
  )


def _find(style: str, path: str) -> pathlib.Path:
  if style not in _STYLES:
    raise UserError(
      f"data.styles: {style!r} is unknown, use some of {', '.join(_STYLES)}"
    )
  package = f"emoji-datasource-{style}"
  root = pathlib.Path(path or ".").expanduser()
  for place in (root / package, root / "node_modules" / package):
    if place.is_dir():
      return place
  raise UserError(
    f"emoji: no {package} in {root.resolve()}; run `npm install {package}` "
    "there, or name its folder with data.path"
  )


def _sheet(package: pathlib.Path, style: str) -> pathlib.Path:
  return package / "img" / style / "sheets" / f"{_CELL}.png"


def _read(package: pathlib.Path, style: str) -> tuple[np.ndarray, list[_Sign]]:
  """(cells u8[N, 64, 64, 3], what they show)."""
  listing = package / "emoji.json"
  try:
    entries = json.loads(listing.read_text(encoding="utf-8"))
    signs = [s for entry in entries for s in _signs(entry, style)]
  except (OSError, ValueError, KeyError, TypeError) as e:
    raise UserError(
      f"{listing}: missing or damaged ({e!r}); run npm install "
      f"{package.name} again"
    ) from e
  file = _sheet(package, style)
  sheet = reader.open_image(file, 3)
  right, low = np.max([s.box[2:] for s in signs], axis=0, initial=0)
  if not signs or right > sheet.width or low > sheet.height:
    raise UserError(
      f"{file}: does not fit {listing.name}; run npm install {package.name} "
      "again"
    )
  cells = np.stack([np.asarray(sheet.crop(s.box)) for s in signs])
  return cells, signs


def _signs(entry: dict[str, Any], style: str) -> list[_Sign]:
  """The sign of an entry of emoji.json, and its skin tones."""
  # The remainder of a checksum: fixed for ever, whatever else is added.
  held_out = zlib.crc32(entry["unified"].encode()) % 10 == 0
  found = []
  for one in (entry, *entry.get("skin_variations", {}).values()):
    if one[f"has_img_{style}"]:
      left, top = (
        1 + at * (_CELL + 2) for at in (one["sheet_x"], one["sheet_y"])
      )
      box = (left, top, left + _CELL, top + _CELL)
      name = entry["name"] or entry["short_name"]
      found.append(_Sign(box, entry["category"], name.lower(), held_out))
  return found
