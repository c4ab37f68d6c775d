"""Images: a grid."""

from __future__ import annotations

import pathlib

import numpy as np

from ar_jax.conditions import by_class
from ar_jax.core.forms import Image


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
  form: Image, x: np.ndarray, beside: dict, *, columns: int, truth=None
) -> np.ndarray:
  """The grid of samples: `columns` of each class per row, others in order.
  Where a system reads an image or follows a picture, that comes before what
  was drawn, and the true one behind it where it is known; and between them, of
  an edited one, what is kept, with the rest faded."""
  del form
  original = beside.get("image", beside.get("given", _followed(x, beside)))
  if original is not None and original.shape == x.shape:
    parts = [original, x]
    if "keep" in beside:
      kept = np.asarray(beside["keep"])[..., None] > 0
      parts.insert(1, np.where(kept, original, 192 + original // 4))
    if truth is not None:
      parts.append(truth)
    columns = max(1, columns // len(parts)) * len(parts)
    n = max(1, columns * columns // len(parts))
    n = min(n, *map(len, parts))
    rows = np.stack([part[:n] for part in parts], 1).astype(np.uint8)
    return grid(rows.reshape(-1, *x.shape[1:]), columns)
  if "label" not in beside:
    return grid(x[: columns * columns], columns)
  chosen, columns = by_class(beside["label"], columns)
  return grid(x[chosen], columns)


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
