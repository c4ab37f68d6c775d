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

from pallas_kernels.sparse_attention import reference, tpu_grid
from pallas_kernels.sparse_attention.tiles import Pattern

Array = jax.Array

_ROWS = 512  # rows of queries per grid step, at most
_NEW = 1024  # new positions, which are one tile


@dataclasses.dataclass(frozen=True)
class _Job:
  """All that is static about one call."""

  pattern: Pattern | None
  queries: int  # T, or a part of it
  keys: int  # T
  groups: int  # G
  block: int  # Q
  tiles: int  # of the cache
  scale: float

  @property
  def rows(self) -> int:
    """R, in whole sublanes of 16 bits."""
    return -(-self.groups * self.queries // 16) * 16


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
    block: rows of the cache per tile, a multiple of 16; chosen if None.
    interpret: run as plain JAX, for tests: True or `pltpu.InterpretParams`.

  Returns:
    out [B, T, H, K] in the dtype of v, and lse f32[B, H, T].

  Raises:
    ValueError: shapes do not fit together.
    NotImplementedError: a dtype, a head size or a number of new positions that
      the kernel cannot serve.
  """
  reference.check_decode(q, k, v, cache_k, cache_v, lengths, pattern)
  reason = unsupported(q, k, v) or unsupported(q, cache_k, cache_v)
  if reason:
    raise NotImplementedError(f"decode: {reason}")
  batch, t, heads, features = q.shape
  groups, rows = heads // k.shape[2], cache_k.shape[1]
  scale = features**-0.5 if scale is None else float(scale)
  if not rows:  # no cache: a tile of which nothing is read
    cache_k = cache_v = jnp.zeros_like(q, shape=(batch, 16, *k.shape[2:]))
  block = min(block or 512, -(-cache_k.shape[1] // 16) * 16)
  if block % 16:
    raise ValueError(f"decode: tiles of {block} keys; choose a multiple of 16")
  if isinstance(lengths, int):
    rows = lengths
  lengths = jnp.broadcast_to(jnp.asarray(lengths, jnp.int32), (batch,))
  # Not padded to whole tiles, and transposed only, which costs nothing where
  # XLA is free to lay the cache out like that: a step does not copy it.
  keep = lambda x: jnp.swapaxes(x, 1, 2)
  pad = ((0, 0), (0, 0), (0, -t % 128), (0, 0))
  new = [jnp.pad(keep(x), pad) for x in (k, v)]
  most, outs, sums = max(1, _ROWS // groups), [], []
  for start in range(0, t, most):
    part = q[:, start : start + most]
    seen = pattern
    if pattern is not None and part.shape[1] < t:
      seen = _queries(pattern, slice(start, start + most))
    job = _Job(seen, part.shape[1], t, groups, block, -(-rows // block), scale)
    out, lse = _call(
      job, lengths, keep(part), *new, keep(cache_k), keep(cache_v), interpret
    )
    outs.append(out)
    sums.append(lse)
  return keep(jnp.concatenate(outs, axis=2)), jnp.concatenate(sums, axis=2)


def unsupported(q: Array, k: Array, v: Array) -> str | None:
  """Why the kernel cannot serve these arrays; None if it can."""
  if q.shape[1] > _NEW:
    return (
      f"the TPU kernel takes up to {_NEW} new positions, got {q.shape[1]}; "
      "use `tpu.attention` with a pattern over the cache and these"
    )
  return tpu_grid.unsupported(q, k, v)


def _queries(pattern: Pattern, rows: slice) -> Pattern:
  """The pattern of the queries `rows` alone."""
  columns = pattern.query_columns[:, rows]
  return dataclasses.replace(
    pattern, queries=columns.shape[1], query_table=columns.tobytes()
  )


def _integers(job: _Job) -> tuple[np.ndarray, np.ndarray]:
  """i32[names, R, 1] of the queries, i32[names + 1, 1, S] of the keys.

  The last integer of the keys is the index; they are padded to whole lanes.
  Without names the queries have a column that is not read.
  """
  index = np.arange(job.keys, dtype=np.int32)[None]
  if job.pattern is None:
    q, k = np.zeros((1, job.queries), np.int32), index
  else:
    q = job.pattern.query_columns
    k = np.concatenate([job.pattern.key_columns, index])
  q = np.tile(q if len(q) else index[:, : job.queries], (1, job.groups))
  q = np.pad(q, ((0, 0), (0, job.rows - q.shape[1])), mode="edge")
  k = np.pad(k, ((0, 0), (0, -job.keys % 128)), constant_values=2**30)
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
    top[...] = jnp.full(top.shape, tpu_grid.MASKED, jnp.float32)
    total[...] = jnp.zeros(total.shape, jnp.float32)
    acc[...] = jnp.zeros(acc.shape, jnp.float32)

  def tile(n, keys, values, mask):
    scores = tpu_grid.dot(q[0, n], keys, (1, 1)) * job.scale
    scores = jnp.where(mask, scores, tpu_grid.MASKED)
    old = top[n]
    new = jnp.maximum(old, jnp.max(scores, axis=1, keepdims=True))
    # The first tiles of a query may be all masked: nothing, not exp(0).
    weights = jnp.where(mask, jnp.exp(scores - new), 0.0)
    shrink = jnp.exp(old - new)
    top[n] = new
    total[n] = shrink * total[n] + jnp.sum(weights, axis=1, keepdims=True)
    part = tpu_grid.dot(weights.astype(values.dtype), values, (1, 0))
    acc[n] = shrink * acc[n] + part

  def each(run):
    jax.lax.fori_loop(0, q.shape[1], lambda n, _: run(n), None)

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
    seen = jnp.broadcast_to(ki[-1] < job.keys, (job.rows, ki.shape[2]))
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


def _room(job: _Job, shared: int, q: Array, k: Array) -> int:
  """Bytes of VMEM: what comes and goes twice, sums and scores in float32."""
  lanes = -(-q.shape[-1] // 128) * 128
  keys = 2 * shared * (job.block + k.shape[2]) * lanes
  queries = 2 * shared * job.rows * lanes
  scores = 4 * 4 * job.rows * max(job.block, k.shape[2])
  return (2 * (keys + queries)) * q.dtype.itemsize + 2 * queries + scores


def _call(job, lengths, q, k, v, cache_k, cache_v, interpret):
  """out [B, H, t, K] and lse f32[B, H, t] of q [B, H, t, K]."""
  batch, heads, queries, features = q.shape
  kv_heads, rows = k.shape[1], job.rows
  # Rows are (head of the group, position).
  q = q.reshape(batch, kv_heads, -1, features)
  q = jnp.pad(q, ((0, 0), (0, 0), (0, rows - q.shape[2]), (0, 0)))
  limit = max(1, min(8, _ROWS // rows))
  shared = max(n for n in range(1, limit + 1) if kv_heads % n == 0)
  integers = _integers(job)

  def cached(i, h, j, lengths):
    # Beyond the last filled tile the same one again: nothing is copied.
    filled = jnp.maximum(pl.cdiv(lengths[i], job.block), 1)
    return i, h, jnp.minimum(j, filled - 1), 0

  own = lambda size, width=features: pl.BlockSpec(
    (1, shared, size, width), lambda i, h, j, lengths: (i, h, 0, 0)
  )
  old = pl.BlockSpec((1, shared, job.block, features), cached)
  whole = lambda x: pl.BlockSpec(x.shape, lambda *_: (0, 0, 0))
  arrays = q, k, v, cache_k, cache_v
  scratch = [(shared, rows, 1)] * 2 + [(shared, rows, features)]
  out, lse = pl.pallas_call(
    functools.partial(_kernel, job),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(batch, kv_heads // shared, job.tiles + 1),
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
      tpu_grid.like(q.shape, v.dtype, *arrays, lengths),
      tpu_grid.like((*q.shape[:3], 1), jnp.float32, *arrays, lengths),
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "parallel", "arbitrary"),
      vmem_limit_bytes=tpu_grid.vmem_limit(_room(job, shared, q, k)),
    ),
    interpret=interpret,
    name="sparse_attention_decode",
  )(lengths, *integers, *arrays)
  real = job.groups * queries
  out = out[:, :, :real].reshape(batch, heads, queries, features)
  return out, lse[:, :, :real, 0].reshape(batch, heads, queries)
