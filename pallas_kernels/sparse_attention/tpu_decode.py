"""Attention of one step over a cache, for TPU (Mosaic); forward only.

The grid walks the tiles of a cache; the prefetched lengths stop the copies at
the last tile of a row that is filled. Behind the cache, the last grid step
takes the new keys, under the mask of their pattern. New queries are few, so
scores are [queries, keys], with the keys along the lanes.

Shapes: B batch, T new positions, C rows of a cache, H query heads, Hkv heads
of keys and values, G = H / Hkv, K features; R = G T rows of queries that share
a head, N such heads per grid step, Q keys per tile.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.sparse_attention import reference
from pallas_kernels.sparse_attention.tiles import Pattern
from pallas_kernels.sparse_attention.tpu import MASKED, dot, like, unsupported

Array = jax.Array

_ROWS = 1024  # rows of queries per grid step, at most


@dataclasses.dataclass(frozen=True)
class _Job:
  """All that is static about one call."""

  pattern: Pattern | None
  new: int  # T
  groups: int  # G
  rows: int  # R, padded
  block: int  # Q
  heads: int  # N
  scale: float


def decode(
  q: Array,
  k: Array,
  v: Array,
  cache_k: Array,
  cache_v: Array,
  lengths: int | Array,
  pattern: Pattern | None = None,
  *,
  scale: float | None = None,
  block: int | None = None,
  interpret: Any = False,
) -> tuple[Array, Array]:
  """`reference.decode` as a TPU kernel.

  Args:
    q: [B, T, H, K], float32 or bfloat16.
    k: [B, T, Hkv, K].
    v: [B, T, Hkv, K].
    cache_k: [B, C, Hkv, K].
    cache_v: [B, C, Hkv, K].
    lengths: filled rows: an int (static: the grid ends there), i32[] or
      i32[B].
    pattern: which new queries see which new keys; all if None.
    scale: multiplies the scores; 1 / sqrt(K) if None.
    block: keys per tile, a multiple of 128; chosen if None.
    interpret: run as plain JAX, for tests: True or `pltpu.InterpretParams`.

  Returns:
    out [B, T, H, K] in the dtype of v, and lse f32[B, H, T].

  Raises:
    ValueError: shapes do not fit together.
    NotImplementedError: a dtype or a head size that the kernel cannot serve.
  """
  reference.check_decode(q, k, v, cache_k, cache_v, lengths, pattern)
  if reason := unsupported(q, cache_k, cache_v) or unsupported(q, k, v):
    raise NotImplementedError(f"decode: {reason}")
  b, t, heads, features = q.shape
  kv_heads = k.shape[2]
  groups = heads // kv_heads
  scale = features**-0.5 if scale is None else float(scale)
  if isinstance(lengths, int):
    cache_k, cache_v = cache_k[:, :lengths], cache_v[:, :lengths]
  block = block or min(512, -(-max(cache_k.shape[1], 1) // 128) * 128)
  if block % 128:
    raise ValueError(f"decode: tiles of {block} keys; choose a multiple of 128")
  # Rows are (head of the group, position), in whole sublanes of 16 bits.
  rows = -(-groups * t // 16) * 16
  limit = max(1, min(8, _ROWS // rows))
  shared = max(n for n in range(1, limit + 1) if kv_heads % n == 0)
  job = _Job(pattern, t, groups, rows, block, shared, scale)

  def tiled(x, size):
    x = jnp.swapaxes(x, 1, 2)
    return jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % size), (0, 0)))

  q = jnp.swapaxes(q, 1, 2).reshape(b, kv_heads, groups * t, features)
  q = jnp.pad(q, ((0, 0), (0, 0), (0, rows - groups * t), (0, 0)))
  k, v = tiled(k, 128), tiled(v, 128)
  lengths = jnp.broadcast_to(jnp.asarray(lengths, jnp.int32), (b,))
  if not cache_k.shape[1]:  # nothing is filled: a tile that nobody reads
    cache_k, cache_v = (
      jnp.zeros((b, block, kv_heads, features), x.dtype)
      for x in (cache_k, cache_v)
    )
  caches = tiled(cache_k, block), tiled(cache_v, block)
  out, lse = _call(job, lengths, q, k, v, *caches, interpret)
  out = out[:, :, : groups * t].reshape(b, heads, t, features)
  lse = lse[:, :, : groups * t, 0].reshape(b, heads, t)
  return jnp.swapaxes(out, 1, 2), lse


def _integers(job: _Job) -> tuple[np.ndarray, np.ndarray]:
  """i32[names + 1, R, 1] of the queries, i32[names + 1, 1, S] of the keys.

  The last integer is the index; the keys are padded to whole lanes.
  """
  index = np.arange(job.new, dtype=np.int32)[None]
  q = k = index
  if job.pattern is not None:
    q = np.concatenate([job.pattern.query_columns, index])
    k = np.concatenate([job.pattern.key_columns, index])
  q = np.tile(q, (1, job.groups))
  q = np.pad(q, ((0, 0), (0, job.rows - q.shape[1])), mode="edge")
  k = np.pad(k, ((0, 0), (0, -job.new % 128)), constant_values=2**30)
  return q[:, :, None], k[:, None, :]


def _kernel(
  job, lengths, qi, ki, q, k, v, cache_k, cache_v, out, lse, top, total, acc
):
  """acc f32[N, R, K] sums exp(scores - top) v; total f32[N, R, 1] of 1."""
  step = pl.program_id(2)
  last = pl.num_programs(2) - 1
  length = lengths[pl.program_id(0)]

  @pl.when(step == 0)
  def _():
    top[...] = jnp.full(top.shape, MASKED, jnp.float32)
    total[...] = jnp.zeros(total.shape, jnp.float32)
    acc[...] = jnp.zeros(acc.shape, jnp.float32)

  def tile(n, keys, values, mask):
    scores = dot(q[0, n], keys, (1, 1)) * job.scale
    scores = jnp.where(mask, scores, MASKED)
    old = top[n]
    new = jnp.maximum(old, jnp.max(scores, axis=1, keepdims=True))
    # The first tiles of a query may be all masked: nothing, not exp(0).
    weights = jnp.where(mask, jnp.exp(scores - new), 0.0)
    shrink = jnp.exp(old - new)
    top[n] = new
    total[n] = shrink * total[n] + jnp.sum(weights, axis=1, keepdims=True)
    part = dot(weights.astype(values.dtype), values, (1, 0))
    acc[n] = shrink * acc[n] + part

  def each(run):
    loop = lambda n, _: run(n)
    jax.lax.fori_loop(0, job.heads, loop, None)

  start = step * job.block

  @pl.when((step < last) & (start < length))
  def _():
    def filled(shape, axis):
      return start + jax.lax.broadcasted_iota(jnp.int32, shape, axis) < length

    mask = filled((job.rows, job.block), 1)
    rows = filled((job.block, q.shape[-1]), 0)

    def run(n):
      # Zero weights do not hide what is not a number behind the filled rows.
      values = jnp.where(rows, cache_v[0, n], 0).astype(cache_v.dtype)
      tile(n, cache_k[0, n], values, mask)

    each(run)

  @pl.when(step == last)
  def _():
    seen = jnp.broadcast_to(ki[-1] < job.new, (job.rows, ki.shape[2]))
    if job.pattern is not None:
      names = range(len(job.pattern.names))
      own = job.pattern.see([qi[i] for i in names], [ki[i] for i in names])
      seen = seen & own
    each(lambda n: tile(n, k[0, n], v[0, n], seen))

    def write(n):
      some = total[n] > 0
      out[0, n] = (acc[n] / jnp.where(some, total[n], 1.0)).astype(out.dtype)
      log = jnp.where(some, top[n] + jnp.log(total[n]), -jnp.inf)
      lse[0, n] = log

    each(write)


def _call(job, lengths, q, k, v, cache_k, cache_v, interpret):
  b, kv_heads, rows, features = q.shape
  tiles = cache_k.shape[2] // job.block
  integers = _integers(job)

  def cached(i, h, j, lengths):
    # Beyond the last filled tile the same one again: nothing is copied.
    filled = jnp.maximum(pl.cdiv(lengths[i], job.block), 1)
    return i, h, jnp.minimum(j, filled - 1), 0

  own = lambda size, width=features: pl.BlockSpec(
    (1, job.heads, size, width), lambda i, h, j, lengths: (i, h, 0, 0)
  )
  old = pl.BlockSpec((1, job.heads, job.block, features), cached)
  whole = lambda x: pl.BlockSpec(x.shape, lambda *_: (0, 0, 0))
  arrays = q, k, v, cache_k, cache_v
  scratch = [(job.heads, rows, 1)] * 2 + [(job.heads, rows, features)]
  return pl.pallas_call(
    functools.partial(_kernel, job),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(b, kv_heads // job.heads, tiles + 1),
      in_specs=[
        *map(whole, integers),
        own(rows),
        own(k.shape[2]),
        own(k.shape[2]),
        old,
        old,
      ],
      out_specs=[own(rows), own(rows, 1)],
      scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
    ),
    out_shape=[
      like(q.shape, v.dtype, *arrays, lengths),
      like((*q.shape[:3], 1), jnp.float32, *arrays, lengths),
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "parallel", "arbitrary"),
    ),
    interpret=interpret,
    name="sparse_attention_decode",
  )(lengths, *integers, *arrays)
