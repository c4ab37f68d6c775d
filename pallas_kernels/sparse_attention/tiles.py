"""From integers per slot and a rule over them to tables of tiles.

A `Pattern` says which queries see which keys, as a value: a few integers per
query, a few per key and a predicate over them. `compile_tiles` evaluates it
on the host, once, and lists the tiles of the score matrix that a kernel has
to visit:

- an *empty* tile is in no list, so nothing of it is ever loaded;
- in a *full* tile every pair is visible, so no mask is needed;
- in a *partial* tile the kernel calls `Pattern.see` on the integers of the
  tile, so that no mask is ever in memory.

Lengths need not be multiples of a tile. The slots that fill the last tile up
are padding: a padding key is seen by nobody (so a tile with one is partial,
and the kernel adds `key index < pattern.keys` to its mask), a padding query
does not count (a tile is full if its real queries see all keys; what a kernel
computes for the rest is not to be written or not to be read).

Glossary: T queries, S keys, n visits.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

PARTIAL, FULL = 1, 2
"""The kinds of tiles that are visited."""

Slots = Mapping[str, Any]
Rule = Callable[[Slots, Slots], Any]


@dataclasses.dataclass(frozen=True)
class Pattern:
  """Which of T queries see which of S keys; hashable, so a static argument.

  Build it with `pattern`.

  Attributes:
    queries: T.
    keys: S.
    names: the integers that the rule reads, in the order of the tables.
    query_table: i32[len(names), T] as bytes.
    key_table: i32[len(names), S] as bytes.
    rule: (q, k) -> bool, over mappings name -> integers that broadcast. It
      runs in numpy on the host and on i32 vectors inside kernels, so it holds
      comparisons, sums, differences and `&`, `|`, `~` only. A function of a
      module, so that equal patterns compare equal.
  """

  queries: int
  keys: int
  names: tuple[str, ...]
  query_table: bytes = dataclasses.field(repr=False)
  key_table: bytes = dataclasses.field(repr=False)
  rule: Rule

  @functools.cached_property
  def query_columns(self) -> np.ndarray:
    """i32[len(names), T], read-only: the integers of the queries."""
    return _columns(self.query_table, self.names, self.queries)

  @functools.cached_property
  def key_columns(self) -> np.ndarray:
    """i32[len(names), S], read-only: the integers of the keys."""
    return _columns(self.key_table, self.names, self.keys)

  def see(self, q: Sequence[Any], k: Sequence[Any]) -> Any:
    """bool, the rule on columns: q and k hold one array per name.

    Shapes broadcast: [Q, 1] and [1, K] give the mask of a tile. With no names
    (a rule that reads nothing) the result is what the rule returns.
    """
    named = functools.partial(zip, self.names, strict=True)
    return self.rule(dict(named(q)), dict(named(k)))

  def mask(
    self, rows: slice = slice(None), cols: slice = slice(None)
  ) -> np.ndarray:
    """bool[T, S]: [query, key], or the queries `rows` and keys `cols` of it."""
    q = self.query_columns[:, rows, None]
    k = self.key_columns[:, None, cols]
    shape = (len(range(self.queries)[rows]), len(range(self.keys)[cols]))
    return np.broadcast_to(self.see(q, k), shape)


def _columns(table: bytes, names: tuple[str, ...], length: int) -> np.ndarray:
  return np.frombuffer(table, np.int32).reshape(len(names), length)


class _Recorder(dict):
  """A dict that remembers which of its names were read."""

  def __init__(self, columns: Mapping[str, np.ndarray]):
    super().__init__(columns)
    self.read: set[str] = set()

  def __getitem__(self, name: str) -> np.ndarray:
    self.read.add(name)
    return super().__getitem__(name)


def pattern(rule: Rule, q: Slots, k: Slots | None = None) -> Pattern:
  """A pattern from columns; those that the rule does not read are dropped.

  Args:
    rule: see `Pattern`.
    q: name -> i32[T], the integers of the queries; at least one column.
    k: name -> i32[S], the same names, those of the keys; as `q` if None.

  Raises:
    ValueError: the columns of a side differ in length, or a side has none.
  """
  k = q if k is None else k
  sides = []
  for side, columns in (("queries", q), ("keys", k)):
    columns = {n: np.asarray(c, np.int32) for n, c in columns.items()}
    shapes = {c.shape for c in columns.values()}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 1 or not shape[0]:
      raise ValueError(
        f"pattern: the columns of the {side} must be of one length, got "
        f"{ {n: c.shape for n, c in columns.items()} }"
      )
    sides.append(_Recorder(columns))
  q, k = sides
  first = lambda side: {n: c[:1] for n, c in side.items()}
  probe = _Recorder(first(q)), _Recorder(first(k))
  rule(*probe)
  names = tuple(sorted(probe[0].read | probe[1].read))
  queries, keys = (len(next(iter(side.values()))) for side in sides)
  tables = (
    b"".join(np.ascontiguousarray(side[n]).tobytes() for n in names)
    for side in sides
  )
  return Pattern(queries, keys, names, *tables, rule)


@dataclasses.dataclass(frozen=True, eq=False)
class Visits:
  """The tiles to visit, row by row of the score matrix (or of its transpose).

  Attributes:
    starts: i32[rows + 1]; row i owns the visits starts[i] : starts[i + 1].
    major: i32[n], the row of each visit, ascending.
    minor: i32[n], the column of each visit, ascending within a row.
    kinds: i32[n], PARTIAL or FULL.
  """

  starts: np.ndarray
  major: np.ndarray
  minor: np.ndarray
  kinds: np.ndarray

  def __len__(self) -> int:
    return len(self.major)


@dataclasses.dataclass(frozen=True, eq=False)
class Tiles:
  """The tables of one pattern at one size of tile.

  Attributes:
    block_q: queries per tile.
    block_k: keys per tile.
    by_query: rows are tiles of queries: for the output and dQ.
    by_key: rows are tiles of keys: for dK and dV.
  """

  block_q: int
  block_k: int
  by_query: Visits
  by_key: Visits

  @property
  def shape(self) -> tuple[int, int]:
    """Tiles of queries, tiles of keys."""
    return len(self.by_query.starts) - 1, len(self.by_key.starts) - 1

  @property
  def visited(self) -> int:
    """Tiles that are visited."""
    return len(self.by_query)

  @property
  def total(self) -> int:
    """Tiles that dense attention visits."""
    return self.shape[0] * self.shape[1]


@functools.lru_cache(maxsize=256)
def compile_tiles(p: Pattern, block_q: int, block_k: int) -> Tiles:
  """The tiles of `p` that are not empty; cached, so one value per pattern.

  Args:
    p: the pattern.
    block_q: queries per tile, any positive size.
    block_k: keys per tile.
  """
  seen = _seen(p, block_q, block_k)
  sizes = [
    np.minimum(block, length - np.arange(0, length, block))
    for block, length in ((block_q, p.queries), (block_k, p.keys))
  ]
  # The last tile has block_k keys too, some of which nobody sees.
  full = (seen == np.multiply.outer(*sizes)) & (sizes[1] == block_k)
  kinds = np.where(full, FULL, np.where(seen > 0, PARTIAL, 0))
  return Tiles(block_q, block_k, _visits(kinds), _visits(kinds.T))


_BASE = 128  # tiles of multiples of it are counted from tiles of this size


@functools.lru_cache(maxsize=256)
def _seen(p: Pattern, block_q: int, block_k: int) -> np.ndarray:
  """The number of visible pairs in each tile."""
  if block_q % _BASE == block_k % _BASE == 0 < block_q + block_k - 2 * _BASE:
    seen = _seen(p, _BASE, _BASE)
    for axis, block in enumerate((block_q, block_k)):
      edges = np.arange(0, seen.shape[axis], block // _BASE)
      seen = np.add.reduceat(seen, edges, axis=axis)
    return seen
  edges = np.arange(0, p.keys, block_k)
  rows = (slice(i, i + block_q) for i in range(0, p.queries, block_q))
  columns = (p.mask(r).sum(0, dtype=np.int32) for r in rows)
  return np.stack([np.add.reduceat(c, edges) for c in columns])


def _visits(kinds: np.ndarray) -> Visits:
  major, minor = np.nonzero(kinds)
  starts = np.searchsorted(major, np.arange(len(kinds) + 1))
  columns = (starts, major, minor, kinds[major, minor])
  columns = [np.ascontiguousarray(c, np.int32) for c in columns]
  for column in columns:
    column.flags.writeable = False
  return Visits(*columns)
