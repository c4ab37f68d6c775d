"""Compiling every kernel at its named shapes for machines that are not here.

  python -m pallas_kernels.aot [--json FILE] [--only TEXT]

Needs `pip install 'jax[tpu]'` for the TPUs and what `aot_cuda` asks for for the
H100; what is missing is said and left out. That a kernel compiles shows that
it can be lowered and fits; not that it is right, nor how fast it is.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import json
import os
import pathlib
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import jax
from jax import export
from jax.experimental import topologies
from jax.sharding import AbstractDevice, AbstractMesh, SingleDeviceSharding

from pallas_kernels import aot_cuda

ROOT = pathlib.Path(__file__).parent
# Platform -> a topology of that generation, for one of its devices.
TPUS = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
PLATFORMS = (*TPUS, "h100")

Case = tuple[Callable, tuple[jax.ShapeDtypeStruct, ...]]


def ops() -> list[str]:
  """The folders that name their shapes."""
  return sorted(path.parent.name for path in ROOT.glob("*/shapes.py"))


def cases(op: str, impl: str) -> dict[str, Case]:
  """The cases of an operation; none where it has no such form."""
  if not (ROOT / op / f"{impl}.py").exists():
    return {}
  return importlib.import_module(f"pallas_kernels.{op}.shapes").cases(impl)


def missing(platform: str) -> str | None:
  """Why nothing can be compiled for a platform here; None if it can."""
  if platform in TPUS:
    if importlib.util.find_spec("libtpu") is None:
      return "no libtpu: pip install 'jax[tpu]'"
    return None
  return aot_cuda.missing()


def tpus(topology: str, **how) -> list[jax.Device]:
  """The chips of a slice that need not be attached.

  Args:
    topology: generation and sides, such as "v5e:4x4" or "v5p:4x4x8".
    **how: what else the TPU library takes.
  """
  # Otherwise libtpu asks the network which machine this is.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  # Nobody's chips are taken, so that two processes may do this at a time.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  return topologies.get_topology_desc(
    platform="tpu", topology_name=topology, **how
  ).devices


@functools.cache
def device(platform: str):
  """A TPU that need not be attached."""
  return tpus(TPUS[platform])[0]


def for_device(chip) -> Any:
  """A context in which lowering knows the TPU that it is for."""
  mesh = AbstractMesh((), (), axis_types=()).update(
    abstract_device=AbstractDevice(
      device_kind=chip.device_kind, num_cores=chip.num_cores, platform="tpu"
    )
  )
  return jax.sharding.use_abstract_mesh(mesh)


def compile_for(platform: str, fn: Callable, *args) -> jax.stages.Compiled:
  """`jax.jit(fn)` compiled for one device of a platform.

  Args:
    platform: one of `PLATFORMS`.
    fn: a function of arrays.
    *args: trees of jax.ShapeDtypeStruct.

  Raises:
    RuntimeError: what it takes to compile is missing.
  """
  if reason := missing(platform):
    raise RuntimeError(f"{platform}: {reason}")
  if platform not in TPUS:
    return aot_cuda.compile_for_h100(fn, *args)
  chip = device(platform)
  there = SingleDeviceSharding(chip)
  args = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there), args
  )
  with for_device(chip):
    lowered = jax.jit(fn).lower(*args)
  return lowered.compile()


def lower_for_tpu(fn: Callable, *args) -> export.Exported:
  """`fn` lowered for TPU, which needs nothing but jax."""
  return export.export(jax.jit(fn), platforms=["tpu"])(*args)


def report(compiled: jax.stages.Compiled) -> dict[str, Any]:
  """What the compiler tells about memory and work, in bytes and FLOPs."""
  memory = compiled.memory_analysis()
  row = {
    "arguments": memory.argument_size_in_bytes,
    "outputs": memory.output_size_in_bytes,
    "temporaries": memory.temp_size_in_bytes,
    "code": memory.generated_code_size_in_bytes,
  }
  cost = compiled.cost_analysis() or {}
  for name in ("flops", "bytes accessed"):
    if name in cost:
      row[name] = cost[name]
  text = compiled.as_text()
  # What a Mosaic kernel has of VMEM, where XLA says so.
  kernels = [x for x in text.splitlines() if "tpu_custom_call" in x]
  sizes = [
    int(size)
    for line in kernels
    for size in re.findall(
      r'used_scoped_memory_configs":\[\{"memory_space":"1",'
      r'"offset":"\d+","size":"(\d+)"',
      line,
    )
  ]
  if sizes:
    row["vmem"] = max(sizes)
  return row


def _compiled(platform: str, fn: Callable, *args) -> dict[str, Any]:
  if platform in TPUS:
    return report(compile_for(platform, fn, *args))
  with aot_cuda.assembler_report() as said:
    row = report(compile_for(platform, fn, *args))
  worst = {
    name: max((getattr(x, name) for x in said.values()), default=0)
    for name in ("registers", "spilled")
  }
  others = [w for x in said.values() for w in x.warnings if "spilled" not in w]
  return row | worst | ({"warnings": others} if others else {})


NAMED = ("kernel", "shape", "platform")
"""The columns that say which row it is."""


def rows(
  only: str = "",
  platforms: Iterable[str] = PLATFORMS,
  done: Collection[tuple[str, str, str]] = (),
) -> Iterator[dict[str, Any]]:
  """One row for each kernel, shape and platform; "error" says what failed.

  Args:
    only: what "kernel/shape/platform" contains.
    platforms: those of `PLATFORMS` that can be compiled for here.
    done: (kernel, shape, platform) of rows that are not wanted.
  """
  for platform in platforms:
    if missing(platform):
      continue
    impl = "tpu" if platform in TPUS else "gpu"
    for op in ops():
      for name, (fn, args) in cases(op, impl).items():
        key = (op, name, platform)
        if only not in "/".join(key) or key in done:
          continue
        row, start = dict(zip(NAMED, key, strict=True)), time.perf_counter()
        try:
          row |= _compiled(platform, fn, *args)
        except Exception as error:  # one failure must not hide the others
          row["error"] = str(error).splitlines()[0]
        row["seconds"] = round(time.perf_counter() - start, 1)
        yield row


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--json", default="aot.json")
  parser.add_argument("--only", default="", help="op/shape/platform contains")
  options = parser.parse_args()
  for platform in PLATFORMS:
    if reason := missing(platform):
      print(f"{platform}: not compiled; {reason}")
  line = "{kernel:18} {shape:18} {platform:5} {seconds:>7} s  {note}".format
  done = []
  for row in rows(options.only):
    done.append(row)
    mega = lambda key, row=row: f"{key} {row[key] / 2**20:.1f} MiB"
    note = row.get("error") or ", ".join(
      mega(key)
      for key in ("arguments", "temporaries", "code", "vmem")
      if key in row
    )
    print(line(note=note, **{k: v for k, v in row.items() if k != "note"}))
  about = {"jax": jax.__version__, "rows": done}
  pathlib.Path(options.json).write_text(json.dumps(about, indent=2) + "\n")
  print(f"wrote {options.json}")
  if any("error" in row for row in done):
    raise SystemExit("some kernels did not compile")


if __name__ == "__main__":
  main()
