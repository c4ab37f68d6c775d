"""The shared memory of a block of the Hopper kernels, and who may use it when.

See `gpu_pipeline` for the terms.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.sparse_attention import gpu_ops
from pallas_kernels.sparse_attention.gpu_work import Item

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
    """The type of `count` buffers of it."""
    shape = (count, *self.shape)
    if jnp.issubdtype(self.dtype, jnp.floating) and len(self.shape) == 2:
      return gpu_ops.matrix_buffer(shape, self.dtype, interpret)
    return plgpu.SMEM(shape, self.dtype)


class Scratch(NamedTuple):
  """Shared memory: types when a kernel is made, references inside of it.

  Attributes:
    held: [2 * COMPUTE, ...] per operand; buffer 2 i + h is of half h.
    streams: [stages, ...] per stream and operand.
    held_ready: 2 * COMPUTE barriers, awaited by the half.
    held_free: 2 * COMPUTE barriers, awaited by the loader.
    ready: `stages` barriers per stream, awaited by both halves.
    free: `stages` barriers per stream, awaited by the loader.
    turn: a barrier where the halves meet.
  """

  held: Sequence[Any]
  streams: Sequence[Sequence[Any]]
  held_ready: Any
  held_free: Any
  ready: Sequence[Any]
  free: Sequence[Any]
  turn: Any


class Half:
  """One computing warpgroup's side of the pipeline.

  Attributes:
    refs: all operands and results in global memory.
    half: 0 or 1.
    item: the current item, an `Item`.
    held: the buffers of the held operands.
    streamed: per stream, the buffers of the current visit.
  """

  def __init__(
    self, refs, half: Array, scratch: Scratch, stages: int, ping_pong: bool
  ):
    self.refs, self.half = refs, half
    self.item: Item | None = None
    self._scratch, self._stages, self._ping_pong = scratch, stages, ping_pong
    self.held: Sequence[Ref] = ()
    self.streamed: Sequence[Sequence[Ref]] = ()
    self._slot = self._step = None

  def take(self, slot: Array) -> None:
    """Waits for the held operands of an item."""
    self._slot = slot * COMPUTE + self.half
    plgpu.barrier_wait(self._scratch.held_ready.at[self._slot])
    self.held = [buffer.at[self._slot] for buffer in self._scratch.held]

  def give_back(self) -> None:
    """Frees the held operands; their buffers may have been written to."""
    plgpu.barrier_arrive(self._scratch.held_free.at[self._slot])

  def turn_to(self, step: Array) -> None:
    """Makes `streamed` the buffers of visit `step` of this block."""
    self._step = lax.rem(step, jnp.int32(self._stages))
    self.streamed = [
      [b.at[self._step] for b in s] for s in self._scratch.streams
    ]

  def wait(self, stream: int) -> None:
    """Waits until the buffers of a stream hold the current visit."""
    plgpu.barrier_wait(self._scratch.ready[stream].at[self._step])

  def release(self, stream: int) -> None:
    """Lets the buffers of a stream be overwritten."""
    plgpu.barrier_arrive(self._scratch.free[stream].at[self._step])

  def change_over(self) -> None:
    """Hands the tensor cores over to the other warpgroup, and waits for them.

    While one warpgroup multiplies, the other one does its softmax.
    """
    if self._ping_pong:
      self.announce()
      self.await_turn()

  def announce(self) -> None:
    if self._ping_pong:
      plgpu.barrier_arrive(self._scratch.turn)

  def await_turn(self) -> None:
    if self._ping_pong:
      plgpu.barrier_wait(self._scratch.turn)
