"""The loop that the three Hopper kernels share.

A block has two warpgroups that compute and one that only issues copies. It
works off its items (see `gpu_work`) in one long pipeline, so that while an
item is finished the operands of the next one are already on their way:

- *held* operands stay for a whole item; each computing warpgroup has two
  buffers of its own for them, for this item and the next;
- *streamed* operands change with every visit; they pass through a ring of
  buffers that both warpgroups read. Operands of one stream travel, and are
  released, together.

Every buffer has a barrier that says that it is ready and one that says that
it is free. The last uses are awaited too, so that no barrier is left with an
arrival that nobody saw.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import mosaic_gpu
from pallas_kernels.sparse_attention import gpu_ops
from pallas_kernels.sparse_attention.gpu_buffers import (
  COMPUTE,
  Half,
  Operand,
  Scratch,
)
from pallas_kernels.sparse_attention.gpu_work import Item, Work, item_at

Ref = Any
Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Kernel:
  """A kernel over the visits of a pattern.

  Attributes:
    name: of the kernel, for profiles.
    work: the rows and their visits.
    batch: examples.
    heads: heads whose rows are items.
    repeats: heads that are streamed to each item, one after the other.
    group: items of how many heads are done together; divides batch * heads.
    stages: buffers in the ring.
    held: see the module; there is at least one.
    streams: see the module.
    start: (half, item) -> carry, after the held operands have come.
    visit: (half, carry, masked) -> carry; it waits for and releases every
      stream.
    finish: (half, item, carry), writes the results of the item.
    ping_pong: whether `Half.change_over` does anything.
    bounds: (refs, item) -> item, with visits that depend on the operands.
  """

  name: str
  work: Work
  batch: int
  heads: int
  repeats: int
  group: int
  stages: int
  held: tuple[Operand, ...]
  streams: tuple[tuple[Operand, ...], ...]
  start: Callable[[Half, Item], Any]
  visit: Callable[[Half, Any, bool], Any]
  finish: Callable[[Half, Item, Any], None]
  ping_pong: bool = False
  bounds: Callable[[Sequence[Ref], Item], Item] | None = None


def launch(
  kernel: Kernel,
  operands: Sequence[Array],
  out_type: Sequence[jax.ShapeDtypeStruct],
  *,
  blocks: int,
  interpret: bool,
) -> Sequence[Array]:
  """Runs a kernel.

  Args:
    kernel: what to do.
    operands: arrays; `refs` holds them first, the results behind them.
    out_type: shapes and types of the results.
    blocks: at most so many blocks, one per multiprocessor.
    interpret: run in jax's interpreter, on the CPU.
  """
  rows, minor = jnp.asarray(kernel.work.rows), jnp.asarray(kernel.work.minor)
  total = len(kernel.work) * kernel.batch * kernel.heads
  blocks = min(blocks, total)
  barriers = lambda n, arrivals: plgpu.Barrier(
    num_arrivals=arrivals, num_barriers=n
  )
  held = [o.buffers(2 * COMPUTE, interpret) for o in kernel.held]
  streams = [
    [o.buffers(kernel.stages, interpret) for o in s] for s in kernel.streams
  ]
  copied = sum(operand.fetch is not None for operand in kernel.held)
  scratch_types = Scratch(
    held,
    streams,
    held_ready=barriers(2 * COMPUTE, copied),
    held_free=barriers(2 * COMPUTE, 1),
    ready=[barriers(kernel.stages, len(s)) for s in streams],
    free=[barriers(kernel.stages, COMPUTE) for _ in streams],
    turn=barriers(1, COMPUTE),
  )

  def body(rows, minor, *args):
    refs = args[: -len(scratch_types)]
    scratch = Scratch(*args[-len(scratch_types) :])
    warpgroup = lax.axis_index("warpgroup")
    block = lax.axis_index("block")
    items = lax.div(total - block + (blocks - 1), jnp.int32(blocks))
    bounds = kernel.bounds or (lambda refs, item: item)
    item_of = lambda i: bounds(
      refs,
      item_at(
        block + i * blocks, rows, kernel.heads, len(kernel.work), kernel.group
      ),
    )
    compute, memory = gpu_ops.registers(COMPUTE)

    @pl.when(warpgroup < COMPUTE)
    def _():
      plgpu.set_max_registers(compute, action="increase")
      half = Half(refs, warpgroup, scratch, kernel.stages, kernel.ping_pong)
      _compute(kernel, half, items, item_of)

    @pl.when(warpgroup == COMPUTE)
    def _():
      plgpu.set_max_registers(memory, action="decrease")
      _fetch(kernel, refs, minor, scratch, items, item_of)

  body.__name__ = kernel.name
  return plgpu.kernel(
    body,
    out_type=list(out_type),
    scratch_types=tuple(scratch_types),
    grid=(blocks,),
    grid_names=("block",),
    num_threads=COMPUTE + 1,
    thread_name="warpgroup",
    compiler_params=plgpu.CompilerParams(approx_math=True),
    interpret=mosaic_gpu.interpreter() if interpret else None,
  )(rows, minor, *operands)


def _compute(kernel: Kernel, half: Half, items: Array, item_of) -> None:
  """The program of a warpgroup that computes."""
  # The second warpgroup begins half a visit behind the first; both change
  # over equally often, so that neither waits for the other in the end.
  pl.when(half.half == 1)(half.change_over)

  def one_item(i, step):
    half.item = item = item_of(i)
    half.take(lax.rem(i, jnp.int32(2)))

    def one_visit(_, carry, masked):
      state, step = carry
      half.turn_to(step)
      return kernel.visit(half, state, masked), step + 1

    carry = kernel.start(half, item), step
    repeats = jnp.int32(kernel.repeats)
    for span, masked in (
      (item.middle - item.start, False),
      (item.stop - item.middle, True),
    ):
      visit = functools.partial(one_visit, masked=masked)
      carry = lax.fori_loop(0, span * repeats, visit, carry)
    kernel.finish(half, item, carry[0])
    half.give_back()
    return carry[1]

  lax.fori_loop(0, items, one_item, jnp.int32(0))
  pl.when(half.half == 0)(half.change_over)


def _fetch(
  kernel: Kernel, refs, minor: Ref, scratch: Scratch, items: Array, item_of
) -> None:
  """The program of the warpgroup that issues copies."""
  stages = jnp.int32(kernel.stages)

  def one_item(i, step):
    item = item_of(i)
    for half in range(COMPUTE):
      slot = lax.rem(i, jnp.int32(2)) * COMPUTE + half
      pl.when(i >= 2)(
        lambda s=slot: plgpu.barrier_wait(scratch.held_free.at[s])
      )
      for operand, buffer in zip(kernel.held, scratch.held, strict=True):
        if operand.fetch is None:
          continue
        source = operand.fetch(refs, item, half)
        barrier = scratch.held_ready.at[slot]
        plgpu.copy_gmem_to_smem(source, buffer.at[slot], barrier)

    def one_visit(j, step, first, span):
      slot = lax.rem(step, stages)
      member = jnp.int32(0)
      if kernel.repeats > 1:
        member, j = lax.div(j, span), lax.rem(j, span)
      tile = minor[first + j]
      for index, operands in enumerate(kernel.streams):
        pl.when(step >= stages)(
          lambda i=index: plgpu.barrier_wait(scratch.free[i].at[slot])
        )
        buffers = scratch.streams[index]
        for operand, buffer in zip(operands, buffers, strict=True):
          source = operand.fetch(refs, item, tile, member)
          barrier = scratch.ready[index].at[slot]
          plgpu.copy_gmem_to_smem(source, buffer.at[slot], barrier)
      return step + 1

    for first, end in ((item.start, item.middle), (item.middle, item.stop)):
      visit = functools.partial(one_visit, first=first, span=end - first)
      count = (end - first) * jnp.int32(kernel.repeats)
      step = lax.fori_loop(0, count, visit, step)
    return step

  steps = lax.fori_loop(0, items, one_item, jnp.int32(0))

  @pl.loop(0, lax.min(items, jnp.int32(2)))
  def _(i):
    last = items - 1 - i
    for half in range(COMPUTE):
      slot = lax.rem(last, jnp.int32(2)) * COMPUTE + half
      plgpu.barrier_wait(scratch.held_free.at[slot])

  @pl.loop(0, lax.min(steps, stages))
  def _(i):
    slot = lax.rem(steps - 1 - i, stages)
    for barrier in scratch.free:
      plgpu.barrier_wait(barrier.at[slot])
