"""A part of the training split."""

from __future__ import annotations

import dataclasses

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.data import digests
from ar_jax.data.dataset import Around, Dataset, Example, Source, draw


class _First(Around):
  """The first examples of a source."""

  def __init__(self, source: Source, count: int):
    super().__init__(source)
    self._count = count
    if hasattr(source, "labels"):
      self.labels = lambda: source.labels()[:count]

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, i: int) -> Example:
    return self.source[i]

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    return draw(self.source, i, rng)


def first(dataset: Dataset, share: float) -> Dataset:
  """The data set with the first `share` of its training examples, at least
  one; the test split stays.

  Raises:
    UserError: it is no share.
  """
  if not 0 < share <= 1:
    raise UserError(f"data.share={share}: a share is above 0 and at most 1")
  count = max(1, round(share * len(dataset.train)))
  train, own = _First(dataset.train, count), dataset.digest
  digest = digests.fingerprint(own, ["share", share]) if own else ""
  return dataclasses.replace(dataset, train=train, digest=digest)
