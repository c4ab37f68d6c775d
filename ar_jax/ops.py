"""The only door to kernels: each op takes impl=None | "xla" | "pallas".

None means the best that serves here. A named implementation either runs or
raises NotImplementedError with the reason; it never falls back in silence.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


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
    impl: None or "xla".

  Returns:
    i32[...]; the lowest index where codes tie.

  Raises:
    NotImplementedError: the implementation does not exist.
  """
  if impl not in (None, "xla"):
    raise NotImplementedError(f"nearest_code: impl={impl!r}: only 'xla' exists")
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
