"""What one program needs on a machine, and the least time it can take.

The roofline: a device multiplies, moves memory and talks to others at the same
time at best, so that the slowest of the three sets the time. A program is
slower than that; how much, only a run tells.
"""

from __future__ import annotations

import collections
import re
import time
from typing import Any

import jax

from ar_jax.planning import flops, work
from ar_jax.planning.machines import Machine
from ar_jax.planning.programs import Program

Row = dict[str, Any]

# Nothing can be tried out without a GPU, and the tiles that Triton then takes
# for products do not fit every size.
_OPTIONS = {
  "cuda": {"xla_gpu_enable_triton_gemm": False, "xla_gpu_autotune_level": 0}
}
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def figures(program: Program, machine: Machine, mesh: jax.sharding.Mesh) -> Row:
  """Compiles a program and tells what it needs, as `_memory` and `_work` say.

  A program that the compiler cannot fit into the memory of the device has an
  entry "fits" that is False, and what the compiler says it would need.
  """
  start = time.perf_counter()
  platform = {"gpu": "cuda"}.get(
    mesh.devices.flat[0].platform, mesh.devices.flat[0].platform
  )
  traced = program.trace()
  asked = flops.count(traced.jaxpr)
  row = {
    "program": program.name,
    "batch": program.batch,
    "mesh": {k: n for k, n in mesh.shape.items() if n > 1},
    "devices": mesh.size,
    "parameters": program.parameters,
    "frozen parameters": program.frozen,
    "state bytes": program.state,
    "whole bytes": program.whole,
    "memory": machine.memory,
    "FLOPs analytic": asked.flops,
  }
  lowered = traced.lower(lowering_platforms=(platform,))
  try:
    compiled = lowered.compile(_OPTIONS.get(platform))
  except jax.errors.JaxRuntimeError as e:
    if "RESOURCE_EXHAUSTED" not in str(e):
      raise
    row |= {"fits": False, **_exhausted(str(e))}
  else:
    row |= _memory(compiled.memory_analysis(), platform)
    row["fits"] = row["needed"] <= machine.memory
    row |= _work(compiled, asked, machine, mesh.size, program.batch)
  row["compile seconds"] = round(time.perf_counter() - start, 1)
  return row


def _exhausted(message: str) -> Row:
  """The figures in a compiler's refusal."""
  size = r"([\d.]+)([KMGT]?)i?B?"
  found = re.search(rf"[Uu]sed {size} of {size}", message)
  if found is None:
    found = re.search(rf"\({size}\).*?\({size}\)", message)
  row = {"note": re.sub(r"\s+", " ", message.split("\n")[0])[:240]}
  if found:
    used, unit, of, of_unit = found.groups()
    row["needed"] = float(used) * _UNITS[unit]
    row["memory"] = float(of) * _UNITS[of_unit]
  return row


def _memory(memory: Any, platform: str) -> Row:
  """What a device has to hold, in bytes.

  A TPU's compiler lays everything out, and refuses what goes beyond the memory
  at its peak. Elsewhere the temporaries are one block, allocated at the call.
  """
  row = {
    "arguments": memory.argument_size_in_bytes,
    "outputs": memory.output_size_in_bytes,
    "aliased": memory.alias_size_in_bytes,
    "temporaries": memory.temp_size_in_bytes,
    "code": memory.generated_code_size_in_bytes,
    "peak": memory.peak_memory_in_bytes,
  }
  blocks = row["arguments"] + row["temporaries"] + row["code"]
  blocks += max(row["outputs"] - row["aliased"], 0)
  return row | {"needed": row["peak"] if platform == "tpu" else blocks}


def _work(
  compiled: jax.stages.Compiled,
  asked: flops.Count,
  machine: Machine,
  devices: int,
  batch: int,
) -> Row:
  done = work.of_program(
    compiled.as_text(),
    devices=devices,
    node=machine.node,
    kernels=asked.kernels,
  )
  kinds, near, far = collections.Counter(), 0.0, 0.0
  for one, times in done.collectives():
    kinds[one.kind] += times * one.payload
    if one.far:
      far += times * one.wire
    else:
      near += times * one.wire
  seconds = {
    "compute": sum(n / machine.rates[k] for k, n in done.products.items()),
    "HBM": done.bytes / machine.memory_rate,
    "interconnect": near / machine.link + far / machine.node_link,
  }
  slowest = max(seconds, key=seconds.get)
  row = {
    "FLOPs": done.flops * devices,
    "FLOPs of a device": dict(done.products),
    "HBM bytes": done.bytes,
    "collective bytes": dict(kinds),
    "sent bytes": near + far,
    "sent between nodes": far,
    "intensity": done.flops / max(done.bytes, 1),
    "seconds": seconds,
    "roofline seconds": seconds[slowest],
    "bound": slowest,
    "examples/s": batch / seconds[slowest] if seconds[slowest] else None,
  }
  if asked.unknown_loops or done.unknown_loops:
    row["note"] = "loops whose length is data are counted as one turn"
  if done.uncounted:
    row["note"] = f"not counted: {', '.join(done.uncounted)}"
  return row
