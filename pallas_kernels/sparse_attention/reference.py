"""What every implementation must equal: dense attention in float32.

Shapes: B batch, T queries, S keys, H heads, Hkv heads of keys and values, K
features per head, C rows of a cache.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from pallas_kernels.sparse_attention.tiles import Pattern

Array = jax.Array


def attention(
  q: Array,
  k: Array,
  v: Array,
  pattern: Pattern,
  *,
  scale: float | None = None,
) -> tuple[Array, Array]:
  """softmax(scale q k^T) v over the keys that each query sees.

  Args:
    q: [B, T, H, K].
    k: [B, S, Hkv, K], with H a multiple of Hkv; query head h reads h //
      (H // Hkv).
    v: [B, S, Hkv, K].
    pattern: over T queries and S keys.
    scale: multiplies the scores; 1 / sqrt(K) if None.

  Returns:
    out: f32[B, T, H, K]; zero for a query that sees nothing. Other
      implementations round it to the dtype of v.
    lse: f32[B, H, T], the logarithm of the sum of exp(scores) over the keys
      that are seen; -inf for a query that sees nothing. Gradients flow
      through both results.
  """
  check(q, k, v, pattern)
  return dense(q, k, v, jnp.asarray(pattern.mask())[None, None], scale)


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
  """One step's queries over the filled part of a cache and over themselves.

  Args:
    q: [B, T, H, K], the new queries.
    k: [B, T, Hkv, K], the new keys. They are read from here: whether the
      cache holds them too, behind its filled rows, makes no difference.
    v: [B, T, Hkv, K].
    cache_k: [B, C, Hkv, K].
    cache_v: [B, C, Hkv, K].
    lengths: rows of the cache that are filled: one number, static or traced,
      or i32[B]. All new queries see all of them; what the others hold makes
      no difference.
    pattern: which new queries see which new keys, over T and T; all if None.
    scale: multiplies the scores; 1 / sqrt(K) if None.

  Returns:
    out f32[B, T, H, K] and lse f32[B, H, T], as `attention`.
  """
  check_decode(q, k, v, cache_k, cache_v, lengths, pattern)
  mask = decode_mask(lengths, cache_k.shape[1], q.shape[1], pattern)[:, None]
  # What lies behind the filled rows may be anything, also not a number.
  filled = mask[:, 0, 0, : cache_k.shape[1], None, None]
  cache_v = jnp.where(filled, cache_v, 0)
  k = jnp.concatenate([cache_k, k], axis=1)
  v = jnp.concatenate([cache_v, v], axis=1)
  return dense(q, k, v, mask, scale)


def decode_mask(
  lengths: int | Array, rows: int, new: int, pattern: Pattern | None
) -> Array:
  """bool[B | 1, T, C + T]: filled rows of a cache of C, then the new keys."""
  lengths = jnp.atleast_1d(jnp.asarray(lengths, jnp.int32))[:, None, None]
  old = jnp.arange(rows)[None, None, :] < lengths
  old = jnp.broadcast_to(old, (len(lengths), new, rows))
  own = jnp.ones((new, new), bool) if pattern is None else pattern.mask()
  own = jnp.broadcast_to(jnp.asarray(own)[None], (len(lengths), new, new))
  return jnp.concatenate([old, own], axis=2)


def check(q: Array, k: Array, v: Array, pattern: Pattern) -> None:
  """Raises ValueError unless the arguments of `attention` fit together."""
  (b, t, heads, features), (_, s, groups, _) = q.shape, k.shape
  if k.shape != v.shape or k.shape != (b, s, groups, features):
    raise ValueError(
      f"attention: q {q.shape}, k {k.shape} and v {v.shape} must be "
      "[B, T, H, K], [B, S, Hkv, K] and [B, S, Hkv, K]"
    )
  if heads % groups:
    raise ValueError(f"attention: {heads} heads cannot share {groups} of keys")
  if (t, s) != (pattern.queries, pattern.keys):
    raise ValueError(
      f"attention: {t} queries and {s} keys, but the pattern is over "
      f"{pattern.queries} and {pattern.keys}"
    )


def check_decode(
  q: Array,
  k: Array,
  v: Array,
  cache_k: Array,
  cache_v: Array,
  lengths: int | Array,
  pattern: Pattern | None,
) -> None:
  """Raises ValueError unless the arguments of `decode` fit together."""
  (b, t, heads, features), groups = q.shape, k.shape[2]
  rows = cache_k.shape[1]
  new, old = (b, t, groups, features), (b, rows, groups, features)
  if not (k.shape == v.shape == new and cache_k.shape == cache_v.shape == old):
    raise ValueError(
      f"decode: q {q.shape}, k {k.shape}, v {v.shape} and caches "
      f"{cache_k.shape}, {cache_v.shape} must be [B, T, H, K], twice "
      "[B, T, Hkv, K] and twice [B, C, Hkv, K]"
    )
  if heads % groups:
    raise ValueError(f"decode: {heads} heads cannot share {groups} of keys")
  if isinstance(lengths, int) and not 0 <= lengths <= rows:
    raise ValueError(f"decode: length {lengths} of a cache of {rows} rows")
  if jnp.shape(lengths) not in ((), (b,)):
    raise ValueError(
      f"decode: lengths {jnp.shape(lengths)}; one number or [{b}]"
    )
  if pattern is not None and (pattern.queries, pattern.keys) != (t, t):
    raise ValueError(
      f"decode: {t} new positions, but the pattern is over "
      f"{pattern.queries} and {pattern.keys}"
    )


def dense(
  q: Array, k: Array, v: Array, mask: Array, scale: float | None = None
) -> tuple[Array, Array]:
  """`attention` under any mask, bool[B | 1, 1, T, S]."""
  q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
  scale = q.shape[-1] ** -0.5 if scale is None else scale
  repeats = q.shape[2] // k.shape[2]
  k, v = (jnp.repeat(x, repeats, axis=2) for x in (k, v))
  exact = jax.lax.Precision.HIGHEST
  scores = scale * jnp.einsum("bthk,bshk->bhts", q, k, precision=exact)
  some = mask.any(-1, keepdims=True)
  # A row without a key gets one, so that no gradient is 0 * inf; its result
  # is replaced.
  scores = jnp.where(mask | ~some, scores, -jnp.inf)
  lse = jax.nn.logsumexp(scores, axis=-1, keepdims=True)
  weights = jnp.where(some, jnp.exp(scores - lse), 0.0)
  out = jnp.einsum("bhts,bshk->bthk", weights, v, precision=exact)
  return out, jnp.where(some, lse, -jnp.inf)[..., 0]
