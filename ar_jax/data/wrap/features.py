"""Features of texts that a large frozen encoder has computed before.

A T5-XL does not fit beside a generator in training, so its outputs are stored
once: a folder with `train.npy` and `test.npy`, f16 or f32[N, P, C], row i for
example i of that part; the rows behind the end of a text are zeros.
"""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.data import digests
from ar_jax.data.dataset import Around, Dataset, Example, Source, draw


class _WithText(Around):
  """A source whose field `text` is a row of an array on disk."""

  def __init__(self, source: Source, text: np.ndarray):
    super().__init__(source)
    self._text = text

  def __getitem__(self, i: int) -> Example:
    return {**self.source[i], "text": self._row(i)}

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    return {**draw(self.source, i, rng), "text": self._row(i)}

  def _row(self, i: int) -> np.ndarray:
    return self._text[i].astype(np.float32)


def add(dataset: Dataset, folder: str) -> Dataset:
  """The data set with `text`, f32[P, C], in each example.

  Raises:
    UserError: a file is missing, damaged, or of another number of examples.
  """
  parts = {}
  for name in ("train", "test"):
    file, source = pathlib.Path(folder) / f"{name}.npy", getattr(dataset, name)
    try:
      text = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError) as e:
      raise UserError(
        f"data.text_features: {file} is missing or damaged ({e}); it must be "
        "an array [examples, positions, features] of np.save"
      ) from e
    if text.ndim != 3 or len(text) != len(source):
      raise UserError(
        f"data.text_features: {file} is of shape {text.shape}, {dataset.name} "
        f"has {len(source)} examples in {name!r}; make it anew"
      )
    parts[name] = _WithText(source, text)
  files = [pathlib.Path(folder) / f"{name}.npy" for name in parts]
  own = digests.of_files(folder, files)
  digest = digests.fingerprint(dataset.digest, own) if dataset.digest else ""
  return dataclasses.replace(dataset, **parts, digest=digest)
