"""Videos: strips of their frames, and a moving grid as GIF."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from ar_jax.conditions import by_class
from ar_jax.core.forms import Video
from ar_jax.show import captions
from ar_jax.show.files import as_pil, whole
from ar_jax.show.image import grid, named
from ar_jax.show.sheet import enlarged

_FRAMES = 16  # of a strip
_LEAST = 96  # pixels of the shorter side of a video in a GIF


def picture(
  form: Video,
  x: np.ndarray,
  beside: dict,
  *,
  columns: int,
  truth=None,
  texts: Sequence[str] = (),
  names: Sequence[str] = (),
  scale: int = 1,
) -> np.ndarray:
  """A row for each video, class by class: frames at even distances. A video
  that was given comes above what was drawn; its text, or the name of its
  class, before it. Arguments as those of `image.picture`."""
  del form, truth
  order = _order(beside, len(x), columns)
  rows = [texts[i] for i in order] if texts else []
  if "label" in beside and not texts:
    rows = named(np.asarray(beside["label"])[order], names)
  x = x[order]
  given = beside.get("video", beside.get("given"))
  if given is not None and given.shape[1:] == x.shape[1:]:
    given = given[_order(beside, len(given), columns)]
    x = np.stack([given, x], 1).reshape(-1, *x.shape[1:])
  frames = x.shape[1]
  at = np.linspace(0, frames - 1, min(frames, _FRAMES)).round().astype(int)
  sheet = grid(x[:, at].reshape(-1, *x.shape[2:]), len(at))
  sheet = enlarged(sheet, scale)
  return captions.before(sheet, rows) if rows else sheet


def _order(beside: dict, n: int, most: int) -> np.ndarray:
  """The videos to show, at most so many."""
  if "label" not in beside:
    return np.arange(min(n, most))
  chosen, _ = by_class(beside["label"], most)
  return chosen[:: max(1, len(chosen) // most)][:most]


def write(
  folder: pathlib.Path,
  stem: str,
  form: Video,
  x: np.ndarray,
  beside: dict,
  columns: int,
  most: int,
) -> list[pathlib.Path]:
  """`stem.gif`: the first videos side by side, in order."""
  del beside
  x = x[: min(most, columns * columns)]
  scale = max(1, -(-_LEAST // min(x.shape[2:4])))
  sheets = [grid(x[:, t], min(columns, len(x))) for t in range(x.shape[1])]
  frames = [as_pil(enlarged(s, scale)) for s in sheets]
  path = folder / f"{stem}.gif"
  with whole(path) as temporary:
    frames[0].save(
      temporary,
      format="gif",
      save_all=True,
      append_images=frames[1:],
      duration=max(20, round(1000 / form.rate)),  # viewers take no less
      loop=0,
    )
  return [path]


def said(form: Video, x: np.ndarray) -> tuple[str, str]:
  t, h, w = x.shape[1:4]
  return "videos", f"{t} frames of {h}x{w} pixels"
