"""Forward kernel for Hopper: out and the log-sum-exp, rows of queries.

Scores are kept times log2(e) scale, so that the exponential is one exp2; the
log-sum-exp in memory is to the base 2. Shapes as in `gpu`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.sparse_attention import gpu_ops as ops
from pallas_kernels.sparse_attention import gpu_work
from pallas_kernels.sparse_attention.gpu_buffers import HALF, ROWS, Operand
from pallas_kernels.sparse_attention.gpu_pipeline import Kernel, launch
from pallas_kernels.sparse_attention.tiles import Pattern, compile_tiles

Array = jax.Array

LOG2E = math.log2(math.e)

# A maximum below every score, yet finite: the difference of two of them is 0.
_LOW = -1e30

NOTHING = 1e30
"""The log-sum-exp, to the base 2, of a query that sees nothing.

With it exp2(score - lse) is 0, as the gradient kernels need it.
"""


KEYS = 128
"""Keys per tile."""


def see(pattern: Pattern, q, k, axis: int, interpret: bool):
  """bool[rows, columns] of a tile, from the integers of its slots.

  Args:
    pattern: the rule.
    q: i32[names + 1, queries], a reference: see `gpu_work.columns`.
    k: i32[names + 1, keys].
    axis: 0 if rows are queries, 1 if they are keys.
    interpret: see `gpu_ops`.
  """
  shape = (q.shape[1], k.shape[1])[:: 1 - 2 * axis]
  tile = lambda ref, n, along: ops.spread(
    ops.load(ref.at[n], along, interpret), shape, along
  )
  names = range(len(pattern.names))
  mask = tile(k, len(names), axis) > 0
  if pattern.names:
    along = 1 - axis
    mask &= pattern.see(
      [tile(q, n, along) for n in names], [tile(k, n, axis) for n in names]
    )
  return mask


def forward(
  q: Array,
  k: Array,
  v: Array,
  pattern: Pattern,
  scale: float,
  *,
  blocks: int,
  interpret: bool,
) -> tuple[Array, Array]:
  """out [B, T, H, K] and lse f32[B, H, padded T], to the base 2."""
  tiles = compile_tiles(pattern, ROWS, KEYS)
  return _run(
    "sparse_attention_forward",
    (q, k, v),
    (
      gpu_work.columns(pattern.query_columns, pattern.queries, ROWS),
      gpu_work.columns(pattern.key_columns, pattern.keys, KEYS),
    ),
    gpu_work.compile_work(tiles.by_query),
    lambda half, q, k: see(pattern, q, k, 0, interpret),
    scale,
    blocks=blocks,
    interpret=interpret,
  )


def over_cache(
  q: Array,
  k: Array,
  v: Array,
  lengths: Array,
  scale: float,
  *,
  blocks: int,
  interpret: bool,
) -> tuple[Array, Array]:
  """All queries over the first rows of a cache.

  Args:
    q: [B, T, H, K].
    k: [B, C, Hkv, K].
    v: [B, C, Hkv, K].
    lengths: i32[B], rows of the cache that are seen; only tiles with such
      rows are loaded.
    scale: of the scores.
    blocks: see `gpu_pipeline.launch`.
    interpret: see `gpu_ops`.
  """
  queries, rows = q.shape[1], k.shape[1]
  row_tiles, key_tiles = -(-queries // ROWS), -(-rows // KEYS)
  # A row of tiles may visit all tiles of keys; `bounds` says how far it goes.
  table = np.zeros((row_tiles, 4), np.int32)
  table[:, 0], table[:, 3] = np.arange(row_tiles), key_tiles
  work = gpu_work.Work(table.reshape(-1), np.arange(key_tiles, dtype=np.int32))
  index = np.arange(key_tiles * KEYS, dtype=np.int32)[None]

  def bounds(refs, item):
    length = refs[5][item.batch]
    end = lax.div(length + (KEYS - 1), jnp.int32(KEYS))
    return item._replace(middle=lax.div(length, jnp.int32(KEYS)), stop=end)

  def mask(half, q, k):
    shape = (q.shape[1], k.shape[1])
    index = ops.spread(ops.load(k.at[0], 0, interpret), shape, 0)
    return index < half.refs[5][half.item.batch]

  def clear(half, v):
    # Zero weights do not hide what is not a number behind the filled rows.
    # The tile is the only partial one of its item: that of the last row.
    filled = lax.rem(half.refs[5][half.item.batch], jnp.int32(KEYS))
    ops.clear_rows(v, filled, interpret)

  return _run(
    "sparse_attention_decode",
    (q, k, v),
    (np.zeros((1, row_tiles * ROWS), np.int32), index),
    work,
    mask,
    scale,
    clear=clear,
    bounds=bounds,
    more=(lengths,),
    blocks=blocks,
    interpret=interpret,
  )


def _run(
  name: str,
  qkv: tuple[Array, Array, Array],
  tables: tuple[np.ndarray, np.ndarray],
  work: gpu_work.Work,
  mask: Callable[..., Array],
  scale: float,
  *,
  clear: Callable[..., None] | None = None,
  bounds: Callable[..., gpu_work.Item] | None = None,
  more: tuple[Array, ...] = (),
  blocks: int,
  interpret: bool,
) -> tuple[Array, Array]:
  """The forward kernel over any work.

  For partial tiles `mask` is asked, and `clear` is given their values before
  they are read.
  """
  q, k, v = qkv
  q_table, k_table = tables
  (batch, _, heads, features), keys = q.shape, k.shape[1]
  repeats = heads // k.shape[2]
  factor = scale * LOG2E
  named = len(q_table), len(k_table)
  rows_of = lambda item, half: pl.ds(item.tile * ROWS + half * HALF, HALF)
  kv_head = lambda item: lax.div(item.head, jnp.int32(repeats))
  key_rows = lambda tile: pl.ds(tile * KEYS, KEYS)

  def start(half, item):
    return (
      ops.filled((HALF, features), 0.0, interpret),
      ops.filled((HALF,), _LOW, interpret),
      ops.filled((HALF,), 0.0, interpret),
    )

  def visit(half, carry, masked):
    acc, top, total = carry
    (q, q_columns, _), ((k, k_columns), (v,)) = half.held, half.streamed
    half.wait(0)
    (s,) = ops.products([(q, k)], interpret, half.change_over)
    if masked:
      s = jnp.where(mask(half, q_columns, k_columns), s, -jnp.inf)
    half.release(0)
    new = jnp.maximum(top, s.max(axis=1) * factor)
    decay = jnp.exp2(top - new)
    p = jnp.exp2(s * factor - ops.spread(new, s.shape, 1))
    acc *= ops.spread(decay, acc.shape, 1)
    total = total * decay + p.sum(axis=1)
    p = p.astype(v.dtype)
    # The softmax is to be over before the other warpgroup goes on with its.
    acc, new, total, p = lax.optimization_barrier((acc, new, total, p))
    half.announce()
    half.wait(1)
    half.await_turn()
    if masked and clear is not None:
      # Both warpgroups do it, each in its turn: no one reads v meanwhile.
      clear(half, v)
    acc = ops.add_product(acc, p, v, interpret)
    half.release(1)
    return acc, new, total

  def finish(half, item, carry):
    acc, top, total = carry
    some = total > 0
    inverse = jnp.where(some, 1 / total, 0.0)
    lse = jnp.where(some, top + jnp.log(total) * LOG2E, NOTHING)
    # The queries are not needed any more: the result goes out from there.
    staged = half.held[0]
    out, lse_out = half.refs[-2:]
    staged[...] = (acc * ops.spread(inverse, acc.shape, 1)).astype(out.dtype)
    lse_staged = half.held[2]
    lse_staged[...] = lse
    plgpu.commit_smem()
    rows = rows_of(item, half.half)
    plgpu.copy_smem_to_gmem(staged, out.at[item.batch, rows, item.head])
    plgpu.copy_smem_to_gmem(lse_staged, lse_out.at[item.batch, item.head, rows])
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)

  kernel = Kernel(
    name=name,
    work=work,
    batch=batch,
    heads=heads,
    repeats=1,
    group=gpu_work.group_of_heads(
      batch * heads, 2 * keys * features * q.dtype.itemsize // repeats
    ),
    # Two tiles of keys and values of 128 features take 128 KB.
    stages=4 if features <= 64 else 2,
    held=(
      Operand(
        (HALF, features),
        q.dtype,
        lambda refs, item, half: refs[0].at[
          item.batch, rows_of(item, half), item.head
        ],
      ),
      Operand(
        (named[0], HALF),
        jnp.int32,
        lambda refs, item, half: refs[3].at[:, rows_of(item, half)],
      ),
      Operand((HALF,), jnp.float32, None),
    ),
    streams=(
      (
        Operand(
          (KEYS, features),
          k.dtype,
          lambda refs, item, tile, _: refs[1].at[
            item.batch, key_rows(tile), kv_head(item)
          ],
        ),
        Operand(
          (named[1], KEYS),
          jnp.int32,
          lambda refs, item, tile, _: refs[4].at[:, key_rows(tile)],
        ),
      ),
      (
        Operand(
          (KEYS, features),
          v.dtype,
          lambda refs, item, tile, _: refs[2].at[
            item.batch, key_rows(tile), kv_head(item)
          ],
        ),
      ),
    ),
    start=start,
    visit=visit,
    finish=finish,
    ping_pong=True,
    bounds=bounds,
  )
  padded = q_table.shape[1]
  out_type = [
    jax.ShapeDtypeStruct(q.shape, q.dtype),
    jax.ShapeDtypeStruct((batch, heads, padded), jnp.float32),
  ]
  out, lse = launch(
    kernel,
    [q, k, v, jnp.asarray(q_table), jnp.asarray(k_table), *more],
    out_type,
    blocks=blocks,
    interpret=interpret,
  )
  return out, lse
