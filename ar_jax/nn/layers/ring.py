"""What attention has read of a stream without an end: the last keys and values
of all layers.

Shapes: B batch, S rows of the ring, N layers, H heads, K features of a head.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ring:
  """A cache of the S newest rows, one row a call, in buffers of fixed size: a
  `cache.Cache` to the layers that write and read it.

  Row i lies at place i mod S, where it takes the place of row i - S; so the
  rows are in no order, and keys must be turned by their place (RoPE) before
  they come here. What is at the same index twice is written over.

  Attributes:
    k: [N, B, H, S, K].
    v: the same.
    index: i32[], the number of the row that is written next.
  """

  k: Array
  v: Array
  index: Array

  # Of a `cache.Cache`: one buffer for all layers, and no memory beside.
  is_unstacked = False

  @classmethod
  def empty(cls, *shape: int) -> Ring:
    """Of N, B, H, S, K."""
    rows = jnp.zeros(shape)
    return cls(rows, rows, jnp.int32(0))

  @property
  def size(self) -> int:
    """S."""
    return self.k.shape[-2]

  def extend(
    self, layer: Array | int, k: Array, v: Array
  ) -> tuple[Array, Array, Ring]:
    """Writes the row [B, 1, H, K] of one layer; `index` stays as it is.

    Returns:
      The keys and values to be read by this layer, [B, S, H, K], and the new
      ring.

    Raises:
      UserError: it is more than one row.
    """
    if k.shape[1] != 1:
      raise UserError(f"a ring takes one row a call, not {k.shape[1]}")
    k, all_k = self._put(self.k, layer, k)
    v, all_v = self._put(self.v, layer, v)
    return k, v, dataclasses.replace(self, k=all_k, v=all_v)

  def _put(
    self, buffer: Array, layer: Array | int, row: Array
  ) -> tuple[Array, Array]:
    row = jnp.swapaxes(row, 1, 2)[None].astype(buffer.dtype)
    start = (layer, 0, 0, self.index % self.size, 0)
    buffer = jax.lax.dynamic_update_slice(buffer, row, start)
    own = jax.lax.dynamic_index_in_dim(buffer, layer, 0, keepdims=False)
    return jnp.swapaxes(own, 1, 2), buffer

  def filled(self) -> Array:
    """bool[S]: the places that hold a row, the next one among them."""
    return jnp.arange(self.size) <= self.index

  def mask(self, new: int) -> Array:
    """bool[1, 1, 1, S], as of a `Cache`."""
    del new
    return self.filled()[None, None, None]

  def advance(self, new: int) -> Ring:
    """The ring whose next row is the one after."""
    return dataclasses.replace(self, index=self.index + new)

  def at(self, index: Array) -> Ring:
    """The ring whose next row has this number: the last one, to write it over,
    or the one after."""
    return dataclasses.replace(self, index=jnp.int32(index))
