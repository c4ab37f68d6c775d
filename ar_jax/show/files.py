"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A path to write to, which takes the place of `path` once that is done."""
  # Hidden, so that nobody takes what a killed run leaves for a sample.
  temporary = path.with_name(f".{path.name}.tmp")
  yield temporary
  temporary.replace(path)


def save_png(path: pathlib.Path, image: np.ndarray) -> None:
  """Writes u8[H, W, C]."""
  with whole(path) as temporary:
    as_pil(image).save(temporary, format="png")


def as_pil(image: np.ndarray) -> Image.Image:
  """u8[H, W, C] as PIL has it."""
  return Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)


def numbered(
  folder: pathlib.Path,
  stem: str,
  end: str,
  count: int,
  write: Callable[[int, pathlib.Path], None],
) -> list[pathlib.Path]:
  """Files `stem.000.end` and so on, `write(i, path)` each."""
  paths = [folder / f"{stem}.{i:03d}.{end}" for i in range(count)]
  for i, path in enumerate(paths):
    with whole(path) as temporary:
      write(i, temporary)
  return paths
