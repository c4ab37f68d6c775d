"""Devices: the mesh, who holds which slice, and pmap. Names mesh axes.

Axes: `data` splits the batch and copies the parameters, `fsdp` splits both,
`tensor` splits widths. Models never see them: placement follows from names
and sizes, and XLA inserts the collectives. The devices may belong to several
processes (`launch.py`); which rows of a batch a process holds follows from
the mesh, so that the batch itself does not depend on their number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ar_jax.core import processes
from ar_jax.core.system import UserError

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")
# What models call the axes of their activations (`nn.with_logical_constraint`).
# Under fsdp XLA might else split activations as it finds the weights split.
LOGICAL = (("batch", BATCH),)

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


def _spec(name: str, shape: tuple[int, ...], mesh) -> PartitionSpec:
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
  return jax.tree.map(
    lambda spec: NamedSharding(mesh, spec), _specs(tree, mesh)
  )


def _specs(tree: Any, mesh) -> Any:
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: _spec(
      jax.tree_util.keystr(path, simple=True, separator="/"),
      tuple(leaf.shape),
      mesh,
    ),
    tree,
  )


def unsplit(leaf: jax.ShapeDtypeStruct) -> bool:
  """Whether an array is large enough for fsdp, but has no side to split."""
  mesh, axes = leaf.sharding.mesh, leaf.sharding.spec
  large = np.prod(leaf.shape) >= FSDP_MIN_SIZE
  return bool(mesh.shape["fsdp"] > 1 and large and "fsdp" not in axes)


def abstract(tree: Any, placed: Any) -> Any:
  """Shapes, dtypes and shardings of what is to be restored."""
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    tree,
    placed,
  )


def keep(tree: Any) -> Any:
  """The tree, placed as `shardings` places it on the mesh that is set.

  For use inside jit: gradients are then scattered as they are summed, and a
  state leaves the update as it came in. Without a mesh nothing happens.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.axis_names != AXES or mesh.size == 1 or mesh.manual_axes:
    return tree
  return jax.tree.map(
    jax.lax.with_sharding_constraint, tree, _specs(tree, mesh)
  )


def on(mesh: Mesh, call: Callable) -> Callable:
  """`call` with the mesh set: kernels map themselves over it, and models have
  their activations split by example."""

  def run(*args, **kwargs):
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL):
      return call(*args, **kwargs)

  return run


def together(update: Callable) -> Callable:
  """A jitted `update` that its processes first compile, then start."""
  started = jax.process_count() == 1

  def run(*args):
    nonlocal started
    if not started:
      update.lower(*args).compile()  # the call below finds it compiled
      processes.ready()
      started = True
    return update(*args)

  return run


def ways(mesh: Mesh) -> int:
  """Parts that a batch is split into."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def _held(mesh: Mesh) -> list[int]:
  """Which of the `ways(mesh)` parts of a batch this process holds."""
  parts = ways(mesh)
  held = NamedSharding(
    mesh, PartitionSpec(BATCH)
  ).addressable_devices_indices_map((parts,))
  return sorted({index.indices(parts)[0] for (index,) in held.values()})


def rows(mesh: Mesh, batch: int, name: str = "batch") -> np.ndarray:
  """i64[R]: the rows of a batch that this process holds, in order.

  Processes whose devices differ along `tensor` alone hold the same rows.

  Args:
    mesh: over the devices of all processes.
    batch: B, over all processes.
    name: of the batch in the config, for the message.

  Raises:
    UserError: the batch does not divide among the devices.
  """
  parts = _parts(mesh, batch, name)
  return np.arange(batch).reshape(parts, -1)[_held(mesh)].reshape(-1)


def _parts(mesh: Mesh, batch: int, name: str = "batch") -> int:
  """`ways(mesh)`, if a batch divides so."""
  parts = ways(mesh)
  if batch < 1 or batch % parts:
    raise UserError(
      f"{name}={batch}: does not divide among {parts} data-parallel devices; "
      f"choose a multiple of {parts}"
    )
  return parts


def rounded(mesh: Mesh, batch: int) -> int:
  """The batch, rounded up to fill the devices."""
  return -(-batch // ways(mesh)) * ways(mesh)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict:
  """The rows of this process as global arrays split over data and fsdp.

  Args:
    batch: name -> [R, ...], the rows that `rows` names.
    mesh: over the devices of all processes.

  Raises:
    UserError: the batch does not divide among the devices.
  """
  parts, held = ways(mesh), _held(mesh)
  local = len(next(iter(batch.values())))
  size = local * parts // len(held)
  rows(mesh, size)
  each = size // parts
  first = {part: i * each for i, part in enumerate(held)}
  sharding = NamedSharding(mesh, PartitionSpec(BATCH))

  def place(v):
    def piece(index):
      at = first[index[0].indices(size)[0] // each]
      return v[at : at + each]

    return jax.make_array_from_callback((size, *v.shape[1:]), sharding, piece)

  return {k: place(np.asarray(v)) for k, v in batch.items()}


def put_whole(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict:
  """As `put_batch`, of a batch that every process has whole."""
  own = rows(mesh, len(next(iter(batch.values()))))
  return put_batch({k: v[own] for k, v in batch.items()}, mesh)


def put_tree(tree: Any, placed: Any) -> Any:
  """Host arrays that every process has whole, placed by `placed`."""
  return jax.tree.map(
    lambda x, s: jax.make_array_from_callback(
      x.shape, s, lambda index, x=x: x[index]
    ),
    tree,
    placed,
  )


def spread(batch: Any, mesh: Mesh) -> Any:
  """Shapes of a batch, [B, ...], placed as `put_batch` places it.

  Raises:
    UserError: the batch does not divide among the devices.
  """
  sharding = NamedSharding(mesh, PartitionSpec(BATCH))

  def one(x):
    _parts(mesh, len(x))
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


def pmap_step(step, system, tx, options, mesh):
  """`step` as a data-parallel pmap, of (state, batch, key).

  Gradients and metrics are averaged over `PMAP_AXIS` inside the step (see
  `step.Options.axis`); the state goes in and comes out replicated, and the
  batch is the rows of this process on the host.

  Raises:
    UserError: the mesh splits more than the batch.
  """
  if mesh.shape["data"] != mesh.size:
    raise UserError(
      f"parallel=pmap: splits over data only, not over mesh={dict(mesh.shape)};"
      " set mesh.fsdp=1 and mesh.tensor=1, or parallel=jit"
    )
  n = jax.local_device_count()
  mapped = jax.pmap(
    lambda state, batch, key: step(system, tx, options, state, batch, key),
    axis_name=PMAP_AXIS,
    in_axes=(None, 0, None),
    out_axes=None,
  )

  def run(state, batch, key):
    rows(mesh, len(next(iter(batch.values()))) * jax.process_count())
    split = {k: v.reshape(n, -1, *v.shape[1:]) for k, v in batch.items()}
    out = mapped(state, split, key)
    if jax.process_count() == 1:
      return out
    # A state must name the devices of all processes to be saved.
    return multihost_utils.host_local_array_to_global_array(
      out, mesh, PartitionSpec()
    )

  return run
