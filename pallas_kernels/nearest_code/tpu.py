"""Nearest row of a codebook on a TPU core.

Tokens lie along lanes and codes along sublanes, so that the best of a block
of codes is found by comparing registers, and the answer is a dense row.

What is exact. Up to `_WIDEST` features, products are float32 multiplications
on the vector unit, added feature by feature: every operation is rounded once
to float32, as on a CPU. (Codebooks of images are that narrow, 8 to 64, and
the matrix unit would be mostly padding.) Wider codebooks use the matrix unit
with Precision.HIGHEST: each float32 is split into three bfloat16 pieces,
which hold all of its 24 bits, and six of the nine products are added in
float32; what is left out is below 2^-22 of a product. Three passes
(Precision.HIGH) keep about 16 bits, and flip codes. Integers up to 2^16 are
exact either way while sums stay below 2^24. Ties go to the lowest index:
inside a block by the least index among equals, across blocks because a later
one must be strictly closer.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.nearest_code import reference

Array = jax.Array
_WIDEST = 64
_TOKENS, _CODES = 512, 256


def nearest_code(
  z: Array,
  codebook: Array,
  *,
  interpret: bool | pltpu.InterpretParams = False,
) -> Array:
  """As `reference.nearest_code`, for TPU."""
  z, codebook = reference.check(z, codebook)
  shape, width = z.shape[:-1], z.shape[-1]
  vocab = codebook.shape[0]
  # Tokens as columns: d x tokens is small beside what it is compared with.
  columns = z.reshape(-1, width).T
  tokens = columns.shape[1]
  if not tokens:
    return jnp.zeros(shape, jnp.int32)
  wide = min(_TOKENS, -(-tokens // 128) * 128)
  high = min(_CODES, -(-vocab // 8) * 8)
  index = pl.pallas_call(
    functools.partial(_block, vocab=vocab, exact=width <= _WIDEST),
    grid=(pl.cdiv(tokens, wide), pl.cdiv(vocab, high)),
    in_specs=[
      pl.BlockSpec((width, wide), lambda t, v: (0, t)),
      pl.BlockSpec((high, width), lambda t, v: (v, 0)),
    ],
    out_specs=pl.BlockSpec((1, wide), lambda t, v: (0, t)),
    out_shape=jax.ShapeDtypeStruct((1, tokens), jnp.int32),
    scratch_shapes=[pltpu.VMEM((1, wide), jnp.float32)],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "arbitrary"),
    ),
    interpret=interpret,
    name="nearest_code",
  )(columns, codebook)
  return index.reshape(shape)


def _block(z_ref, code_ref, index_ref, best_ref, *, vocab: int, exact: bool):
  """Best of a block of codes for a block of tokens, and of those before."""
  step = pl.program_id(1)

  @pl.when(step == 0)
  def _():
    best_ref[...] = jnp.full_like(best_ref, jnp.inf)
    index_ref[...] = jnp.zeros_like(index_ref)

  codes = code_ref[...]
  high, width = codes.shape
  if exact:
    norm = dots = None
    for i in range(width):
      code = codes[:, i : i + 1]
      square, dot = code * code, code * z_ref[i : i + 1, :]
      norm = square if norm is None else norm + square
      dots = dot if dots is None else dots + dot
  else:
    norm = jnp.sum(codes * codes, 1, keepdims=True)
    dots = jnp.dot(
      codes,
      z_ref[...],
      precision=jax.lax.Precision.HIGHEST,
      preferred_element_type=jnp.float32,
    )
  index = step * high + jax.lax.broadcasted_iota(jnp.int32, dots.shape, 0)
  # Rows beyond the codebook hold anything.
  score = jnp.where(index < vocab, 0.5 * norm - dots, jnp.inf)
  best = jnp.min(score, 0, keepdims=True)
  # Indices as floats, whose minimum is exact below 2^24 and cheap.
  among = jnp.where(score == best, index, vocab).astype(jnp.float32)
  first = jnp.min(among, 0, keepdims=True).astype(jnp.int32)
  closer = best < best_ref[...]
  index_ref[...] = jnp.where(closer, first, index_ref[...])
  best_ref[...] = jnp.where(closer, best, best_ref[...])
