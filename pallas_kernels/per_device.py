"""Kernels on a mesh: each device runs them on its own part of the arrays."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec

Array = jax.Array


def per_device(call: Callable[..., Array], *args: Array) -> Array:
  """call(*args), each device on its own examples and heads.

  XLA cannot split a kernel by itself, so this maps it over the mesh that is
  set (`jax.set_mesh`). The last of its axes splits the heads and the others
  the batch, where they divide. Without a mesh, or inside `jax.shard_map` and
  `jax.pmap`, it is a plain call.

  Args:
    call: of arrays [B, T, H, K], [B] and [], to [B, T, H, K].
    *args: these arrays; the second has the fewest heads.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1 or mesh.manual_axes:
    return call(*args)
  *data, tensor = mesh.axis_names
  ways = math.prod(mesh.shape[axis] for axis in data)
  batch = tuple(data) if args[0].shape[0] % ways == 0 else None
  heads = tensor if args[1].shape[2] % mesh.shape[tensor] == 0 else None
  whole = PartitionSpec(batch, None, heads, None)
  spec = lambda x: whole if x.ndim == 4 else PartitionSpec(*[batch] * x.ndim)
  # Results of kernels do not say over which axes they vary, so this is not
  # checked; the specs say it.
  mapped = jax.shard_map(
    call,
    mesh=mesh,
    in_specs=tuple(map(spec, args)),
    out_specs=whole,
    check_vma=False,
  )
  return mapped(*args)
