"""What a large frozen encoder has made of texts or of images before.

A T5-XL does not fit beside a generator in training, so its outputs are stored
once: a folder with `train.npy` and `test.npy`, row i for example i of that
part. Of a text f16 or f32[N, P, C], the rows behind its end being zeros, or its
ids i32[N, P]; of an image f16 or f32[N, C].
"""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.data import digests
from ar_jax.data.dataset import Around, Dataset, Example, Source, draw


class _With(Around):
  """A source with a field that is a row of an array on disk."""

  def __init__(self, source: Source, field: str, rows: np.ndarray):
    super().__init__(source)
    self._field, self._rows = field, rows
    real = np.issubdtype(rows.dtype, np.floating)
    self._dtype = np.float32 if real else np.int32

  def __getitem__(self, i: int) -> Example:
    return {**self.source[i], self._field: self._row(i)}

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    return {**draw(self.source, i, rng), self._field: self._row(i)}

  def _row(self, i: int) -> np.ndarray:
    return self._rows[i].astype(self._dtype)


# Option -> the field that it makes, and the shapes that its arrays may have.
_KINDS = {
  "text_features": ("text", "[examples, positions, features]"),
  "image_features": ("feature", "[examples, features]"),
}


def add(
  dataset: Dataset, folder: str, option: str = "text_features"
) -> Dataset:
  """The data set with another field in each example: `text`, f32[P, C] or
  i32[P], or `feature`, f32[C].

  Args:
    dataset: any.
    folder: see above.
    option: "text_features" or "image_features".

  Raises:
    UserError: a file is missing, damaged, or of another number of examples.
  """
  parts, (field, shape) = {}, _KINDS[option]
  for name in ("train", "test"):
    file, source = pathlib.Path(folder) / f"{name}.npy", getattr(dataset, name)
    try:
      rows = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError) as e:
      raise UserError(
        f"data.{option}: {file} is missing or damaged ({e}); it must be an "
        f"array {shape} of np.save"
      ) from e
    if rows.ndim != _axes(option, rows) or len(rows) != len(source):
      raise UserError(
        f"data.{option}: {file} is of shape {rows.shape}, {dataset.name} "
        f"has {len(source)} examples in {name!r}; make it anew"
      )
    parts[name] = _With(source, field, rows)
  files = [pathlib.Path(folder) / f"{name}.npy" for name in parts]
  own = digests.of_files(folder, files)
  digest = digests.fingerprint(dataset.digest, own) if dataset.digest else ""
  return dataclasses.replace(dataset, **parts, digest=digest)


def _axes(option: str, rows: np.ndarray) -> int:
  """How many the array must have."""
  ids = np.issubdtype(rows.dtype, np.integer)
  return 2 if option == "image_features" or ids else 3
