"""Sparse attention without a kernel: dense products over what is seen.

The queries are cut where the pattern changes (between steps, blocks, fronts);
each group of queries multiplies the keys that some of its queries see and no
others. Few large products are what XLA is best at, so groups merge while that
costs fewer pairs than a call is worth.

Shapes: B batch, T queries, S keys, H heads, Hkv heads of keys and values, K
features per head, C rows of a cache.
"""

from __future__ import annotations

import dataclasses
import functools
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.sparse_attention import reference
from pallas_kernels.sparse_attention.tiles import Pattern

Array = jax.Array

_MASKED = -1e30
# Weights that are kept for the backward pass, in bytes; more are recomputed.
_KEPT = 2**30


@dataclasses.dataclass(frozen=True)
class Group:
  """Queries that are computed together.

  Attributes:
    rows: these queries.
    keys: the ranges of keys that they read.
    dense: whether each of them sees all these keys.
  """

  rows: slice
  keys: tuple[slice, ...]
  dense: bool

  @property
  def pairs(self) -> int:
    """The scores that are computed."""
    size = lambda s: s.stop - s.start
    return size(self.rows) * sum(map(size, self.keys))


def attention(
  q: Array,
  k: Array,
  v: Array,
  pattern: Pattern,
  *,
  scale: float | None = None,
) -> tuple[Array, Array]:
  """`reference.attention`, computing hardly more than the visible pairs.

  Args:
    q: [B, T, H, K].
    k: [B, S, Hkv, K].
    v: [B, S, Hkv, K].
    pattern: over T queries and S keys.
    scale: multiplies the scores; 1 / sqrt(K) if None.

  Returns:
    out [B, T, H, K] in the dtype of v, and lse f32[B, H, T].
  """
  reference.check(q, k, v, pattern)
  groups = split(pattern)
  pairs = q.shape[0] * q.shape[2] * sum(g.pairs for g in groups)
  # Heads go in front of positions once, for all products of matrices.
  q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
  kept = jax.checkpoint if 4 * pairs > _KEPT else lambda f: f
  one = lambda g: kept(functools.partial(_group, pattern, scale, g))(q, k, v)
  outs, sums = zip(*map(one, groups), strict=True)
  out = jnp.swapaxes(jnp.concatenate(outs, axis=2), 1, 2)
  return out.astype(v.dtype), jnp.concatenate(sums, axis=2)


def masked(
  q: Array,
  k: Array,
  v: Array,
  mask: Array | None,
  *,
  scale: float | None = None,
) -> Array:
  """Attention under a mask that is data: every pair is computed.

  Args:
    q: [B, T, H, K].
    k: [B, S, Hkv, K].
    v: [B, S, Hkv, K].
    mask: bool[B | 1, 1, T, S], or None: every query sees every key.
    scale: multiplies the scores; 1 / sqrt(K) if None.

  Returns:
    [B, T, H, K] in the dtype of v; the mean of v for a query that sees
    nothing.
  """
  q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
  out = _attend(q, k, v, mask, scale)[0].astype(v.dtype)
  return jnp.swapaxes(out, 1, 2)


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
) -> tuple[Array, Array]:
  """`reference.decode`; of a static length only the filled rows are read.

  Args:
    q: [B, T, H, K].
    k: [B, T, Hkv, K].
    v: [B, T, Hkv, K].
    cache_k: [B, C, Hkv, K].
    cache_v: [B, C, Hkv, K].
    lengths: filled rows: an int (static), i32[] or i32[B].
    pattern: which new queries see which new keys; all if None.
    scale: multiplies the scores; 1 / sqrt(K) if None.

  Returns:
    out [B, T, H, K] in the dtype of v, and lse f32[B, H, T].
  """
  reference.check_decode(q, k, v, cache_k, cache_v, lengths, pattern)
  heads = lambda x: jnp.swapaxes(x, 1, 2)
  if isinstance(lengths, int):
    cache_k, cache_v = cache_k[:, :lengths], cache_v[:, :lengths]
    filled = None
  else:
    lengths = jnp.atleast_1d(lengths)[:, None]
    filled = jnp.arange(cache_k.shape[1])[None] < lengths  # [B | 1, C]
    # Zero weights do not hide what is not a number behind the filled rows.
    cache_v = jnp.where(filled[:, :, None, None], cache_v, 0)
    filled = filled[:, None, None]
  own = None
  if pattern is not None:
    own = jnp.asarray(pattern.mask())[None, None]
  # The cache is not joined to the new keys: that would copy it.
  parts = [
    _attend(heads(q), heads(a), heads(b), mask, scale)
    for a, b, mask in ((cache_k, cache_v, filled), (k, v, own))
    if a.shape[1]
  ]
  outs, sums = zip(*parts, strict=True)
  lse = jax.nn.logsumexp(jnp.stack(sums), axis=0)
  weigh = lambda x: jnp.exp(x - lse)[..., None]
  out = sum(o * weigh(x) for o, x in zip(outs, sums, strict=True))
  out, lse = _blind(out, lse, lse > 0.5 * _MASKED)
  return heads(out).astype(v.dtype), lse


def _group(pattern, scale, group, q, k, v) -> tuple[Array, Array]:
  """out f32[B, H, t, K] and lse f32[B, H, t] of the t queries of one group."""
  q = q[:, :, group.rows]
  if not group.keys:
    return jnp.zeros_like(q, jnp.float32), jnp.full(q.shape[:3], -jnp.inf)
  k, v = (
    jnp.concatenate([x[:, :, keys] for keys in group.keys], axis=2)
    for x in (k, v)
  )
  if group.dense:
    return _attend(q, k, v, None, scale)
  out, lse = _attend(q, k, v, _mask(pattern, group)[None, None], scale)
  some = pattern.mask(group.rows).any(-1)[None, None]
  return (out, lse) if some.all() else _blind(out, lse, jnp.asarray(some))


def _mask(pattern: Pattern, group: Group) -> Array:
  """bool[queries, keys] of one group, from the integers on the device."""
  columns = pattern.key_columns
  keys = [columns[:, keys] for keys in group.keys]
  # The barrier keeps XLA from computing the mask while it compiles and
  # storing it in the program.
  q, k = jax.lax.optimization_barrier(
    (
      jnp.asarray(pattern.query_columns[:, group.rows, None]),
      jnp.asarray(np.concatenate(keys, axis=1)[:, None, :]),
    )
  )
  seen = jnp.asarray(pattern.see(q, k), bool)
  return jnp.broadcast_to(seen, (q.shape[1], k.shape[2]))


def _blind(out: Array, lse: Array, some: Array) -> tuple[Array, Array]:
  """The convention for queries that see nothing, ~some [B | 1, 1, T]."""
  out = jnp.where(some[..., None], out, 0.0)
  return out, jnp.where(some, lse, -jnp.inf)


def _attend(
  q: Array, k: Array, v: Array, mask: Array | None, scale: float | None
) -> tuple[Array, Array]:
  """Of q [B, H, T, K], k and v [B, Hkv, S, K], mask bool[B | 1, 1, T | 1, S].

  Returns out f32[B, H, T, K] and lse f32[B, H, T].
  """
  b, heads, t, features = q.shape
  groups = k.shape[1]
  scale = features**-0.5 if scale is None else scale
  # The queries that share a key head are rows of one product.
  q = q.reshape(b, groups, -1, features)
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  scores = scale * product("bnrk,bnsk->bnrs", q, k)
  if mask is not None:
    scores = scores.reshape(b, groups, heads // groups, t, -1)
    scores = jnp.where(mask[:, :, None], scores, _MASKED)
    scores = scores.reshape(b, groups, q.shape[2], -1)
  top = jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True))
  weights = jnp.exp(scores - top)
  total = jnp.sum(weights, -1, keepdims=True)
  # Normalising the result takes K divisions a query in place of S.
  out = product("bnrs,bnsk->bnrk", weights.astype(v.dtype), v) / total
  lse = (top + jnp.log(total)).reshape(b, heads, t)
  return out.reshape(b, heads, t, features), lse


# A group costs as much as this many pairs, or as this part of all pairs.
_CALL, _PART = 4096, 256
_CUTS = 96  # places at which groups may begin
_ROWS = 1024  # a group of more queries is halved, which bounds memory
_GAP = 32  # hidden keys between two ranges that are better read than skipped


@functools.lru_cache(maxsize=256)
def split(pattern: Pattern) -> tuple[Group, ...]:
  """The groups of queries that cost least, by dynamic programming."""
  cuts = _cuts(pattern)
  seen = [pattern.mask(slice(a, b)).any(0) for a, b in pairwise(cuts)]
  call = _CALL + pattern.queries * pattern.keys // _PART
  best, start = [0.0], [0]
  for stop in range(1, len(cuts)):
    union, costs = np.zeros(pattern.keys, bool), {}
    for i in reversed(range(stop)):
      rows = cuts[stop] - cuts[i]
      if rows > _ROWS and costs:
        break
      union = union | seen[i]
      costs[i] = best[i] + call + rows * int(union.sum())
    start.append(min(costs, key=costs.get))
    best.append(costs[start[-1]])
  groups, stop = [], len(cuts) - 1
  while stop:
    begin = start[stop]
    rows = slice(cuts[begin], cuts[stop])
    keys = _ranges(np.any(seen[begin:stop], axis=0))
    dense = all(pattern.mask(rows, s).all() for s in keys)
    groups.append(Group(rows, keys, dense))
    stop = begin
  return tuple(reversed(groups))


def _cuts(pattern: Pattern) -> list[int]:
  """0, ..., T: where a query sees other keys than the one before it."""
  length, last, change = pattern.queries, None, []
  for at in range(0, length, 256):
    mask = pattern.mask(slice(at, at + 256))
    rows = mask if last is None else np.concatenate([last, mask])
    moved = (rows[1:] != rows[:-1]).any(1).nonzero()[0]
    change.append(moved + at + (last is None))
    last = mask[-1:]
  change = np.concatenate(change)
  if len(change) > _CUTS:
    # The changes next to an even division.
    ideal = np.linspace(0, length, _CUTS)
    near = np.searchsorted(change, ideal).clip(max=len(change) - 1)
    change = change[near]
  cuts = np.unique(np.concatenate([[0, length], change])).tolist()
  for a, b in pairwise(tuple(cuts)):
    cuts += np.linspace(a, b, -(-(b - a) // _ROWS) + 1, dtype=int).tolist()
  return sorted(set(cuts))


def _ranges(seen: np.ndarray) -> tuple[slice, ...]:
  """The runs of True in bool[S], joined over short gaps."""
  at = seen.nonzero()[0]
  if not len(at):
    return ()
  breaks = np.flatnonzero(np.diff(at) > _GAP)
  first = at[np.r_[0, breaks + 1]]
  last = at[np.r_[breaks, len(at) - 1]]
  return tuple(
    slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True)
  )
