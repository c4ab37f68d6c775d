"""The only door to kernels: each operation takes impl=None | "xla" | "pallas".

`impl=None` picks what is best on the current backend and logs its choice
once. Shapes: B batch, T queries, S keys, H heads, K features per head.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from absl import logging

from ar_jax.core.plan import Plan
from ar_jax.core.system import UserError

Array = jax.Array


@functools.cache
def _choose(op: str, impl: str | None) -> str:
  """The implementation of `op` to run; cached, so that it is logged once."""
  if impl == "pallas":
    raise NotImplementedError(
      f"ops.{op}: impl='pallas' has no kernel yet; use impl='xla' or None"
    )
  if impl not in (None, "xla"):
    raise UserError(f"ops.{op}: impl={impl!r}; choose None, 'xla' or 'pallas'")
  logging.info("ops.%s: xla", op)
  return "xla"


def attention(
  q: Array,
  k: Array,
  v: Array,
  mask: Array | Plan | None = None,
  *,
  scale: float | None = None,
  impl: str | None = None,
) -> Array:
  """Softmax attention, with grouped key-value heads, softmax in float32.

  Args:
    q: [B, T, H, K].
    k: [B, S, Hkv, K], with H a multiple of Hkv.
    v: [B, S, Hkv, K].
    mask: which keys a query sees. None: all; bool[B | 1, 1, T, S]; or a Plan
      with T = S = L, whose structure is known at trace time, so pairs that
      it hides are mostly not computed at all.
    scale: multiplies the scores; 1 / sqrt(K) if None.
    impl: see above.

  Returns:
    [B, T, H, K], in the dtype of v. A query that sees nothing gets the mean.
  """
  _choose("attention", impl)
  scale = q.shape[-1] ** -0.5 if scale is None else scale
  # Heads go in front of positions once, for all products of matrices.
  q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
  if not isinstance(mask, Plan):
    return jnp.swapaxes(_attend(q, k, v, mask, scale), 1, 2)
  parts = []
  for rows, keys, dense in _groups(mask):
    part = None if dense else jnp.asarray(mask.mask(rows)[None, None, :, keys])
    parts.append(
      _attend(q[:, :, rows], k[:, :, keys], v[:, :, keys], part, scale)
    )
  return jnp.swapaxes(jnp.concatenate(parts, axis=2), 1, 2)


def _attend(
  q: Array, k: Array, v: Array, mask: Array | None, scale: float
) -> Array:
  """[B, H, T, K] of q [B, H, T, K] and k, v [B, Hkv, S, K]."""
  b, heads, t, features = q.shape
  groups = k.shape[1]
  # The queries that share a key head are rows of one product.
  q = q.reshape(b, groups, -1, features)
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  scores = scale * product("bnrk,bnsk->bnrs", q, k)
  if mask is not None:
    scores = scores.reshape(b, groups, heads // groups, t, -1)
    scores = jnp.where(mask[:, :, None], scores, -1e30)
    scores = scores.reshape(b, groups, q.shape[2], -1)
  top = jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True))
  weights = jnp.exp(scores - top)
  # Normalising the result takes K divisions a query in place of S.
  out = product("bnrs,bnsk->bnrk", weights.astype(v.dtype), v)
  out = out / jnp.sum(weights, -1, keepdims=True)
  return out.astype(v.dtype).reshape(b, heads, t, features)


# Steps are merged until a group has this many queries: below it, the masked
# pairs that merging adds cost less than the calls that it saves.
_GROUP = 64


@functools.cache
def _groups(plan: Plan) -> tuple[tuple[slice, slice, bool], ...]:
  """(queries, the keys that they need, whether each query sees all those)."""
  return tuple(_split(plan))


def _split(plan: Plan) -> Iterator[tuple[slice, slice, bool]]:
  start = 0
  for step in range(plan.steps):
    stop = plan.span(step).stop
    if stop - start < _GROUP and stop < len(plan):
      continue
    seen = plan.mask(slice(start, stop))
    some = seen.any(0).nonzero()[0]
    keys = slice(int(some[0]), int(some[-1]) + 1)
    yield slice(start, stop), keys, bool(seen[:, keys].all())
    start = stop


def nearest_code(
  z: Array, codebook: Array, *, impl: str | None = None
) -> Array:
  """Index of the nearest row of a codebook, in float32.

  Distances use full float32 products: TF32 or bfloat16 flips codes. They are
  computed over blocks of codes, so that memory is bounded for large inputs
  and an axis of tokens that is sharded over devices stays so.

  Args:
    z: f32[..., d].
    codebook: f32[V, d].
    impl: see above.

  Returns:
    i32[...]; the lowest index where codes tie.

  Raises:
    NotImplementedError: the implementation does not exist.
  """
  _choose("nearest_code", impl)
  z, codebook = z.astype(jnp.float32), codebook.astype(jnp.float32)
  vocab, width = codebook.shape
  tokens = max(1, z.size // width)
  # At most 2^26 distances (256 MiB) at a time, but never absurdly few codes.
  block = min(vocab, max(256, 2**26 // tokens))
  blocks = -(-vocab // block)
  pad = blocks * block - vocab
  # |z - e|^2 = |z|^2 + 2 (|e|^2 / 2 - z.e); |z|^2 does not change the order.
  norms = jnp.pad(
    0.5 * jnp.square(codebook).sum(-1), (0, pad), constant_values=jnp.inf
  ).reshape(blocks, block)
  codes = jnp.pad(codebook, ((0, pad), (0, 0))).reshape(blocks, block, width)

  def best_of(norm, code):
    dots = jnp.einsum(
      "...d,vd->...v", z, code, precision=jax.lax.Precision.HIGHEST
    )
    score = jnp.expand_dims(norm, range(z.ndim - 1)) - dots
    index = jnp.argmin(score, axis=-1).astype(jnp.int32)
    return score.min(axis=-1), index

  if blocks == 1:
    return best_of(norms[0], codes[0])[1]

  def step(best, block_of):
    start, norm, code = block_of
    score, index = best_of(norm, code)
    closer = score < best[0]
    return (
      jnp.where(closer, score, best[0]),
      jnp.where(closer, start + index, best[1]),
    ), None

  first = (
    jnp.full(z.shape[:-1], jnp.inf),
    jnp.zeros(z.shape[:-1], jnp.int32),
  )
  starts = jnp.arange(blocks, dtype=jnp.int32) * block
  (_, index), _ = jax.lax.scan(step, first, (starts, norms, codes))
  return index
