"""Images: a grid."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from ar_jax.conditions import by_class
from ar_jax.core.forms import Image
from ar_jax.show import captions
from ar_jax.show.sheet import enlarged


def grid(images: np.ndarray, columns: int) -> np.ndarray:
  """u8[N, H, W, C] -> one u8 image, row by row, with a thin white line."""
  n, h, w, c = images.shape
  rows = -(-n // columns)
  sheet = np.full((rows * (h + 1) + 1, columns * (w + 1) + 1, c), 255, np.uint8)
  for i, image in enumerate(images):
    y, x = divmod(i, columns)
    y, x = y * (h + 1) + 1, x * (w + 1) + 1
    sheet[y : y + h, x : x + w] = image
  return sheet


def picture(
  form: Image,
  x: np.ndarray,
  beside: dict,
  *,
  columns: int,
  truth: np.ndarray | None = None,
  texts: Sequence[str] = (),
  names: Sequence[str] = (),
  scale: int = 1,
) -> np.ndarray:
  """The grid of samples: `columns` of each class per row, others in order.
  Where a system reads an image or follows a picture, that comes before what
  was drawn, and the true one behind it where it is known; and between them, of
  an edited one, what is kept, with the rest faded.

  Args:
    form, x, beside: as in `show.picture`.
    columns: samples in a row, and rows, at most.
    truth: as there.
    texts: of the samples, written below them, or above all of them if they
      have one text; () for none.
    names: of the classes, written before their rows.
    scale: by which pixels are enlarged.
  """
  del form
  parts = _parts(x, beside, truth)
  across = max(1, columns // len(parts))
  n = min(across * across * len(parts), *map(len, parts))
  parts, rows = [part[:n] for part in parts], []
  if "label" in beside and len(parts) == 1 and not texts:
    chosen, across = by_class(beside["label"], columns)
    parts = [x[chosen]]
    texts = named(np.asarray(beside["label"])[chosen], names)
    rows = texts[::across]
    if rows and texts == [row for row in rows for _ in range(across)]:
      texts = ()
    else:
      rows = []
  if len(set(texts[:n])) > 1:
    tiles = np.concatenate(parts, 2)
    return grid(captions.below(tiles, texts[:n], scale), across)
  every = np.stack(parts, 1).astype(np.uint8)
  sheet = grid(every.reshape(-1, *x.shape[1:]), across * len(parts))
  sheet = enlarged(sheet, scale)
  if rows:
    return captions.before(sheet, rows)
  return captions.above(sheet, texts[0]) if texts else sheet


def _parts(x: np.ndarray, beside: dict, truth) -> list[np.ndarray]:
  """u8[n, H, W, c] each: what is shown of a sample, side by side."""
  original = beside.get("image", beside.get("given", _followed(x, beside)))
  if original is None or original.shape != x.shape:
    return [x]
  parts = [original, x]
  if "keep" in beside:
    kept = np.asarray(beside["keep"])[..., None] > 0
    parts.insert(1, np.where(kept, original, 192 + original // 4))
  # What a tokenizer reads is what is true.
  if truth is None or np.array_equal(truth, original[: len(truth)]):
    return parts
  return [*parts, truth]


def named(label: np.ndarray, names: Sequence[str]) -> list[str]:
  """The names of these classes; [] where nobody knows them."""
  if not len(names):
    return []
  # Behind the last class there is what stands for none.
  return [names[i] if i < len(names) else "no class" for i in label.tolist()]


def _followed(x: np.ndarray, beside: dict) -> np.ndarray | None:
  """u8, of the shape of x: the first picture [N, H, W, c] beside the samples
  that is as large as they are; None where there is none."""
  for other in beside.values():
    other = np.asarray(other)
    if other.dtype != np.uint8 or other.shape[:-1] != x.shape[:-1]:
      continue
    if other.shape[-1] == 1:
      return np.repeat(other, x.shape[-1], -1)
    if other.shape != x.shape:  # grey samples
      other = np.floor(other.mean(-1, keepdims=True) + 0.5)
    return other.astype(np.uint8)
  return None


def write(folder, stem, form, x, beside, columns, most) -> list[pathlib.Path]:
  """Nothing: the picture is all."""
  return []


def said(form: Image, x: np.ndarray) -> tuple[str, str]:
  return "images", f"{x.shape[1]}x{x.shape[2]} pixels"
