"""Nearest row of a codebook on a Hopper GPU (Mosaic GPU).

A warpgroup holds 64 tokens and walks through the codes, 128 at a time, which
the copy engine brings one step ahead. Tensor cores have no float32: TF32
keeps 11 bits of a factor and flips codes. So products are those of the CUDA
cores, feature by feature, in float32; a product and its sum may be rounded
once instead of twice. Ties go to the lowest index, as on the TPU.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import mosaic_gpu
from pallas_kernels.nearest_code import reference

Array = jax.Array
_TOKENS, _CODES = 64, 128
# Two blocks of codes and one of tokens fit in shared memory.
WIDEST = 128


def refusal(width: int) -> str | None:
  """Why this kernel cannot serve a codebook; None if it can."""
  if width > WIDEST:
    return (
      f"nearest_code: {width} features; the GPU kernel holds {WIDEST} in "
      "shared memory; use the xla form"
    )
  return None


def nearest_code(z: Array, codebook: Array) -> Array:
  """As `reference.nearest_code`, for Hopper.

  Raises:
    NotImplementedError: the codes are wider than `WIDEST`.
  """
  z, codebook = reference.check(z, codebook)
  shape, width = z.shape[:-1], z.shape[-1]
  if reason := refusal(width):
    raise NotImplementedError(reason)
  if not z.size:
    return jnp.zeros(shape, jnp.int32)
  # Features are rows, so that a feature of a block is one line of memory.
  tokens = z.reshape(-1, width).T
  count = tokens.shape[1]
  fill = lambda x, n, value: jnp.pad(
    x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % n)], constant_values=value
  )
  tokens = fill(tokens, _TOKENS, 0.0)
  norms = fill(0.5 * jnp.square(codebook).sum(-1), _CODES, jnp.inf)
  index = plgpu.kernel(
    _block,
    out_type=jax.ShapeDtypeStruct(tokens.shape[1:], jnp.int32),
    grid=(tokens.shape[1] // _TOKENS,),
    grid_names=("tokens",),
    scratch_types=(
      plgpu.SMEM((width, _TOKENS), jnp.float32),
      plgpu.SMEM((_TOKENS,), jnp.int32),
      plgpu.Barrier(),
    ),
  )(tokens, fill(codebook.T, _CODES, 0.0), norms)
  return index[:count].reshape(shape)


def _block(z_hbm, codes_hbm, norms_hbm, out_hbm, z, out, arrived):
  here = pl.ds(lax.axis_index("tokens") * _TOKENS, _TOKENS)
  plgpu.copy_gmem_to_smem(z_hbm.at[:, here], z, arrived)
  plgpu.barrier_wait(arrived)
  width, tile = z.shape[0], (_TOKENS, _CODES)
  layout = plgpu.Layout.WGMMA
  along = lambda ref, axis: lax.broadcast_in_dim(
    plgpu.load(ref, *mosaic_gpu.WHOLE, layout=layout.reduce(axis)),
    tile,
    [1 - axis],
  )
  rows = lambda value, dtype: plgpu.layout_cast(
    jnp.full((_TOKENS,), value, dtype), layout.reduce(1)
  )

  def step(indices, codes, norms, carry):
    best, index = carry

    def feature(i, dots):
      return dots + along(z.at[i], 1) * along(codes.at[i], 0)

    zero = plgpu.layout_cast(jnp.zeros(tile, jnp.float32), layout)
    dots = lax.fori_loop(0, width, feature, zero)
    score = along(norms, 0) - dots
    low = score.min(axis=1)
    place = plgpu.layout_cast(lax.broadcasted_iota(jnp.int32, tile, 1), layout)
    place = place + indices[0] * _CODES
    equal = score == lax.broadcast_in_dim(low, tile, [0])
    first = jnp.where(equal, place, jnp.int32(2**31 - 1)).min(axis=1)
    closer = low < best
    # All threads are done with the codes before the next ones overwrite them.
    plgpu.commit_smem()
    return jnp.where(closer, low, best), jnp.where(closer, first, index)

  _, index = plgpu.emit_pipeline(
    step,
    grid=(codes_hbm.shape[1] // _CODES,),
    in_specs=[
      plgpu.BlockSpec((width, _CODES), lambda v: (0, v)),
      plgpu.BlockSpec((_CODES,), lambda v: (v,)),
    ],
    max_concurrent_steps=2,
    init_carry=(rows(jnp.inf, jnp.float32), rows(0, jnp.int32)),
  )(codes_hbm, norms_hbm)
  out[...] = index
  plgpu.commit_smem()
  plgpu.copy_smem_to_gmem(out, out_hbm.at[here])
  plgpu.wait_smem_to_gmem(0)
