"""Compiling for an NVIDIA H100 on a machine that has none.

XLA compiles for a GPU that is described in a text. It takes
`pip install --no-deps jax-cuda13-plugin jax-cuda13-pjrt` of jax's own version
and a CUDA toolkit (nvcc's files, no driver, no GPU): without libdevice in it
XLA ends the process. Seen working with jax 0.10.2 on Python 3.11 and with jax
0.11.2 on Python 3.12, with CUDA 13.0 in /usr/local/cuda. Kernels in Mosaic GPU
go all the way to machine code. What this does not show: that the code is
right, and how fast it is.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import inspect
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import (
  AbstractDevice,
  AbstractMesh,
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
)

H100 = "NVIDIA H100 80GB HBM3"
"""The device kind of the GPU that `TARGET_CONFIG` describes."""

TARGET_CONFIG = f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84978434048
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  cuda_compute_capability {{
    major: 9
    minor: 0
    feature_extension: ACCELERATED_FEATURES
  }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{H100}"
"""
"""An H100 (SXM) as XLA wants it told: a stream_executor GpuTargetConfigProto.

The sizes are what the CUDA driver reports for this GPU.
"""


def missing() -> str | None:
  """Why nothing can be compiled for a GPU here; None if it can."""
  wanted = f"jax-cuda13-plugin=={jax.__version__}"
  hint = f"pip install --no-deps {wanted} {wanted.replace('plugin', 'pjrt')}"
  for package in ("jax-cuda13-plugin", "jax-cuda13-pjrt"):
    try:
      version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      return f"{package} is not installed: {hint}"
    if version != jax.__version__:
      return f"{package} is {version}, jax is {jax.__version__}: {hint}"
  if "--xla_gpu_cuda_data_dir" in os.environ.get("XLA_FLAGS", ""):
    return None
  # Where XLA looks by itself; it ends the process if it finds none.
  toolkits = [pathlib.Path("/usr/local/cuda"), pathlib.Path("/opt/cuda")]
  plugin = importlib.metadata.distribution("jax-cuda13-plugin")
  toolkits.append(pathlib.Path(str(plugin.locate_file("nvidia/cu13"))))
  if not any((t / "nvvm/libdevice").is_dir() for t in toolkits):
    return (
      "no CUDA toolkit in /usr/local/cuda; name one with "
      "XLA_FLAGS=--xla_gpu_cuda_data_dir=FOLDER"
    )
  return None


H200 = "NVIDIA H200"

TARGET_CONFIGS = {
  "h100": TARGET_CONFIG,
  # The same processor, with other memory.
  "h200": TARGET_CONFIG.replace(H100, H200)
  .replace("84978434048", "150754820096")
  .replace("3352320000000", "4800000000000"),
}
"""Kind -> what XLA is told of it; the memory of an H200 is what its driver
reports, 143771 MiB, and its rate what its data sheet says."""


def gpus(kind: str, hosts: int, each: int) -> list[jax.Device]:
  """GPUs that need not be attached.

  Args:
    kind: one of `TARGET_CONFIGS`.
    hosts: how many machines.
    each: GPUs of each of them.
  """
  return topologies.get_topology_desc(
    platform="cuda",
    topology=f"1x{hosts}x{each}",
    target_config=TARGET_CONFIGS[kind],
  ).devices


@functools.cache
def h100_mesh(devices: int = 1) -> Mesh:
  """A mesh with one axis, "x", of GPUs that are not there.

  Args:
    devices: their number, in one host.
  """
  there = np.asarray(gpus("h100", 1, devices))
  return Mesh(there, ("x",), axis_types=(AxisType.Auto,))


@contextlib.contextmanager
def _lowering_for(mesh: AbstractMesh) -> Iterator[None]:
  """Tells kernels, while they are lowered, which GPU they are for."""
  # Later releases of jax ask for the platform, too: that of the devices, so
  # that this mesh and the one of shardings are equal.
  about = {"device_kind": H100, "num_cores": 132}
  if "platform" in inspect.signature(AbstractDevice).parameters:
    about["platform"] = "gpu"
  with jax.sharding.use_abstract_mesh(
    mesh.update(abstract_device=AbstractDevice(**about))
  ):
    yield


def lower_for_h100(
  fn: Callable[..., Any], *args: Any, devices: int = 1
) -> jax.stages.Lowered:
  """`jax.jit(fn)` lowered for an H100; needs nothing but jax.

  Kernels in Mosaic GPU are checked up to their MLIR: shapes, layouts of
  registers, shared memory. The result cannot be compiled.

  Args:
    fn: a function of arrays.
    *args: arrays or jax.ShapeDtypeStructs.
    devices: size of the axis "x" of the mesh that a `jax.shard_map` without
      one takes.
  """
  mesh = AbstractMesh((devices,), ("x",), axis_types=(AxisType.Auto,))
  args = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)
  with _lowering_for(mesh):
    return jax.jit(fn).trace(*args).lower(lowering_platforms=("cuda",))


def compile_for_h100(
  fn: Callable[..., Any], *args: Any, mesh: Mesh | None = None
) -> jax.stages.Compiled:
  """`jax.jit(fn)` compiled for an H100 that need not be there.

  Args:
    fn: a function of arrays.
    *args: arrays or jax.ShapeDtypeStructs; with a sharding over `mesh`, or
      without one (then they are whole on every device).
    mesh: from `h100_mesh`; of one device if None.

  Returns:
    the executable, for `memory_analysis`, `cost_analysis` and `as_text`; it
    cannot be called without a GPU.

  Raises:
    RuntimeError: the plugin is not installed (see `missing`).
  """
  if reason := missing():
    raise RuntimeError(f"compile_for_h100: {reason}")
  mesh = h100_mesh() if mesh is None else mesh
  whole = NamedSharding(mesh, PartitionSpec())

  def on_mesh(x: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(x, "sharding", None)
    if not (isinstance(sharding, NamedSharding) and sharding.mesh == mesh):
      sharding = whole
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  args = jax.tree.map(on_mesh, args)
  with _lowering_for(mesh.abstract_mesh):
    lowered = jax.jit(fn).trace(*args).lower(lowering_platforms=("cuda",))
  # Without a GPU nothing can be tried out, and the tiles that Triton then
  # takes for products do not fit every size.
  return lowered.compile({"xla_gpu_enable_triton_gemm": False})


class Registers(NamedTuple):
  """What the assembler says of one kernel.

  Attributes:
    registers: per thread, at the launch.
    spilled: bytes stored to memory for want of registers.
    warnings: its other complaints, such as of `wgmma`s that wait in line.
  """

  registers: int
  spilled: int
  warnings: tuple[str, ...]


@contextlib.contextmanager
def assembler_report() -> Iterator[dict[str, Registers]]:
  """Collects what the assembler says of the Mosaic GPU kernels compiled inside.

  The plugin prints it, so the standard output of the process is caught (and
  lost) meanwhile.

  Yields:
    name of a kernel -> its registers; filled when the block ends.
  """
  found = {}
  with tempfile.TemporaryFile() as file, _stdout_into(file):
    os.environ["MOSAIC_GPU_DUMP_PTXAS"] = "1"
    try:
      yield found
    finally:
      del os.environ["MOSAIC_GPU_DUMP_PTXAS"]
      file.seek(0)
      found.update(read_assembler_report(file.read().decode()))


@contextlib.contextmanager
def _stdout_into(file: Any) -> Iterator[None]:
  """Sends what C code prints into a file, too."""
  sys.stdout.flush()
  kept = os.dup(1)
  os.dup2(file.fileno(), 1)
  try:
    yield
  finally:
    os.dup2(kept, 1)
    os.close(kept)


def read_assembler_report(text: str) -> dict[str, Registers]:
  """Name of a kernel -> its registers, from what `ptxas -v` prints."""
  found = {}
  parts = re.split(r"Compiling entry function '(\w+)'.*\n", text)
  for name, part in zip(parts[1::2], parts[2::2], strict=True):
    used = re.search(r"Used (\d+) registers", part)
    spills = re.search(r"(\d+) bytes spill stores", part)
    warnings = re.findall(r"^ptxas (?!info).*|.*[Ww]arning.*", part, re.M)
    found[name.removesuffix("_mosaic_gpu_kernel")] = Registers(
      int(used[1]), int(spills[1]), tuple(warnings)
    )
  return found
