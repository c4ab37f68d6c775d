"""What a person looks at or listens to, for every form of data.

  picture(form, x)         one image of samples of a field: what TensorBoard
                           shows, and samples.png
  write(folder, stem, ..)  the files that the form has beside it: GIF, WAV,
                           .txt, .csv, .obj
  fields(folder, ...)      both, for all fields that a system made

PIL and the standard library draw and write all of them. Every file is written
beside its place and then moved there, so that a reader sees the old one or the
whole new one.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from ar_jax.core import forms
from ar_jax.show import (
  audio,
  image,
  peaks,
  reading,
  series,
  skeleton,
  text,
  video,
)
from ar_jax.show.files import save_png

_MODULES = {
  forms.Image: image,
  forms.Video: video,
  forms.Audio: audio,
  forms.Text: text,
  forms.Series: series,
  forms.Skeleton: skeleton,
  forms.Peaks: peaks,
}

MOST = 64  # files of one kind that are written at once


def picture(
  form: forms.Form,
  x: np.ndarray,
  beside: Mapping[str, np.ndarray] | None = None,
  *,
  columns: int = 8,
  truth: np.ndarray | None = None,
  of: Mapping[str, forms.Form] | None = None,
  names: Sequence[str] = (),
  scale: int = 1,
) -> np.ndarray:
  """One image of samples, u8[H, W, c].

  Args:
    form: of the field.
    x: [N, ...], as `sample` returned or as it is stored.
    beside: the conditions, and the other fields of the samples, [N, ...].
    columns: samples in a row, at most; and as many rows. What is wide, as a
      sound, has fewer.
    truth: [N, ...], to be drawn below a series, written below a text, or shown
      behind an image that was made of another.
    of: forms of what is beside; a text stands beside the first picture, sound
      or spectrum among them, and below a picture that was made of it.
    names: of the classes; they stand before the pictures and videos of these.
    scale: by which the pixels of images and videos are enlarged.
  """
  beside, x, of = dict(beside or {}), form.stored(x), of or {}
  if isinstance(form, forms.Text) and reading.sources(beside, of):
    return reading.picture(form, x, beside, of, truth)
  module, pixels = _MODULES[type(form)], {}
  if isinstance(form, forms.Image | forms.Video):
    texts = _texts(beside, of)
    pixels = dict(texts=texts, names=names, scale=scale)
  return module.picture(form, x, beside, columns=columns, truth=truth, **pixels)


def _texts(
  beside: Mapping[str, np.ndarray], of: Mapping[str, forms.Form]
) -> list[str]:
  """What the texts beside samples say, one for each sample; [] without any."""
  found = [
    list(map(of[k].read, x))
    for k, x in beside.items()
    if isinstance(of.get(k), forms.Text)
  ]
  return [" / ".join(all_of) for all_of in zip(*found, strict=True)]


def write(
  folder: pathlib.Path,
  stem: str,
  form: forms.Form,
  x: np.ndarray,
  beside: Mapping[str, np.ndarray] | None = None,
  *,
  columns: int = 8,
  most: int = MOST,
) -> list[pathlib.Path]:
  """Writes the files that a form has beside its picture.

  Video: `stem.gif`, the samples side by side. Audio: `stem.000.wav` and so on.
  Text: `stem.txt`. Series and peaks: `stem.csv`. Skeleton: `stem.000.obj` and
  so on, joints as points and bones as lines.

  Args:
    folder, stem: where, and how their names begin.
    form, x, beside, columns: as in `picture`.
    most: samples that get a file of their own, where a form has one for each.

  Returns:
    The files.
  """
  module = _MODULES[type(form)]
  return module.write(
    folder, stem, form, form.stored(x), dict(beside or {}), columns, most
  )


def said(form: forms.Form | None, x: np.ndarray) -> tuple[str, str]:
  """What samples are and how large, in words: ("images", "8x8 pixels")."""
  if form is None:
    return "samples", f"shape {'x'.join(map(str, x.shape[1:])) or 'none'}"
  return _MODULES[type(form)].said(form, x)


@dataclasses.dataclass(frozen=True)
class Shown:
  """A field that was shown.

  Attributes:
    name: of the field.
    picture: u8[H, W, c], as `picture` makes it.
    png: the file that holds it.
    files: the others.
  """

  name: str
  picture: np.ndarray
  png: pathlib.Path
  files: list[pathlib.Path]


def fields(
  folder: pathlib.Path,
  stem: str,
  made: Mapping[str, np.ndarray],
  of: Mapping[str, forms.Form],
  cond: Mapping[str, np.ndarray],
  *,
  columns: int = 8,
  scale: int = 1,
  most: int = MOST,
  truth: Mapping[str, np.ndarray] | None = None,
  names: Sequence[str] = (),
) -> list[Shown]:
  """Shows every field that has a form: `stem.png` and the other files of the
  first one, `stem.NAME.png` and so on of the others.

  Args:
    folder, stem: where, and how the names of the files begin.
    made: what a system made.
    of: the forms of the data.
    cond: the conditions.
    columns, most: as in `write`.
    scale, names: as in `picture`.
    truth: of fields that `takes_truth` names.

  Returns:
    The fields, in order; the picture of the first is written last.
  """
  found = []
  for i, (name, x) in reversed(list(enumerate(made.items()))):
    if name not in of:
      continue
    form, own = of[name], stem if i == 0 else f"{stem}.{name}"
    others = {k: v for k, v in made.items() if k != name}
    beside = {**cond, **others}
    drawn = picture(
      form,
      x,
      beside,
      columns=columns,
      truth=(truth or {}).get(name),
      of={k: of[k] for k in cond if k in of},
      names=names,
      scale=scale,
    )
    files = write(folder, own, form, x, beside, columns=columns, most=most)
    png = folder / f"{own}.png"
    save_png(png, drawn)
    found.append(Shown(name, drawn, png, files))
  return found[::-1]


def takes_truth(
  name: str, of: Mapping[str, forms.Form], needs: Sequence[str]
) -> bool:
  """Whether the truth of a field is drawn: of a series, of a text that is read
  of one of the fields that a system needs, and of an image that is made of
  another one."""
  form = of.get(name)
  if isinstance(form, forms.Text):
    return bool(reading.sources(needs, of))
  if isinstance(form, forms.Image):
    made_of = [k for k in needs if isinstance(of.get(k), forms.Image)]
    return bool(made_of) and name not in needs
  return isinstance(form, forms.Series)
