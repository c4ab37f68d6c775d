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

from pallas_kernels.sparse_attention import gpu_ops
from pallas_kernels.sparse_attention.gpu_work import Item, Work, item_at

Ref = Any
Array = jax.Array

COMPUTE = 2
"""Warpgroups that compute; each has half of the rows of a tile."""

HALF = 64
"""Rows of a tile that one warpgroup owns: the rows of one `wgmma`."""

ROWS = COMPUTE * HALF
"""Rows of a tile."""


@dataclasses.dataclass(frozen=True)
class Operand:
  """What is copied into one buffer.

  Attributes:
    shape: of the buffer.
    dtype: of the buffer.
    fetch: held: (refs, item, half) -> the part of a reference to copy, with
      half 0 or 1; streamed: (refs, item, tile, member) -> the same, with the
      tile of the visit and the head within its group (0 unless `repeats`).
      None: the buffer is there for results only.
  """

  shape: tuple[int, ...]
  dtype: Any
  fetch: Callable[..., Ref] | None

  def buffers(self, count: int, interpret: bool) -> Any:
    shape = (count, *self.shape)
    if jnp.issubdtype(self.dtype, jnp.floating) and len(self.shape) == 2:
      return gpu_ops.matrix_buffer(shape, self.dtype, interpret)
    return plgpu.SMEM(shape, self.dtype)


class Half:
  """One computing warpgroup's side of the pipeline.

  Attributes:
    refs: all operands and results in global memory.
    half: 0 or 1.
    item: the current item.
    held: the buffers of the held operands.
    streamed: per stream, the buffers of the current visit.
  """

  def __init__(self, refs, half, scratch, stages: int, ping_pong: bool):
    self.refs, self.half, self.item = refs, half, None
    self._held, self._streams, self._barriers = scratch[0], scratch[1], scratch
    self._stages, self._ping_pong = stages, ping_pong
    self.held: Sequence[Ref] = ()
    self.streamed: Sequence[Sequence[Ref]] = ()
    self._slot = self._step = None

  def take(self, slot: Array) -> None:
    """Waits for the held operands of an item."""
    self._slot = slot * COMPUTE + self.half
    plgpu.barrier_wait(self._barriers[2].at[self._slot])
    self.held = [buffer.at[self._slot] for buffer in self._held]

  def give_back(self) -> None:
    """Frees the held operands; their buffers may have been written to."""
    plgpu.barrier_arrive(self._barriers[3].at[self._slot])

  def turn_to(self, step: Array) -> None:
    """Makes `streamed` the buffers of visit `step` of this block."""
    self._step = lax.rem(step, jnp.int32(self._stages))
    self.streamed = [[b.at[self._step] for b in s] for s in self._streams]

  def wait(self, stream: int) -> None:
    """Waits until the buffers of a stream hold the current visit."""
    plgpu.barrier_wait(self._barriers[4][stream].at[self._step])

  def release(self, stream: int) -> None:
    """Lets the buffers of a stream be overwritten."""
    plgpu.barrier_arrive(self._barriers[5][stream].at[self._step])

  def change_over(self) -> None:
    """Hands the tensor cores over to the other warpgroup, and waits for them.

    While one warpgroup multiplies, the other one does its softmax.
    """
    if self._ping_pong:
      self.announce()
      self.await_turn()

  def announce(self) -> None:
    if self._ping_pong:
      plgpu.barrier_arrive(self._barriers[6])

  def await_turn(self) -> None:
    if self._ping_pong:
      plgpu.barrier_wait(self._barriers[6])


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
  scratch = (
    held,
    streams,
    barriers(2 * COMPUTE, sum(o.fetch is not None for o in kernel.held)),
    barriers(2 * COMPUTE, 1),
    [barriers(kernel.stages, len(s)) for s in streams],
    [barriers(kernel.stages, COMPUTE) for s in streams],
    barriers(1, COMPUTE),
  )

  def body(rows, minor, *args):
    refs, scratch = args[: -len(scratch_types)], args[-len(scratch_types) :]
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

  scratch_types = scratch
  body.__name__ = kernel.name
  return plgpu.kernel(
    body,
    out_type=list(out_type),
    scratch_types=scratch,
    grid=(blocks,),
    grid_names=("block",),
    num_threads=COMPUTE + 1,
    thread_name="warpgroup",
    compiler_params=plgpu.CompilerParams(approx_math=True),
    interpret=gpu_ops.interpreter() if interpret else None,
  )(rows, minor, *operands)


def _compute(kernel: Kernel, half: Half, items: Array, item_of) -> None:
  """The program of a warpgroup that computes."""
  # The second warpgroup begins half a visit behind the first.
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


def _fetch(kernel: Kernel, refs, minor, scratch, items: Array, item_of) -> None:
  """The program of the warpgroup that issues copies."""
  held, streams, held_ready, held_free, ready, free, _ = scratch
  stages = jnp.int32(kernel.stages)

  def one_item(i, step):
    item = item_of(i)
    for half in range(COMPUTE):
      slot = lax.rem(i, jnp.int32(2)) * COMPUTE + half
      pl.when(i >= 2)(lambda s=slot: plgpu.barrier_wait(held_free.at[s]))
      for operand, buffer in zip(kernel.held, held, strict=True):
        if operand.fetch is None:
          continue
        source = operand.fetch(refs, item, half)
        plgpu.copy_gmem_to_smem(source, buffer.at[slot], held_ready.at[slot])

    def one_visit(j, step, first, span):
      slot = lax.rem(step, stages)
      member = jnp.int32(0)
      if kernel.repeats > 1:
        member, j = lax.div(j, span), lax.rem(j, span)
      tile = minor[first + j]
      for index, operands in enumerate(kernel.streams):
        pl.when(step >= stages)(
          lambda i=index: plgpu.barrier_wait(free[i].at[slot])
        )
        for operand, buffer in zip(operands, streams[index], strict=True):
          source = operand.fetch(refs, item, tile, member)
          barrier = ready[index].at[slot]
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
      plgpu.barrier_wait(held_free.at[slot])

  @pl.loop(0, lax.min(steps, stages))
  def _(i):
    slot = lax.rem(steps - 1 - i, stages)
    for barrier in free:
      plgpu.barrier_wait(barrier.at[slot])
