"""Chunks of the training texts, which a model may look up while it draws.

Shapes: B batch, n chunks, m units of a chunk, k answers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import likeness
from ar_jax.core.likeness import Index

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Database:
  """How chunks are held and compared.

  Attributes:
    size: n, room for so many.
    chunk: m.
    orders: lengths of the stretches by which chunks are compared, as the data
      were: (1, 2) for words, (3, 5) for characters.
    special: ids below it are not compared: the end, the unknown.
  """

  size: int
  chunk: int
  orders: tuple[int, ...] = (1, 2)
  special: int = 2

  def empty(self) -> Index:
    """Nothing to be found."""
    return likeness.empty(self.size, 2 * self.chunk, self.chunk, self.orders)

  def filled(self, source: Any, field: str) -> Index:
    """The chunks of a source; of more than n evenly spread ones."""
    passages = chunks(source, self.chunk, field, 4 * self.size)
    if len(passages) > self.size:
      passages = passages[
        np.linspace(0, len(passages) - 1, self.size).astype(int)
      ]
    own = self._compared(passages[:, : self.chunk])
    return likeness.fill(self.size, passages, own, self.orders)

  def search(self, index: Index, own: Array, k: int) -> tuple[Array, Array]:
    """As `likeness.search`, of chunks i32[B, m]."""
    return likeness.search(index, own, self._compared(own), k, self.orders)

  def _compared(self, ids: Any) -> Any:
    """Ids, negative where they say nothing."""
    at = np if isinstance(ids, np.ndarray) else jnp
    return at.where(ids < self.special, likeness.NONE, ids)


def chunks(source: Any, m: int, field: str, most: int) -> np.ndarray:
  """i32[n, 2 m]: chunks of the texts of a source, each with the one that
  follows in its text, or 0.

  Args:
    source: one that has texts as `data.text.windows.Windows` does, `ids` and
      `offset`; or examples, which are then texts of their own.
    m: units of a chunk.
    field: of an example.
    most: chunks that are read of examples.
  """
  found = []
  if hasattr(source, "ids"):
    ends = source.offset[1:]
    texts = zip(source.offset, ends, strict=False)
    texts = (source.ids[start:end] for start, end in texts)
  else:
    rows = range(min(len(source), most))
    texts = (np.asarray(source[i][field]) for i in rows)
  for text in texts:
    count = -(-len(text) // m)
    room = np.zeros((count + 1) * m, np.int32)
    room[: len(text)] = text
    pieces = room.reshape(-1, m)
    found.append(np.concatenate([pieces[:-1], pieces[1:]], 1))
  return np.concatenate(found)
