"""What is known of accelerators, and their devices without having them.

The figures are those of data sheets, per device and without sparsity. A
collective's rate is what a device can send over all its links at a time, which
is half of what sheets call bidirectional. Float32 products run on a TPU as one
product of bfloat16 by default, and as six in full; on these GPUs as TF32 by
default.

Devices come from `pallas_kernels`, which compiles its kernels for them, too.
"""

from __future__ import annotations

import dataclasses
import os
import re

import jax

from ar_jax.core.system import UserError
from pallas_kernels import aot, aot_cuda

GIB = 2**30
_EXTRA = "it is in the extra: pip install -e .[aot]"


@dataclasses.dataclass(frozen=True)
class Machine:
  """One device of a kind, and how it is tied to others.

  Attributes:
    name: as in a topology.
    rates: "bf16", "f32" (as multiplied by default), "f32 in full" -> FLOP/s.
    memory: bytes that a program may use.
    memory_rate: bytes per second.
    link: bytes per second that a device sends to its neighbours.
    node: devices of one node; None where all devices are neighbours.
    node_link: bytes per second that a device sends to other nodes.
    sides: dimensions of a slice; 0 where it has none.
    source: where the figures are from.
  """

  name: str
  rates: dict[str, float]
  memory: float
  memory_rate: float
  link: float
  node: int | None
  node_link: float
  sides: int
  source: str


def _tpu(name, bf16, memory, rate, link, sides, page, limit) -> Machine:
  rates = {"bf16": bf16, "f32": bf16, "f32 in full": bf16 / 6}
  return Machine(
    name, rates, memory * GIB, rate, link / 2, None, link / 2, sides,
    f"docs.cloud.google.com/tpu/docs/{page}; memory: {limit}",
  )  # fmt: skip


def _gpu(name, memory, rate) -> Machine:
  rates = {"bf16": 989.4e12, "f32": 494.7e12, "f32 in full": 66.9e12}
  # JAX takes three quarters of the memory unless told otherwise, see
  # XLA_PYTHON_CLIENT_MEM_FRACTION; nine tenths leave room for the libraries.
  return Machine(
    name, rates, 0.9 * memory, rate, 450e9, 8, 50e9, 0,
    f"NVIDIA {name.upper()} SXM data sheet; 8 GPUs a node, 400 Gbit/s each "
    "between nodes; memory: 0.9 of what the driver reports",
  )  # fmt: skip


def _cpu() -> Machine:
  memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  rates = dict.fromkeys(("bf16", "f32", "f32 in full"), 50e9)
  return Machine(
    "cpu", rates, memory, 10e9, 5e9, None, 5e9, 0,
    "nominal: one core, for trying the plan itself out",
  )  # fmt: skip


MACHINES = {
  m.name: m
  for m in (
    _tpu(
      "v5e", 197e12, 15.75, 819e9, 400e9, 2, "v5e", "as libtpu's refusals say"
    ),
    _tpu("v5p", 459e12, 95.0, 2765e9, 1200e9, 3, "v5p", "there"),
    _tpu(
      "v6e",
      918e12,
      31.25,
      1640e9,
      800e9,
      2,
      "v6e",
      "0.75 GiB held back of 32, unseen",
    ),
    _gpu("h100", 84978434048, 3.352e12),
    _gpu("h200", 150754820096, 4.8e12),
    _cpu(),
  )
}


def parse(topology: str) -> tuple[Machine, tuple[int, ...]]:
  """(the machine, its sides) of a topology such as "v5e:4x4" or "h100:8".

  Raises:
    UserError: there is no such machine, or it has no such shape.
  """
  name, _, rest = topology.partition(":")
  if name not in MACHINES or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", rest):
    raise UserError(
      f"--topology={topology}: say KIND:SHAPE, such as v5e:4x4, v5p:4x4x4, "
      "v6e:8x8, h100:8, h200:16 or cpu:8"
    )
  machine, sides = MACHINES[name], tuple(map(int, rest.split("x")))
  if len(sides) != (machine.sides or 1):
    like = {0: f"{name}:8", 2: f"{name}:4x4", 3: f"{name}:4x4x4"}
    raise UserError(
      f"--topology={topology}: a {name} has {machine.sides or 1} "
      f"{'sides' if machine.sides else 'number'}, as in {like[machine.sides]}"
    )
  if name == "cpu":  # these share one memory
    machine = dataclasses.replace(machine, memory=machine.memory / sides[0])
  return machine, sides


def devices(topology: str) -> list[jax.Device]:
  """The devices of a topology, which need not be attached.

  Raises:
    UserError: no such topology, or what it takes is not installed.
  """
  machine, sides = parse(topology)
  if machine.name == "cpu":
    return _cpus(topology, sides[0])
  if machine.sides:
    return _tpus(topology, sides)
  if reason := aot_cuda.missing():
    raise UserError(f"--topology={topology}: {reason}; {_EXTRA}")
  node, count = machine.node, sides[0]
  if count > node and count % node:
    raise UserError(
      f"--topology={topology}: beyond one node choose a multiple of {node}"
    )
  return aot_cuda.gpus(machine.name, -(-count // node), min(count, node))


def _cpus(topology: str, count: int) -> list[jax.Device]:
  there = jax.devices("cpu")
  if len(there) < count:
    raise UserError(
      f"--topology={topology}: this process has {len(there)} CPU devices; "
      f"set JAX_NUM_CPU_DEVICES={count}"
    )
  return there[:count]


def _tpus(topology: str, sides: tuple[int, ...]) -> list[jax.Device]:
  if reason := aot.missing(topology.partition(":")[0]):
    raise UserError(f"--topology={topology}: {reason}; {_EXTRA}")
  try:
    return aot.tpus(topology)
  except jax.errors.JaxRuntimeError as e:
    if "chips_per_host_bounds" not in str(e):
      raise UserError(f"--topology={topology}: {str(e).splitlines()[0]}") from e
  # Hosts have 2 x 2 chips; where that does not divide, count them singly.
  try:
    return aot.tpus(topology, chips_per_host_bounds=[1, 1, 1])
  except jax.errors.JaxRuntimeError as e:
    raise UserError(f"--topology={topology}: {str(e).splitlines()[0]}") from e
