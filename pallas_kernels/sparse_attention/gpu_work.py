"""What every block of a Hopper kernel does: tile tables, cut into work.

A kernel is launched with one block per multiprocessor. Block c does the
items c, c + blocks, c + 2 blocks, ...; an item is one row of tiles of one
head of one example. Rows with the most visits come first (so that the blocks
end together), heads come in groups whose keys fit the L2 cache together.

Within a row the full tiles come first and the partial ones last, so that the
loop over full tiles holds no trace of a mask. An online softmax does not
care about the order.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pallas_kernels.sparse_attention import tiles

# Half of the 50 MB of an H100: the rest is left to outputs and to q.
_L2_BYTES = 25 * 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
  """The rows of tiles of a pattern, in the order in which they are done.

  Attributes:
    rows: i32[4 R]: of each row its tile, its first visit, its first partial
      visit and its end.
    minor: i32[n], at least one entry: the other coordinate of each visit.
  """

  rows: np.ndarray
  minor: np.ndarray

  def __len__(self) -> int:
    return len(self.rows) // 4


def compile_work(visits: tiles.Visits) -> Work:
  """The visits of each row, full tiles first, longest rows first."""
  starts = visits.starts
  partial = visits.kinds == tiles.PARTIAL
  minor = visits.minor[np.lexsort((visits.minor, partial, visits.major))]
  full = np.bincount(
    visits.major, weights=~partial, minlength=len(starts) - 1
  ).astype(np.int64)
  rows = np.stack(
    [np.arange(len(full)), starts[:-1], starts[:-1] + full, starts[1:]], axis=1
  )
  rows = rows[np.argsort(-np.diff(starts), kind="stable")]
  # A table without an entry cannot be an operand.
  minor = minor if len(minor) else np.zeros(1, np.int32)
  as_table = lambda x: np.ascontiguousarray(x, np.int32).reshape(-1)
  return Work(as_table(rows), as_table(minor))


def group_of_heads(heads: int, bytes_per_head: int) -> int:
  """The most heads, a divisor of `heads`, whose keys and values fit the L2."""
  most = max(1, _L2_BYTES // bytes_per_head)
  return max(n for n in range(1, heads + 1) if not heads % n and n <= most)


class Item(NamedTuple):
  """One row of tiles of one head, as values inside a kernel.

  Attributes:
    tile: the row.
    start: its first visit; the full ones come first.
    middle: its first partial visit.
    stop: the end of its visits.
    batch: the example.
    head: the head.
  """

  tile: jax.Array
  start: jax.Array
  middle: jax.Array
  stop: jax.Array
  batch: jax.Array
  head: jax.Array


def item_at(index: jax.Array, rows, heads: int, count: int, group: int) -> Item:
  """The item `index` of count (rows of the table) x batch x heads.

  Args:
    index: i32, see the module for the order.
    rows: the table of `Work`, a reference in global memory.
    heads: heads per example.
    count: rows in the table.
    group: heads, over all examples, that are worked on together.
  """
  div, rem = _split(index, count * group)
  row, member = _split(rem, group)
  batch, head = _split(div * group + member, heads)
  at = lambda i: rows[row * 4 + i]
  return Item(at(0), at(1), at(2), at(3), batch, head)


def _split(x: jax.Array, by: int) -> tuple[jax.Array, jax.Array]:
  """Quotient and remainder, without the rounding of signed numbers."""
  if by == 1:
    return x, jnp.int32(0)
  by = jnp.int32(by)
  return lax.div(x, by), lax.rem(x, by)


def columns(table: np.ndarray, length: int, block: int) -> np.ndarray:
  """i32[names + 1, padded length]: the integers of the slots, to whole tiles.

  Slots that fill the last tile up repeat the last real one; the last row
  tells real slots (1) from these (0).
  """
  pad = math.ceil(length / block) * block - length
  real = np.ones((1, length), np.int32)
  return np.concatenate(
    [
      np.pad(table, ((0, 0), (0, pad)), mode="edge"),
      np.pad(real, ((0, 0), (0, pad))),
    ]
  )
