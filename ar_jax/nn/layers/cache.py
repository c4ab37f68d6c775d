"""What attention has read before: the keys and values of all layers.

Shapes: B batch, T new positions, S rows of the cache, N layers, H heads, K
features of a head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError

Array = jax.Array


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Cache:
  """Keys and values of all layers, in buffers of fixed size.

  A Python int as index is static: a part of the type, as in an unrolled loop,
  where only the filled rows are read and no mask is needed. A traced index is
  data: all rows are read, and those not filled are masked. A traced index per
  example is a ragged batch, whose examples are of different lengths; rows
  beyond the last are then dropped, so a finished example may run on.

  Attributes:
    k: [N, B, H, S, K], as the products of attention read them; or a tuple of
      N arrays [B, H, S, K], which a CPU reads without copying them.
    v: the same.
    index: rows that are filled; int, i32[] or i32[B].
  """

  k: Array | tuple[Array, ...]
  v: Array | tuple[Array, ...]
  index: int | Array = 0

  @property
  def is_unstacked(self) -> bool:
    """Whether every layer has buffers of its own."""
    return isinstance(self.k, tuple)

  @property
  def size(self) -> int:
    """S."""
    return (self.k[0] if self.is_unstacked else self.k).shape[-2]

  def unstacked(self) -> Cache:
    """The same with buffers of its own for every layer."""
    return Cache(tuple(self.k), tuple(self.v), self.index)

  def rows(self, rows: slice) -> Cache:
    """The cache of some of the examples; `index` must be the same for all."""
    if not self.is_unstacked:
      return Cache(self.k[:, rows], self.v[:, rows], self.index)
    k, v = (tuple(x[rows] for x in xs) for xs in (self.k, self.v))
    return Cache(k, v, self.index)

  def tree_flatten(self):
    if isinstance(self.index, int):
      return (self.k, self.v), self.index
    return (self.k, self.v, self.index), None

  @classmethod
  def tree_unflatten(cls, index, children):
    return cls(*children) if index is None else cls(*children, index)

  def mask(self, new: int) -> Array | None:
    """The rows that `new` positions see by default: all that are filled, the
    new ones among them. None if just these are read."""
    if isinstance(self.index, int):
      return None
    return self._rows() < jnp.reshape(self.index + new, (-1, 1, 1, 1))

  def causal(self, new: int) -> Array:
    """bool[B | 1, 1, new, S]: as `mask`, but of the new positions each sees
    only itself and those before it."""
    stop = jnp.reshape(self.index, (-1, 1)) + jnp.arange(1, new + 1)[None]
    rows = self._rows()
    if isinstance(self.index, int):
      rows = rows[..., : self.index + new]
    return rows < stop[:, None, :, None]

  def tree(self, sees: Array) -> Array:
    """bool[B, 1, T, S]: as `causal`, but which of the rows from the index on
    each of T positions sees is told, bool[B, T, N]. The index is i32[B]."""
    at = self._rows()[0] - self.index[:, None, None]
    new = sees.shape[2]
    own = jnp.broadcast_to(
      jnp.clip(at, 0, new - 1), (*sees.shape[:2], at.shape[2])
    )
    own = jnp.take_along_axis(sees, own, axis=2) & (at < new)
    return (own | (at < 0))[:, None]

  def compact(self, start: Array, path: Array) -> Cache:
    """Moves the rows start + path to start, start + 1, ...: what stands of a
    tree becomes a line.

    Args:
      start: i32[B].
      path: i32[B, E].
    """
    batch = jnp.arange(len(start))[:, None]
    come = (start[:, None] + path)[:, None, :, None]
    go = start[:, None] + jnp.arange(path.shape[1])[None]

    def move(buffer):
      rows = jnp.take_along_axis(buffer, come, axis=2, mode="clip")
      rows = jnp.swapaxes(rows, 1, 2)
      return buffer.at[batch, :, go].set(rows, mode="drop")

    every = (
      (lambda x: tuple(map(move, x))) if self.is_unstacked else jax.vmap(move)
    )
    return Cache(every(self.k), every(self.v), self.index)

  def _rows(self) -> Array:
    return jnp.arange(self.size)[None, None, None]

  def extend(
    self, layer: Array | int, k: Array, v: Array
  ) -> tuple[Array, Array, Cache]:
    """Writes the rows [B, T, H, K] of one layer behind the filled ones.

    `index` stays as it is: all layers write at the same place.

    Returns:
      The keys and values to be read by this layer, and the new cache.
    """
    stop = self.size
    if isinstance(self.index, int):
      stop = self.index + k.shape[1]
      if stop > self.size:
        raise UserError(f"a cache of {self.size} rows cannot hold {stop}")

    def put(buffer, rows):
      if not self.is_unstacked:
        buffer = self._write(buffer, layer, rows)
        return _first(buffer, layer, stop), buffer
      own = self._write(buffer[layer][None], 0, rows)[0]
      others = buffer[:layer], buffer[layer + 1 :]
      return own[:, :, :stop], (*others[0], own, *others[1])

    (k, all_k), (v, all_v) = put(self.k, k), put(self.v, v)
    read = lambda x: jnp.swapaxes(x, 1, 2)
    return read(k), read(v), Cache(all_k, all_v, self.index)

  def _write(self, buffer: Array, layer: Array | int, rows: Array) -> Array:
    """`buffer` [N, B, H, S, K] with the rows [B, T, H, K] of one layer."""
    rows = rows.astype(buffer.dtype)
    if jnp.ndim(self.index):
      b, new = rows.shape[:2]
      at = self.index[:, None] + jnp.arange(new)[None]
      place = buffer.at[layer, jnp.arange(b)[:, None], :, at]
      return place.set(rows, mode="drop")
    rows = jnp.swapaxes(rows, 1, 2)[None]
    start = (layer, 0, 0, self.index, 0)
    return jax.lax.dynamic_update_slice(buffer, rows, start)

  def advance(self, new: int) -> Cache:
    """The cache with `new` more rows filled."""
    return dataclasses.replace(self, index=self.index + new)


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Joint:
  """The caches of several stacks in a row, as one: whoever holds it need not
  know that the stack is cut.

  Attributes:
    parts: the cache of each stack, whose own index does not count: `of` sets
      it to 0, so that a loop finds the same type after every step.
    index: as of a `Cache`; all parts have as many rows filled.
  """

  parts: tuple[Any, ...]
  index: int | Array = 0

  @classmethod
  def of(cls, caches: Sequence[Any]) -> Joint:
    """Joins caches of the same index."""
    index = next((c.index for c in caches if hasattr(c, "index")), 0)
    return cls(tuple(_at(c, 0) for c in caches), index)

  def part(self, i: int) -> Any:
    """The cache of stack i."""
    return _at(self.parts[i], self.index)

  def tree_flatten(self):
    if isinstance(self.index, int):
      return (self.parts,), self.index
    return (self.parts, self.index), None

  @classmethod
  def tree_unflatten(cls, index, children):
    return cls(*children) if index is None else cls(*children, index)

  @property
  def is_unstacked(self) -> bool:
    """As of a `Cache`."""
    return self.parts[0].is_unstacked

  @property
  def size(self) -> int:
    """S."""
    return self.parts[0].size

  def unstacked(self) -> Joint:
    """As `Cache.unstacked`."""
    return self._each(lambda c: c.unstacked())

  def rows(self, rows: slice) -> Joint:
    """As `Cache.rows`."""
    return self._each(lambda c: c.rows(rows))

  def mask(self, new: int) -> Array | None:
    """As `Cache.mask`."""
    return self.part(0).mask(new)

  def causal(self, new: int) -> Array:
    """As `Cache.causal`."""
    return self.part(0).causal(new)

  def tree(self, sees: Array) -> Array:
    """As `Cache.tree`."""
    return self.part(0).tree(sees)

  def compact(self, start: Array, path: Array) -> Joint:
    """As `Cache.compact`."""
    return self._each(lambda c: c.compact(start, path))

  def advance(self, new: int) -> Joint:
    """As `Cache.advance`."""
    return dataclasses.replace(self, index=self.index + new)

  def _each(self, change: Any) -> Joint:
    return Joint(tuple(map(change, self.parts)), self.index)


def _at(cache: Any, index: int | Array) -> Any:
  """The cache with another index, if it has one."""
  if not hasattr(cache, "index"):
    return cache
  return dataclasses.replace(cache, index=index)


def _first(buffer: Array, layer: Array | int, stop: int) -> Array:
  """[B, H, stop, K], the first rows of one layer."""
  _, b, heads, _, features = buffer.shape
  shape = (1, b, heads, stop, features)
  return jax.lax.dynamic_slice(buffer, (layer, 0, 0, 0, 0), shape)[0]
