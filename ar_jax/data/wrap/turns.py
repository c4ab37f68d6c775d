"""Examples that come several times in a row, as windows of one picture do.

Each then has a field `turn` i32[], which time it is. With `order="given"` the
turns of an example are consecutive. It wraps any source, also stored units:
`around` puts them in the place of the examples that they were made of.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.data import digests
from ar_jax.data.dataset import Around, Dataset, Example, Source, draw


def add(dataset: Dataset, turns: int) -> Dataset:
  """The data set whose training examples come so many times each; those for
  test once, as turn 0.

  Raises:
    UserError: `turns` is below 1.
  """
  if turns < 1:
    raise UserError(f"data.turns={turns}: must be at least 1, or 0 for none")
  digest = dataset.digest and digests.fingerprint(dataset.digest, "turns")
  return dataclasses.replace(
    dataset,
    train=Turns(dataset.train, turns),
    test=Turns(dataset.test, 1),
    digest=digest,
  )


def alone(source: Source) -> Source:
  """The source whose examples `Turns` repeats."""
  return source.source if isinstance(source, Turns) else source


def around(source: Source, like: Source) -> Source:
  """`source` in the turns of `like`, if it has any."""
  return Turns(source, like.turns) if isinstance(like, Turns) else source


class Turns(Around):
  """Example i is turn i mod n of example i // n of the source.

  Args:
    source: any.
    turns: n.
  """

  def __init__(self, source: Source, turns: int):
    self.source, self.turns = source, turns
    if hasattr(source, "label"):
      self.label = lambda i: source.label(i // turns)
    if hasattr(source, "labels"):
      self.labels = lambda: np.repeat(source.labels(), turns)

  def __len__(self) -> int:
    return self.turns * len(self.source)

  def __getitem__(self, i: int) -> Example:
    which, turn = divmod(range(len(self))[i], self.turns)
    return {**self.source[which], "turn": np.int32(turn)}

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    which, turn = divmod(i, self.turns)
    return {**draw(self.source, which, rng), "turn": np.int32(turn)}
