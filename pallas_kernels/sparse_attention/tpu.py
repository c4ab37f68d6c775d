"""Blockwise sparse attention for TPU (Mosaic), forward and backward.

Online softmax over the tiles that are visited, with the log-sum-exp kept for
the backward pass, which computes the weights again. `tpu_grid` has the walk,
the masks and the glossary of shapes.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from pallas_kernels.sparse_attention import reference
from pallas_kernels.sparse_attention.tiles import Pattern, compile_tiles
from pallas_kernels.sparse_attention.tpu_grid import (
  FIRST,
  HEADS,
  LAST,
  MASKED,
  Job,
  block_sizes,
  call,
  dot,
  each_head,
  fitted,
  like,
  queries_of,
  row_of,
  scores_of,
  unsupported,
)

Array = jax.Array


def attention(
  q: Array,
  k: Array,
  v: Array,
  pattern: Pattern,
  *,
  scale: float | None = None,
  block_q: int | None = None,
  block_k: int | None = None,
  interpret: Any = False,
) -> tuple[Array, Array]:
  """`reference.attention` as a TPU kernel; products in the dtype of q.

  float32 inputs are multiplied in full float32, bfloat16 ones accumulate in
  float32. Differentiable in reverse mode, once.

  Args:
    q: [B, T, H, K], float32 or bfloat16.
    k: [B, S, Hkv, K].
    v: [B, S, Hkv, K].
    pattern: over T queries and S keys.
    scale: multiplies the scores; 1 / sqrt(K) if None.
    block_q: queries per tile, a multiple of 128; chosen if None.
    block_k: keys per tile, a multiple of 128; chosen if None.
    interpret: run as plain JAX, for tests: True or `pltpu.InterpretParams`.

  Returns:
    out [B, T, H, K] in the dtype of v, and lse f32[B, H, T].

  Raises:
    ValueError: shapes do not fit together, or a tile is no multiple of 128.
    NotImplementedError: a dtype or a head size that the kernel cannot serve.
  """
  reference.check(q, k, v, pattern)
  if reason := unsupported(q, k, v):
    raise NotImplementedError(f"attention: {reason}")
  heads, features = q.shape[2:]
  scale = features**-0.5 if scale is None else float(scale)
  if q.dtype == jnp.float32 or math.frexp(scale)[0] == 0.5:
    # Exact, and one product fewer per score.
    q, scale = q * jnp.asarray(scale, q.dtype), 1.0
  groups = heads // k.shape[2]
  limit = max(1, HEADS // groups)
  shared = max(n for n in range(1, limit + 1) if k.shape[2] % n == 0)
  best = fitted(*block_sizes(pattern, groups), shared, groups, q)
  block_q, block_k, shared = block_q or best[0], block_k or best[1], best[2]
  if block_q % 128 or block_k % 128:
    raise ValueError(
      f"attention: tiles of {block_q} x {block_k}; choose multiples of 128"
    )
  job = Job(pattern, block_q, block_k, shared, groups, scale, interpret)
  t, s = pattern.queries, pattern.keys
  # Heads in front of positions; padding to whole tiles is a part of that copy.
  q, k, v = (
    jnp.pad(jnp.swapaxes(x, 1, 2), ((0, 0), (0, 0), (0, -n % block), (0, 0)))
    for x, n, block in ((q, t, block_q), (k, s, block_k), (v, s, block_k))
  )
  out, lse = _attention(job, q, k, v)
  return jnp.swapaxes(out[:, :, :t], 1, 2), lse[:, :, :t]


def _forward_kernel(
  job, major, minor, flags, qi, ki, q, k, v, out, lse, top, total, acc
):
  """acc f32[N, K, G Q] sums exp(scores - top) v; total f32[N, 1, G Q] of 1."""
  flag = flags[pl.program_id(2)]

  @pl.when(flag & FIRST != 0)
  def _():
    top[...] = jnp.full(top.shape, MASKED, jnp.float32)
    total[...] = jnp.zeros(total.shape, jnp.float32)
    acc[...] = jnp.zeros(acc.shape, jnp.float32)

  def tile(n, mask):
    scores = scores_of(job, queries_of(job, q, n), k[0, n], mask)
    old = top[n]
    new = jnp.maximum(old, jnp.max(scores, axis=0, keepdims=True))
    weights = jnp.exp(scores - new)
    shrink = jnp.exp(old - new)
    top[n] = new
    total[n] = shrink * total[n] + jnp.sum(weights, axis=0, keepdims=True)
    part = dot(v[0, n], weights.astype(v.dtype), (0, 0))
    acc[n] = shrink * acc[n] + part

  each_head(job, flag, qi, ki, tile)

  @pl.when(flag & LAST != 0)
  def _():
    def write(n, _):
      # A query that has seen masked scores only has summed nonsense.
      blind = top[n] <= 0.5 * MASKED
      divisor = jnp.where(blind, jnp.inf, total[n])
      result = jnp.transpose(acc[n] / divisor).astype(out.dtype)
      log = jnp.where(blind, -jnp.inf, top[n] + jnp.log(total[n]))
      for g in range(job.groups):
        rows = slice(g * job.block_q, (g + 1) * job.block_q)
        out[0, n * job.groups + g] = result[rows]
        lse[0, n * job.groups + g] = log[:, rows]

    jax.lax.fori_loop(0, job.kv_heads, write, None)


def _dq_kernel(
  job, major, minor, flags, qi, ki, q, k, v, do, lse, delta, dq, acc
):
  """acc f32[N, K, G Q] sums k^T dS^T, with dS = P (dO v^T - delta)."""
  flag = flags[pl.program_id(2)]

  @pl.when(flag & FIRST != 0)
  def _():
    acc[...] = jnp.zeros(acc.shape, jnp.float32)

  def tile(n, mask):
    scores = scores_of(job, queries_of(job, q, n), k[0, n], mask)
    weights = jnp.exp(scores - row_of(job, lse, n))
    back = dot(v[0, n], queries_of(job, do, n), (1, 1))
    back = weights * (back - row_of(job, delta, n))
    acc[n] += dot(k[0, n], back.astype(k.dtype), (0, 0))

  each_head(job, flag, qi, ki, tile)

  @pl.when(flag & LAST != 0)
  def _():
    def write(n, _):
      result = jnp.transpose(acc[n] * job.scale).astype(dq.dtype)
      for g in range(job.groups):
        rows = slice(g * job.block_q, (g + 1) * job.block_q)
        dq[0, n * job.groups + g] = result[rows]

    jax.lax.fori_loop(0, job.kv_heads, write, None)


def _dkv_kernel(
  job, major, minor, flags, qi, ki, q, k, v, do, lse, delta, dk, dv, dk_, dv_
):
  """The sums dk_, dv_ f32[N, C, K], over the queries that see a tile."""
  flag = flags[pl.program_id(2)]

  @pl.when(flag & FIRST != 0)
  def _():
    dk_[...] = jnp.zeros(dk_.shape, jnp.float32)
    dv_[...] = jnp.zeros(dv_.shape, jnp.float32)

  def tile(n, mask):
    rows, grads = queries_of(job, q, n), queries_of(job, do, n)
    weights = jnp.exp(scores_of(job, rows, k[0, n], mask) - row_of(job, lse, n))
    dv_[n] += dot(weights.astype(do.dtype), grads, (1, 0))
    back = dot(v[0, n], grads, (1, 1))
    back = weights * (back - row_of(job, delta, n))
    dk_[n] += dot(back.astype(q.dtype), rows, (1, 0))

  each_head(job, flag, qi, ki, tile)

  @pl.when(flag & LAST != 0)
  def _():
    dk[0] = (dk_[...] * job.scale).astype(dk.dtype)
    dv[0] = dv_[...].astype(dv.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(job: Job, q: Array, k: Array, v: Array):
  """out [B, H, T, K] and lse f32[B, H, T] of whole tiles."""
  return _forward(job, q, k, v)[0]


def _forward(job, q, k, v):
  rows, features = job.groups * job.block_q, q.shape[-1]
  lse = like((*q.shape[:2], 1, q.shape[2]), jnp.float32, q, k, v)
  out, lse = call(
    job,
    _forward_kernel,
    compile_tiles(job.pattern, job.block_q, job.block_k).by_query,
    [(q, "q"), (k, "k"), (v, "k")],
    [(like(q.shape, v.dtype, q, k, v), "q"), (lse, "q")],
    [(job.kv_heads, 1, rows)] * 2 + [(job.kv_heads, features, rows)],
    by_query=True,
  )
  return (out, lse[:, :, 0]), (q, k, v, out, lse[:, :, 0])


def _backward(job, saved, grads):
  q, k, v, out, lse = saved
  do, dlse = grads
  delta = jnp.sum(do.astype(jnp.float32) * out.astype(jnp.float32), -1) - dlse
  # A query that sees nothing has masked scores only: their weights are zero
  # against any finite number.
  lse = jnp.where(lse == -jnp.inf, 0.0, lse)
  do = do.astype(v.dtype)
  inputs = [(q, "q"), (k, "k"), (v, "k"), (do, "q")]
  inputs += [(lse[:, :, None], "q"), (delta[:, :, None], "q")]
  tiles = compile_tiles(job.pattern, job.block_q, job.block_k)
  features = q.shape[-1]
  same = lambda x: like(x.shape, x.dtype, q, k, v, do)
  (dq,) = call(
    job,
    _dq_kernel,
    tiles.by_query,
    inputs,
    [(same(q), "q")],
    [(job.kv_heads, features, job.groups * job.block_q)],
    by_query=True,
  )
  dk, dv = call(
    job,
    _dkv_kernel,
    tiles.by_key,
    inputs,
    [(same(k), "k"), (same(v), "k")],
    [(job.kv_heads, job.block_k, features)] * 2,
    by_query=False,
  )
  return dq, dk, dv


_attention.defvjp(_forward, _backward)
