"""Gradient kernels for Hopper: dQ over rows of queries, dK and dV over keys.

With the log-sum-exp of the forward pass every weight is computed again from
its score alone; delta is the sum of dOut Out over the features, less the
gradient of the log-sum-exp. Shapes as in `gpu`; dkv works on transposed
tiles, whose rows are keys.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.sparse_attention import gpu_ops as ops
from pallas_kernels.sparse_attention import gpu_work
from pallas_kernels.sparse_attention.gpu_buffers import HALF, ROWS, Operand
from pallas_kernels.sparse_attention.gpu_forward import LOG2E, see
from pallas_kernels.sparse_attention.gpu_pipeline import Kernel, launch
from pallas_kernels.sparse_attention.tiles import Pattern, compile_tiles

Array = jax.Array


QUERIES = 64
"""Queries per tile of dkv, whose registers hold two sums and two scores."""


def _keys(features: int) -> int:
  """Keys per tile of dq, whose registers hold one sum and two scores."""
  return 128 if features <= 64 else 64


def _stages(features: int) -> int:
  """Buffers beside the 128 KB that held operands of 128 features take."""
  return 3 if features <= 64 else 2


def dq(
  q: Array,
  k: Array,
  v: Array,
  dout: Array,
  lse: Array,
  delta: Array,
  pattern: Pattern,
  scale: float,
  *,
  blocks: int,
  interpret: bool,
) -> Array:
  """The gradient of the queries, [B, T, H, K].

  Args:
    q: [B, T, H, K].
    k: [B, S, Hkv, K].
    v: [B, S, Hkv, K].
    dout: [B, T, H, K].
    lse: f32[B, H, padded T], to the base 2.
    delta: f32[B, H, padded T].
    pattern: over T queries and S keys.
    scale: of the scores.
    blocks: see `gpu_pipeline.launch`.
    interpret: see `gpu_ops`.
  """
  (batch, _, heads, features), keys = q.shape, k.shape[1]
  repeats = heads // k.shape[2]
  wide = _keys(features)
  tiles = compile_tiles(pattern, ROWS, wide)
  q_table = gpu_work.columns(pattern.query_columns, pattern.queries, ROWS)
  k_table = gpu_work.columns(pattern.key_columns, pattern.keys, wide)
  named = len(q_table)
  rows_of = lambda item, half: pl.ds(item.tile * ROWS + half * HALF, HALF)
  kv_head = lambda item: lax.div(item.head, jnp.int32(repeats))
  key_rows = lambda tile: pl.ds(tile * wide, wide)

  def start(half, item):
    _, _, lse, delta, _ = half.held
    return (
      ops.filled((HALF, features), 0.0, interpret),
      ops.load(lse, 1, interpret),
      ops.load(delta, 1, interpret),
    )

  def visit(half, carry, masked):
    acc, lse, delta = carry
    q, dout, _, _, q_columns = half.held
    ((k, k_columns), (v,)) = half.streamed
    half.wait(0)
    half.wait(1)
    s, dp = ops.products([(q, k), (dout, v)], interpret)
    half.release(1)
    p = jnp.exp2(s * (scale * LOG2E) - ops.spread(lse, s.shape, 1))
    if masked:
      p = jnp.where(see(pattern, q_columns, k_columns, 0, interpret), p, 0.0)
    ds = p * (dp - ops.spread(delta, s.shape, 1))
    acc = ops.add_product(acc, ds.astype(k.dtype), k, interpret)
    half.release(0)
    return acc, lse, delta

  def finish(half, item, carry):
    staged, (out,) = half.held[0], half.refs[-1:]
    staged[...] = (carry[0] * scale).astype(out.dtype)
    plgpu.commit_smem()
    target = out.at[item.batch, rows_of(item, half.half), item.head]
    plgpu.copy_smem_to_gmem(staged, target)
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)

  rows = lambda n: Operand(
    (HALF, features),
    q.dtype,
    lambda refs, item, half: refs[n].at[
      item.batch, rows_of(item, half), item.head
    ],
  )
  numbers = lambda n: Operand(
    (HALF,),
    jnp.float32,
    lambda refs, item, half: refs[n].at[
      item.batch, item.head, rows_of(item, half)
    ],
  )
  streamed = lambda n: Operand(
    (wide, features),
    k.dtype,
    lambda refs, item, tile, _: refs[n].at[
      item.batch, key_rows(tile), kv_head(item)
    ],
  )
  kernel = Kernel(
    name="sparse_attention_dq",
    work=gpu_work.compile_work(tiles.by_query),
    batch=batch,
    heads=heads,
    repeats=1,
    group=gpu_work.group_of_heads(
      batch * heads, 2 * keys * features * k.dtype.itemsize // repeats
    ),
    stages=_stages(features),
    held=(
      rows(0),
      rows(3),
      numbers(4),
      numbers(5),
      Operand(
        (named, HALF),
        jnp.int32,
        lambda refs, item, half: refs[6].at[:, rows_of(item, half)],
      ),
    ),
    streams=(
      (
        streamed(1),
        Operand(
          (named, wide),
          jnp.int32,
          lambda refs, item, tile, _: refs[7].at[:, key_rows(tile)],
        ),
      ),
      (streamed(2),),
    ),
    start=start,
    visit=visit,
    finish=finish,
  )
  (out,) = launch(
    kernel,
    [q, k, v, dout, lse, delta, jnp.asarray(q_table), jnp.asarray(k_table)],
    [jax.ShapeDtypeStruct(q.shape, q.dtype)],
    blocks=blocks,
    interpret=interpret,
  )
  return out


def dkv(
  q: Array,
  k: Array,
  v: Array,
  dout: Array,
  lse: Array,
  delta: Array,
  pattern: Pattern,
  scale: float,
  *,
  blocks: int,
  interpret: bool,
) -> tuple[Array, Array]:
  """The gradients of the keys and values, [B, S, Hkv, K]; arguments as `dq`.

  The query heads that share a key head are summed in registers.
  """
  (batch, queries, heads, features), groups = q.shape, k.shape[2]
  repeats = heads // groups
  tiles = compile_tiles(pattern, QUERIES, ROWS)
  q_table = gpu_work.columns(pattern.query_columns, pattern.queries, QUERIES)
  k_table = gpu_work.columns(pattern.key_columns, pattern.keys, ROWS)
  named = len(q_table)
  rows_of = lambda item, half: pl.ds(item.tile * ROWS + half * HALF, HALF)
  q_head = lambda item, member: item.head * repeats + member
  q_rows = lambda tile: pl.ds(tile * QUERIES, QUERIES)

  def start(half, item):
    zeros = ops.filled((HALF, features), 0.0, interpret)
    return zeros, zeros

  def visit(half, carry, masked):
    dk, dv = carry
    k, v, k_columns = half.held
    (q, lse, q_columns), (dout, delta) = half.streamed
    half.wait(0)
    half.wait(1)
    s, dp = ops.products([(k, q), (v, dout)], interpret)
    lse = ops.spread(ops.load(lse, 0, interpret), s.shape, 0)
    p = jnp.exp2(s * (scale * LOG2E) - lse)
    if masked:
      p = jnp.where(see(pattern, q_columns, k_columns, 1, interpret), p, 0.0)
    delta = ops.spread(ops.load(delta, 0, interpret), s.shape, 0)
    ds = p * (dp - delta)
    dv = ops.add_product(dv, p.astype(dout.dtype), dout, interpret)
    half.release(1)
    dk = ops.add_product(dk, ds.astype(q.dtype), q, interpret)
    half.release(0)
    return dk, dv

  def finish(half, item, carry):
    rows = rows_of(item, half.half)
    results = zip(carry, (scale, 1.0), half.held, half.refs[-2:], strict=False)
    results = list(results)
    for value, factor, staged, out in results:
      staged[...] = (value * factor).astype(out.dtype)
    plgpu.commit_smem()
    for _, _, staged, out in results:
      plgpu.copy_smem_to_gmem(staged, out.at[item.batch, rows, item.head])
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)

  held = lambda n: Operand(
    (HALF, features),
    k.dtype,
    lambda refs, item, half: refs[n].at[
      item.batch, rows_of(item, half), item.head
    ],
  )
  streamed = lambda n: Operand(
    (QUERIES, features),
    q.dtype,
    lambda refs, item, tile, member: refs[n].at[
      item.batch, q_rows(tile), q_head(item, member)
    ],
  )
  numbers = lambda n: Operand(
    (QUERIES,),
    jnp.float32,
    lambda refs, item, tile, member: refs[n].at[
      item.batch, q_head(item, member), q_rows(tile)
    ],
  )
  kernel = Kernel(
    name="sparse_attention_dkv",
    work=gpu_work.compile_work(tiles.by_key),
    batch=batch,
    heads=groups,
    repeats=repeats,
    group=gpu_work.group_of_heads(
      batch * groups, 2 * queries * features * q.dtype.itemsize * repeats
    ),
    stages=_stages(features),
    held=(
      held(1),
      held(2),
      Operand(
        (named, HALF),
        jnp.int32,
        lambda refs, item, half: refs[7].at[:, rows_of(item, half)],
      ),
    ),
    streams=(
      (
        streamed(0),
        numbers(4),
        Operand(
          (named, QUERIES),
          jnp.int32,
          lambda refs, item, tile, _: refs[6].at[:, q_rows(tile)],
        ),
      ),
      (streamed(3), numbers(5)),
    ),
    start=start,
    visit=visit,
    finish=finish,
  )
  dk, dv = launch(
    kernel,
    [q, k, v, dout, lse, delta, jnp.asarray(q_table), jnp.asarray(k_table)],
    [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (k, v)],
    blocks=blocks,
    interpret=interpret,
  )
  return dk, dv
