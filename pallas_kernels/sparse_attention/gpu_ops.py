"""Operations of the Hopper kernels on one tile, on a GPU or interpreted.

The kernels are written once, over these functions. With `interpret` the
functions avoid what jax's interpreter of Mosaic GPU does not have (in 0.10:
layouts, and products whose left side is in registers); loops, tables, copies,
barriers and arithmetic are then the very code that a GPU runs. Not
interpreted is what only a compiler can check: `wgmma`, the layouts of
registers and the swizzles of shared memory.

A warpgroup (128 threads) is what Mosaic GPU calls a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import mosaic_gpu

Ref = Any
Array = jax.Array


def matrix_buffer(shape: tuple[int, ...], dtype: Any, interpret: bool) -> Any:
  """Shared memory for matrices [..., rows, K] that `wgmma` reads."""
  if interpret:
    return plgpu.SMEM(shape, dtype)
  bits = jnp.finfo(dtype).bits
  swizzle = plgpu.find_swizzle(shape[-1] * bits)
  tiling = plgpu.TilingTransform((8, 8 * swizzle // bits))
  return plgpu.SMEM(
    shape, dtype, transforms=(tiling, plgpu.SwizzleTransform(swizzle))
  )


def products(
  pairs: list[tuple[Ref, Ref]],
  interpret: bool,
  issued: Callable[[], None] = lambda: None,
) -> list[Array]:
  """a b^T for every (a, b) [M, K], [N, K] in shared memory, f32[M, N].

  On a GPU all products are in flight before the first is awaited.

  Args:
    pairs: the operands.
    interpret: see the module.
    issued: called when all products are on their way.
  """
  if interpret:
    issued()
    return [_dot(a[...], b[...], (1, 1)) for a, b in pairs]

  def scope(*accumulators):
    for acc, (a, b) in zip(accumulators, pairs, strict=True):
      plgpu.wgmma(acc, a, b.transpose((1, 0)))
    issued()
    return [acc[...] for acc in accumulators]

  shapes = [plgpu.ACC((a.shape[0], b.shape[0]), jnp.float32) for a, b in pairs]
  return pl.run_scoped(scope, *shapes)


def add_product(
  total: Array,
  a: Array,
  b: Ref,
  interpret: bool,
) -> Array:
  """total + a b, f32[M, N]; a [M, K] in registers, b [K, N] shared memory."""
  if interpret:
    return total + _dot(a, b[...], (1, 0))
  multiply = lambda acc: plgpu.wgmma(acc, a, b)
  return pl.run_state(multiply)(plgpu.ACC.init(total))


def _dot(a: Array, b: Array, axes: tuple[int, int]) -> Array:
  dims = (((axes[0],), (axes[1],)), ((), ()))
  return lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)


def filled(shape: tuple[int, ...], value: float, interpret: bool) -> Array:
  """f32[M, N], or f32[M], one value for each of its rows."""
  x = jnp.full(shape, value, jnp.float32)
  if interpret:
    return x
  layout = plgpu.Layout.WGMMA
  return plgpu.layout_cast(x, layout if len(shape) == 2 else layout.reduce(1))


def load(ref: Ref, axis: int, interpret: bool) -> Array:
  """A vector out of shared memory, to be spread along `axis` of a tile."""
  if interpret:
    return ref[...]
  return plgpu.load(
    ref, *mosaic_gpu.WHOLE, layout=plgpu.Layout.WGMMA.reduce(axis)
  )


def spread(x: Array, shape: tuple[int, int], axis: int) -> Array:
  """A vector along the other axis than `axis`, repeated along `axis`."""
  return lax.broadcast_in_dim(x, shape, [1 - axis])


def clear_rows(ref: Ref, start: Array, interpret: bool) -> None:
  """Zeroes the rows of a matrix in shared memory from `start` on.

  Products that are issued later see it. Half a tile at a time passes through
  the registers, which hold the sums of an attention as well.

  Args:
    ref: [rows, K], rows a multiple of 64.
    start: i32[].
    interpret: see the module.
  """
  for first in range(0, ref.shape[0], 64):
    part = ref.at[pl.ds(first, 64)]
    row = lax.broadcasted_iota(jnp.int32, part.shape, 0)
    if interpret:
      x = part[...]
    else:
      row = plgpu.layout_cast(row, plgpu.Layout.WGMMA)
      x = plgpu.load(part, *mosaic_gpu.WHOLE, layout=plgpu.Layout.WGMMA)
    part[...] = jnp.where(row < start - first, x, jnp.zeros((), x.dtype))
  plgpu.commit_smem()


def registers(compute: int) -> tuple[int, int]:
  """Registers per thread of the warpgroups: (that compute, that load).

  A multiprocessor has 512 per thread of a warpgroup to give away; the kernel
  starts with equal shares, in steps of 8.
  """
  memory = 40
  return min(232, (512 - memory) // compute // 8 * 8), memory
