"""Attention under a static mask on NVIDIA Hopper (H100, H200), in Mosaic GPU.

A persistent kernel: two warpgroups multiply with `wgmma` and take turns at
the tensor cores, a third one copies tiles of keys and values with the copy
engine into a ring of buffers. Empty tiles are never loaded, full tiles know
no mask, partial tiles compute theirs from the integers of the slots. Softmax
and all sums are in float32; the operands of the products are 16 bits wide.

What has been run where: interpreted on a CPU (numerics, copies, barriers) and
compiled for an H100 on a machine without one; never yet on a GPU. Inside
`jax.shard_map`, over examples or heads, pass check_vma=False.

Shapes: B batch, T queries, S keys, H heads, Hkv heads of keys and values, K
features per head.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from pallas_kernels.sparse_attention import (
  gpu_backward,
  gpu_forward,
  reference,
)
from pallas_kernels.sparse_attention.gpu_buffers import ROWS
from pallas_kernels.sparse_attention.tiles import Pattern
from pallas_kernels.sparse_attention.tiles import pattern as make_pattern

Array = jax.Array

MULTIPROCESSORS = 132
"""Of an H100 (SXM) and an H200, where jax does not see the device."""


def attention(
  q: Array,
  k: Array,
  v: Array,
  pattern: Pattern,
  *,
  scale: float | None = None,
  interpret: bool = False,
) -> tuple[Array, Array]:
  """softmax(scale q k^T) v over the keys that each query sees.

  Args:
    q: [B, T, H, K], bfloat16 or float16, K a multiple of 16, at most 128.
    k: [B, S, Hkv, K], with H a multiple of Hkv.
    v: [B, S, Hkv, K].
    pattern: over T queries and S keys.
    scale: multiplies the scores, positive; 1 / sqrt(K) if None.
    interpret: run in jax's interpreter of Mosaic GPU, on the CPU.

  Returns:
    out: [B, T, H, K], in the dtype of v; zero for a query that sees nothing.
    lse: f32[B, H, T], see `reference`. Gradients flow through both.

  Raises:
    NotImplementedError: the kernel cannot serve these arguments; says why.
    ValueError: the arguments do not fit together.
  """
  reference.check(q, k, v, pattern)
  if reason := unsupported(q, k, v, scale):
    raise NotImplementedError(f"sparse_attention.gpu: {reason}")
  scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
  return _attention(q, k, v, pattern, scale, interpret)


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
  interpret: bool = False,
) -> tuple[Array, Array]:
  """One step's queries over the filled part of a cache and over themselves.

  Only the tiles of the cache with filled rows are loaded. The two parts are
  two kernels, whose results the log-sum-exp mixes. There is no gradient.

  Args:
    q: [B, T, H, K], as for `attention`.
    k: [B, T, Hkv, K], the new keys.
    v: [B, T, Hkv, K].
    cache_k: [B, C, Hkv, K]; C is best a multiple of 8, else it is copied.
      Rows behind the filled ones may hold anything, also NaN.
    cache_v: [B, C, Hkv, K].
    lengths: rows that are filled: one number, static or traced, or i32[B].
    pattern: which new queries see which new keys; all if None.
    scale: multiplies the scores, positive; 1 / sqrt(K) if None.
    interpret: run in jax's interpreter of Mosaic GPU, on the CPU.

  Returns:
    out [B, T, H, K] and lse f32[B, H, T], as `attention`.

  Raises:
    NotImplementedError: the kernel cannot serve these arguments; says why.
    ValueError: the arguments do not fit together.
  """
  reference.check_decode(q, k, v, cache_k, cache_v, lengths, pattern)
  (batch, new, heads, features), groups = q.shape, k.shape[2]
  if pattern is None:
    pattern = _everything(new)
  if not q.dtype == cache_k.dtype == cache_v.dtype:
    raise NotImplementedError(
      f"sparse_attention.gpu: caches of {cache_k.dtype, cache_v.dtype} for "
      f"queries of {q.dtype}; they must be of one dtype"
    )
  own, own_lse = attention(q, k, v, pattern, scale=scale, interpret=interpret)
  if not cache_k.shape[1]:
    return own, own_lse
  scale = features**-0.5 if scale is None else float(scale)
  lengths = jnp.broadcast_to(jnp.asarray(lengths, jnp.int32), (batch,))
  # The query heads that share a key head become rows of one tile.
  share = heads // groups
  grouped = q.reshape(batch, new, groups, share, features)
  grouped = jnp.swapaxes(grouped, 2, 3).reshape(batch, -1, groups, features)
  old, old_lse = _over_cache(scale, interpret)(
    grouped, cache_k, cache_v, lengths
  )
  old = old.reshape(batch, new, share, groups, features)
  old = jnp.swapaxes(old, 2, 3).reshape(q.shape)
  old_lse = _natural(old_lse, new * share).reshape(batch, groups, new, share)
  old_lse = jnp.swapaxes(old_lse, 2, 3).reshape(own_lse.shape)
  lse = jnp.logaddexp(old_lse, own_lse)
  # Where nothing is seen both results are zero.
  safe = jnp.where(lse == -jnp.inf, 0.0, lse)
  weigh = lambda x, part: (
    x * jnp.swapaxes(jnp.exp(part - safe), 1, 2)[..., None]
  )
  out = weigh(old, old_lse) + weigh(own, own_lse)
  return out.astype(v.dtype), lse


@functools.cache
def _everything(length: int) -> Pattern:
  return make_pattern(_always, {"slot": np.zeros(length)})


def _always(q, k):
  return q["slot"] == k["slot"]


def unsupported(
  q: Array, k: Array, v: Array, scale: float | None = None
) -> str | None:
  """Why the kernel cannot serve these arguments; None if it can."""
  if q.dtype not in (jnp.bfloat16, jnp.float16):
    return (
      f"{q.dtype} is not served: the tensor cores of Hopper multiply float32 "
      "only after rounding it to TF32 (10 bits), which is not float32; cast "
      "to bfloat16 or use impl='xla'"
    )
  if not q.dtype == k.dtype == v.dtype:
    return f"q, k and v must be of one dtype, not {q.dtype, k.dtype, v.dtype}"
  features = q.shape[-1]
  if features % 16 or not 16 <= features <= 128:
    return (
      f"{features} features per head: the tiles of wgmma need a multiple of "
      "16, and registers and shared memory hold at most 128; pad q, k and v"
    )
  if scale is not None and not scale > 0:
    return f"the running maximum needs a positive scale, not {scale}"
  return None


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _attention(q, k, v, pattern, scale, interpret):
  out, lse = _forward(pattern, scale, interpret)(q, k, v)
  return out, _natural(lse, q.shape[1])


def _attention_fwd(q, k, v, pattern, scale, interpret):
  out, lse = _forward(pattern, scale, interpret)(q, k, v)
  return (out, _natural(lse, q.shape[1])), (q, k, v, out, lse)


def _attention_bwd(pattern, scale, interpret, saved, gradients):
  q, k, v, out, lse = saved
  dout, dlse = gradients
  delta = jnp.einsum(
    "bthk,bthk->bht",
    dout.astype(jnp.float32),
    out.astype(jnp.float32),
    precision=jax.lax.Precision.HIGHEST,
  )
  pad = lse.shape[2] - dlse.shape[2]
  # The log-sum-exp of a query that sees nothing is no function of anything.
  seen = lse[:, :, : dlse.shape[2]] < gpu_forward.NOTHING
  delta = jnp.where(seen, delta - dlse, 0.0)
  delta = jnp.pad(delta, ((0, 0), (0, 0), (0, pad)))
  dout = dout.astype(q.dtype)
  return _backward(pattern, scale, interpret)(q, k, v, dout, lse, delta)


_attention.defvjp(_attention_fwd, _attention_bwd)


def _natural(lse: Array, queries: int) -> Array:
  """The log-sum-exp as everybody knows it, from what the kernels keep."""
  lse = lse[:, :, :queries]
  low = lse >= gpu_forward.NOTHING
  return jnp.where(low, -jnp.inf, lse * math.log(2))


@functools.cache
def _forward(pattern: Pattern, scale: float, interpret: bool):
  """(q, k, v) -> (out, lse); vmap makes the batch larger."""

  @_folding
  def call(q, k, v):
    queries = q.shape[1]
    q, k, v = (_to_rows(x, interpret) for x in (q, k, v))
    out, lse = gpu_forward.forward(
      q, k, v, pattern, scale, blocks=_blocks(interpret), interpret=interpret
    )
    return out[:, :queries], lse

  return call


@functools.cache
def _over_cache(scale: float, interpret: bool):
  """(q, k, v, lengths) -> (out, lse)."""

  @_folding
  def call(q, k, v, lengths):
    queries = q.shape[1]
    q, k, v = (_to_rows(x, interpret) for x in (q, k, v))
    run = {"blocks": _blocks(interpret), "interpret": interpret}
    out, lse = gpu_forward.over_cache(q, k, v, lengths, scale, **run)
    return out[:, :queries], lse

  return call


@functools.cache
def _backward(pattern: Pattern, scale: float, interpret: bool):
  """(q, k, v, dout, lse, delta) -> (dq, dk, dv)."""

  @_folding
  def call(q, k, v, dout, lse, delta):
    queries, keys = q.shape[1], k.shape[1]
    q, k, v, dout = (_to_rows(x, interpret) for x in (q, k, v, dout))
    args = (q, k, v, dout, lse, delta, pattern, scale)
    run = {"blocks": _blocks(interpret), "interpret": interpret}
    dq = gpu_backward.dq(*args, **run)
    dk, dv = gpu_backward.dkv(*args, **run)
    return dq[:, :queries], dk[:, :keys], dv[:, :keys]

  return call


def _folding(fn):
  """`fn` of arrays [B, ...] with a vmap that makes one larger batch of two."""
  fn = custom_vmap(fn)

  @fn.def_vmap
  def _(size, batched, *args):
    args = [
      x if b else jnp.broadcast_to(x, (size, *x.shape))
      for x, b in zip(args, batched, strict=True)
    ]
    batch = args[0].shape[1]
    results = fn(*(x.reshape(size * batch, *x.shape[2:]) for x in args))
    results = tuple(x.reshape(size, batch, *x.shape[1:]) for x in results)
    return results, (True,) * len(results)

  return fn


def _to_rows(x: Array, interpret: bool) -> Array:
  """[B, L, H, K] with an L that the copies can serve.

  The copy engine reads zeros behind the end of an array and writes nothing
  there, but counts in groups of 8 rows. Its interpreter knows no such end.
  """
  pad = -x.shape[1] % (ROWS if interpret else 8)
  return jnp.pad(x, ((0, 0), (0, pad), (0, 0), (0, 0))) if pad else x


def _blocks(interpret: bool) -> int:
  """One block per multiprocessor; in the interpreter every block compiles."""
  if interpret:
    return 1
  devices = jax.devices()
  if devices[0].platform == "gpu":
    return devices[0].core_count
  return MULTIPROCESSORS
