"""Nearest row of a codebook in blocks of codes, by plain XLA."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from pallas_kernels.nearest_code import reference

Array = jax.Array
# At most this many distances (256 MiB) at a time.
_AT_ONCE = 2**26


def nearest_code(z: Array, codebook: Array) -> Array:
  """As `reference.nearest_code`, in bounded memory.

  Blocks are of codes, not of tokens, so that an axis of tokens that is
  sharded over devices stays so.
  """
  z, codebook = reference.check(z, codebook)
  vocab, width = codebook.shape
  tokens = max(1, z.size // width)
  # Never absurdly few codes.
  block = min(vocab, max(256, _AT_ONCE // tokens))
  blocks = -(-vocab // block)
  pad = blocks * block - vocab
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
