"""Self-attention and its cache.

Shapes: B batch, T new positions, S rows of the cache, D width, H heads, K
features per head, N layers.
"""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax import ops
from ar_jax.core.errors import UserError
from ar_jax.core.plan import Plan
from ar_jax.nn import positions
from ar_jax.nn.linear import Linear, initial

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
  def apart(self) -> bool:
    """Whether every layer has buffers of its own."""
    return isinstance(self.k, tuple)

  @property
  def size(self) -> int:
    """S."""
    return (self.k[0] if self.apart else self.k).shape[-2]

  def taken_apart(self) -> Cache:
    """The same with buffers of its own for every layer."""
    return Cache(tuple(self.k), tuple(self.v), self.index)

  def rows(self, rows: slice) -> Cache:
    """The cache of some of the examples; `index` must be the same for all."""
    if not self.apart:
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

  def among(self, sees: Array) -> Array:
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

    every = (lambda x: tuple(map(move, x))) if self.apart else jax.vmap(move)
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
      if not self.apart:
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


def _first(buffer: Array, layer: Array | int, stop: int) -> Array:
  """[B, H, stop, K], the first rows of one layer."""
  _, b, heads, _, features = buffer.shape
  shape = (1, b, heads, stop, features)
  return jax.lax.dynamic_slice(buffer, (layer, 0, 0, 0, 0), shape)[0]


class CosineNorm(nn.Module):
  """Unit queries and keys, with a learned temperature per head.

  q is multiplied by exp(min(t_h, ln 100)) (arXiv 2010.04245, as in VAR); the
  scale of the scores is then 1.
  """

  heads: int

  @nn.compact
  def __call__(self, q: Array, k: Array) -> tuple[Array, Array]:
    """q [B, T, H, K] and k [B, T, Hkv, K], normalised."""
    init = nn.initializers.constant(math.log(4))
    log_scale = self.param("log_scale", init, (self.heads,))
    scale = jnp.exp(jnp.minimum(log_scale, math.log(100)))
    q = _unit(q) * scale[None, None, :, None]
    return q, _unit(k)


def _unit(x: Array) -> Array:
  x = x.astype(jnp.float32)
  square = jnp.sum(jnp.square(x), -1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


class Attention(nn.Module):
  """Multi-head self-attention with one matrix for queries, keys and values.

  Attributes:
    heads: H.
    kv_heads: heads of keys and values; as many as `heads` if None.
    scale: of the scores; 1 / sqrt(K) if None.
    norm: maps (q, k) to normalised ones before they are cached; optional.
    bias: which of q, k and v have a bias, for example "qv".
    out_bias: whether the output matrix has one.
    stddev: initial standard deviation of the input matrix; None is
      Xavier-uniform.
    out_stddev: the same of the output matrix.
    dtype: of the computation.
    impl: of `ops.attention`.
  """

  heads: int
  kv_heads: int | None = None
  scale: float | None = None
  norm: nn.Module | None = None
  bias: str = ""
  out_bias: bool = True
  stddev: float | None = 0.02
  out_stddev: float | None = 0.02
  dtype: jnp.dtype = jnp.float32
  impl: str | None = None

  @nn.compact
  def __call__(
    self,
    x: Array,
    mask: Array | Plan | None = None,
    *,
    pos: Array | None = None,
    cache: Cache | None = None,
    layer: Array | int = 0,
  ) -> tuple[Array, Cache | None]:
    """Attends from x [B, T, D] to itself and to the rows of a cache.

    Args:
      x: [B, T, D].
      mask: as in `ops.attention`, over the rows that are read.
      pos: turns of queries and keys before they are cached; see
        `positions.rotate`.
      cache: keys and values of earlier positions.
      layer: which layer of the cache is ours.

    Returns:
      [B, T, D] and the cache with the new rows.
    """
    b, t, width = x.shape
    features = width // self.heads
    heads = {"q": self.heads}
    heads["k"] = heads["v"] = self.kv_heads or self.heads
    dense = lambda n, stddev, name, bias: Linear(
      n,
      use_bias=bias,
      kernel_init=initial(stddev),
      dtype=self.dtype,
      name=name,
    )
    total = sum(heads.values()) * features
    qkv = dense(total, self.stddev, "qkv", False)(x)
    parts, start = {}, 0
    for name, n in heads.items():
      part = qkv[..., start : start + n * features]
      if name in self.bias:
        zeros = nn.initializers.zeros
        bias = self.param(f"bias_{name}", zeros, (n * features,))
        part = part + bias.astype(self.dtype)[None, None]
      parts[name] = part.reshape(b, t, n, features)
      start += n * features
    q, k, v = parts.values()
    if self.norm is not None:
      q, k = (y.astype(self.dtype) for y in self.norm(q, k))
    if pos is not None:
      q, k = positions.rotate(q, pos), positions.rotate(k, pos)
    if cache is not None:
      k, v, cache = cache.extend(layer, k, v)
    out = ops.attention(q, k, v, mask, scale=self.scale, impl=self.impl)
    out = out.reshape(b, t, width)
    return dense(width, self.out_stddev, "out", self.out_bias)(out), cache


def empty(
  mixer: Attention,
  depth: int,
  batch: int,
  length: int,
  width: int,
  dtype: jnp.dtype,
) -> Cache:
  """An empty cache of `length` rows for `depth` layers of D = `width`."""
  heads = mixer.kv_heads or mixer.heads
  shape = (depth, batch, heads, length, width // mixer.heads)
  rows = jnp.zeros(shape, dtype)
  return Cache(rows, rows)
