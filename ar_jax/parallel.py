"""Devices: the mesh, who holds which slice, and pmap. Names mesh axes.

Axes: `data` splits the batch and copies the parameters, `fsdp` splits both,
`tensor` splits widths. Models never see them: placement follows from names
and sizes, and XLA inserts the collectives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ar_jax.core.system import UserError

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")

# Matrices whose output (-1) or input (-2) is split over `tensor`, in the
# Megatron pairing: one all-reduce after each pair.
TENSOR_RULES = (
  (r"(qkv|fc1|gate|query|key|value)/kernel$", -1),
  (r"(proj|fc2|out)/kernel$", -2),
  (r"head/kernel$", -1),
)
# Smaller arrays are cheaper to copy than to gather.
FSDP_MIN_SIZE = 2**16


def make_mesh(
  sizes: Mapping[str, int] | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """The mesh over all devices; a size of -1 takes what is left.

  Args:
    sizes: axis -> its size.
    devices: of the mesh; those attached if None.

  Raises:
    UserError: unknown axes, or sizes that do not multiply to the devices.
  """
  sizes = {"data": -1, "fsdp": 1, "tensor": 1} | dict(sizes or {})
  if set(sizes) != set(AXES):
    raise UserError(f"mesh={sizes}: the axes are {', '.join(AXES)}")
  n = jax.device_count() if devices is None else len(devices)
  known = int(np.prod([s for s in sizes.values() if s != -1]))
  shape = tuple(n // known if sizes[a] == -1 else sizes[a] for a in AXES)
  if int(np.prod(shape)) != n:
    raise UserError(f"mesh={sizes}: does not divide {n} devices")
  auto = (AxisType.Auto,) * len(AXES)
  try:
    return jax.make_mesh(shape, AXES, axis_types=auto, devices=devices)
  except NotImplementedError:
    # A TPU's torus is cut along its sides first; across them if need be.
    placed = mesh_utils.create_device_mesh(
      shape, devices, allow_split_physical_axes=True
    )
    return Mesh(placed, AXES, axis_types=auto)


def _spec(name: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
  axes: list[str | None] = [None] * len(shape)
  tensor, fsdp = mesh.shape["tensor"], mesh.shape["fsdp"]
  if tensor > 1 and len(shape) > 1:
    for pattern, axis in TENSOR_RULES:
      if re.search(pattern, name) and shape[axis] % tensor == 0:
        axes[axis] = "tensor"
        break
  if fsdp > 1 and np.prod(shape) >= FSDP_MIN_SIZE:
    free = [i for i, s in enumerate(shape) if axes[i] is None and s % fsdp == 0]
    if free:
      axes[max(free, key=lambda i: shape[i])] = "fsdp"
  return PartitionSpec(*axes)


def shardings(tree: Any, mesh: Mesh) -> Any:
  """NamedShardings for a state: largest free axis over fsdp, rules first.

  Optimiser moments and averages end in the names of their parameters, so the
  same rules place them alike.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: NamedSharding(
      mesh,
      _spec(
        jax.tree_util.keystr(path, simple=True, separator="/"),
        tuple(leaf.shape),
        mesh,
      ),
    ),
    tree,
  )


def on(mesh: Mesh, call: Callable) -> Callable:
  """`call` with the mesh set: kernels map themselves over it."""

  def run(*args, **kwargs):
    with jax.set_mesh(mesh):
      return call(*args, **kwargs)

  return run


def ways(mesh: Mesh) -> int:
  """Parts that a batch is split into."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict:
  """A process-local batch as global arrays split over data and fsdp.

  Raises:
    UserError: the batch does not divide among the devices.
  """
  parts = ways(mesh)
  size = len(next(iter(batch.values()))) * jax.process_count()
  if size % parts:
    raise UserError(
      f"batch={size}: does not divide among {parts} data-parallel devices; "
      f"choose a multiple of {parts}"
    )
  sharding = NamedSharding(mesh, PartitionSpec(BATCH))
  return {
    k: jax.make_array_from_process_local_data(sharding, np.asarray(v))
    for k, v in batch.items()
  }


def spread(batch: Any, mesh: Mesh) -> Any:
  """Shapes of a batch, [B, ...], placed as `put_batch` places it.

  Raises:
    UserError: the batch does not divide among the devices.
  """
  parts = ways(mesh)
  sharding = NamedSharding(mesh, PartitionSpec(BATCH))

  def one(x):
    if len(x) % parts:
      raise UserError(
        f"batch={len(x)}: does not divide among {parts} data-parallel "
        f"devices; choose a multiple of {parts}"
      )
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  return jax.tree.map(one, batch)


def everywhere(tree: Any, mesh: Mesh) -> Any:
  """Shapes of arrays that every device holds whole."""
  whole = NamedSharding(mesh, PartitionSpec())
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), tree
  )


def meshes(devices: int, node: int) -> list[dict[str, int]]:
  """Meshes worth trying on so many devices.

  The batch is split as far as it goes, the parameters over a node or over
  all devices, the widths within a node, where devices are near.

  Args:
    devices: their number.
    node: those of one node.
  """
  found = []
  near = min(node, devices)
  for tensor in (1, 2, 4):
    for fsdp in (1, near // tensor, devices // tensor):
      each = tensor * max(fsdp, 1)
      if near % tensor or devices % each or fsdp < 1:
        continue
      sizes = {"data": devices // each, "fsdp": fsdp, "tensor": tensor}
      if sizes not in found:
        found.append(sizes)
  return found


PMAP_AXIS = "data"


def pmap_step(step, system, tx, options):
  """`step` as a data-parallel pmap with the signature of the jitted one.

  Gradients and metrics are averaged over `PMAP_AXIS` inside the step (see
  `step.Options.axis`); the state goes in and comes out replicated.
  """
  n = jax.local_device_count()
  mapped = jax.pmap(
    lambda state, batch, key: step(system, tx, options, state, batch, key),
    axis_name=PMAP_AXIS,
    in_axes=(None, 0, None),
    out_axes=None,
  )

  def run(state, batch, key):
    split = {k: v.reshape(n, -1, *v.shape[1:]) for k, v in batch.items()}
    return mapped(state, split, key)

  return run
