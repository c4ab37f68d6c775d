"""What a compiled program does on one device: products, memory, exchanges.

XLA's own cost analysis counts the body of a loop once, and nothing inside
calls of libraries and kernels. Here every loop counts as often as it turns
(see `trips`), and the products in calls of cuBLAS and cuDNN as others do.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Mapping

from ar_jax.planning import hlo, products
from ar_jax.planning.collectives import Collective, collective, kind_of
from ar_jax.planning.hlo import Computation, Instruction
from ar_jax.planning.traffic import Traffic
from ar_jax.planning.trips import trips

_SHORT = {"f16", "bf16", "f8e4m3fn", "f8e5m2", "s8", "u8", "s4", "u4"}
_BATCHED = ("lhs_batch_dimensions", "rhs_batch_dimensions")
_CONTRACTED = ("lhs_contracting_dimensions", "rhs_contracting_dimensions")


@dataclasses.dataclass
class Work:
  """Of one device.

  Attributes:
    products: "bf16" (all short types), "f32" (float32 as the device
      multiplies it by default) and "f32 in full" -> FLOPs.
    bytes: read from and written to the device's memory.
    exchanges: collectives, each with how often it happens.
    unknown_loops: loops whose length is data, counted as one turn.
    uncounted: calls of kernels whose work is not known -> how many.
  """

  products: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )
  bytes: float = 0.0
  exchanges: list[tuple[Collective, float, str]] = dataclasses.field(
    default_factory=list
  )
  unknown_loops: int = 0
  uncounted: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )

  @property
  def flops(self) -> float:
    return float(sum(self.products.values()))

  def collectives(self) -> list[tuple[Collective, float]]:
    """The exchanges, each once: one that runs beside other work is written
    in several fusions, with the same channel."""
    best: dict = {}
    for i, (one, times, where) in enumerate(self.exchanges):
      channel = one.channel if one.channel is not None else f"alone {i}"
      places = best.setdefault((one.kind, channel), {})
      first, before = places.get(where, (one, 0.0))
      places[where] = (first, before + times)
    pick = lambda places: max(places.values(), key=lambda x: x[0].wire * x[1])
    return [pick(places) for places in best.values()]


def of_program(
  text: str,
  *,
  devices: int = 1,
  node: int | None = None,
  kernels: Mapping[tuple, float] | None = None,
) -> Work:
  """Reads a compiled program.

  Args:
    text: `compiled.as_text()`.
    devices: that run it.
    node: devices of one node; all if None.
    kernels: FLOPs of Pallas kernels, which are closed to XLA, from
      `flops.Count`.
  """
  reader = _Reader(
    hlo.parse(text), devices, node or devices, dict(kernels or {})
  )
  reader.computation(hlo.entry(reader.all), 1.0, fused=False)
  return reader.work


class _Reader:
  def __init__(self, computations, devices, node, kernels):
    self.all, self.devices, self.node = computations, devices, node
    self.kernels, self.traffic = kernels, Traffic(computations)
    self.work = Work()

  def computation(self, c: Computation, times: float, fused: bool) -> None:
    for i in c.instructions.values():
      self.instruction(c, i, times, fused)

  def instruction(
    self, c: Computation, i: Instruction, times: float, fused: bool
  ) -> None:
    work = self.work
    if i.op == "while":
      turns = trips(i, c, self.all)
      work.unknown_loops += turns is None
      turns = 1 if turns is None else turns
      self.computation(self.all[i.called("body")], times * turns, fused)
    elif i.op == "conditional":
      self.longest_branch(i, times, fused)
    elif i.op in ("call", "async-start"):
      name = i.called("to_apply") or i.called("calls")
      self.computation(self.all[name], times, fused)
    elif i.op == "fusion":
      self.computation(self.all[i.called("calls")], times, True)
    elif i.op in ("dot", "convolution", "custom-call"):
      kind, flops = self.product(c, i)
      if flops:
        work.products[kind] += times * flops
    elif kind := kind_of(i.op):
      if kind == "all-reduce" and c.name.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # a TPU writes it so, in a fusion
      payload = sum(a.bytes for x in c.operands(i) for a in x.arrays)
      one = collective(i, payload, self.devices, self.node, kind)
      work.exchanges.append((one, times, c.name))
    if not fused:
      work.bytes += times * self.traffic.bytes(c, i)

  def longest_branch(self, i: Instruction, times: float, fused: bool) -> None:
    found = re.search(r"branch_computations=\{([^}]*)\}", i.attributes)
    names = re.findall(r"[\w.\-]+", found[1]) if found else []
    names += [
      x for x in map(i.called, ("true_computation", "false_computation")) if x
    ]
    before, best = self.work, None
    for name in names:
      self.work = Work()
      self.computation(self.all[name], times, fused)
      if best is None or (self.work.flops, self.work.bytes) > (
        best.flops,
        best.bytes,
      ):
        best = self.work
    self.work = before
    if best:
      before.products += best.products
      before.bytes += best.bytes
      before.exchanges += best.exchanges
      before.unknown_loops += best.unknown_loops
      before.uncounted += best.uncounted

  def product(self, c: Computation, i: Instruction) -> tuple[str, float]:
    """(class, FLOPs) of a product; of other calls 0."""
    given = [x.arrays[0] for x in c.operands(i) if x.arrays]
    if i.op == "dot":
      pair = lambda what: tuple(
        i.numbers(f"{side}_{what}_dims") for side in ("lhs", "rhs")
      )
      flops = products.dot(
        given[0].dims, given[1].dims, pair("contracting"), pair("batch")
      )
    elif i.op == "convolution":
      flops = _convolution(i, given[0].dims, given[1].dims, i.arrays[0].dims)
    else:
      target = re.search(r'custom_call_target="([^"]*)"', i.attributes)
      target = target[1] if target else ""
      if target.startswith("__cublas"):
        flops = _cublas(i, given)
      elif target.startswith("__cudnn$conv"):
        flops = _cudnn(i, target, given)
      elif target in ("tpu_custom_call", "mosaic_gpu"):
        flops = self.kernel(i)
      elif "matmul" in target:  # oneDNN's
        flops = products.dot(
          given[0].dims,
          given[1].dims,
          ((len(given[0].dims) - 1,), (len(given[1].dims) - 2,)),
          _leading(given[0].dims),
        )
      else:
        return "", 0.0
    return _class(i, given), flops

  def kernel(self, i: Instruction) -> float:
    """The work of a Pallas kernel, known by its name and its results."""
    name = re.search(r'op_name="([^"]*)"', i.attributes)
    name = name[1] if name else ""
    sizes = tuple(a.dims for a in i.arrays)
    for (kernel, shapes), flops in self.kernels.items():
      if kernel and shapes == sizes and kernel in f"{name} {i.name}":
        return flops
    same = {f for (_, shapes), f in self.kernels.items() if shapes == sizes}
    if len(same) == 1:
      return same.pop()
    self.work.uncounted[i.name.split(".")[0]] += 1
    return 0.0


def _class(i: Instruction, given: list) -> str:
  dtypes = {a.dtype for a in given[:2]}
  if dtypes <= _SHORT:
    return "bf16"
  precision = re.findall(r"operand_precision=\{([^}]*)\}", i.attributes)
  said = " ".join(precision).lower()
  precision = i.config.get("gemm_backend_config", {}).get(
    "precision_config", {}
  )
  said += " ".join(precision.get("operand_precision", ())).lower()
  return "f32 in full" if "highest" in said else "f32"


def _leading(dims) -> tuple:
  axes = tuple(range(len(dims) - 2))
  return axes, axes


def _cublas(i: Instruction, given: list) -> float:
  numbers = i.config["gemm_backend_config"]["dot_dimension_numbers"]
  pair = lambda names: tuple(
    tuple(map(int, numbers.get(name, ()))) for name in names
  )
  return products.dot(
    given[0].dims, given[1].dims, pair(_CONTRACTED), pair(_BATCHED)
  )


def _cudnn(i: Instruction, target: str, given: list) -> float:
  """The same work forwards and backwards: that of the forward convolution."""
  out = i.arrays[0].dims
  if "BackwardInput" in target:
    return _convolution(i, out, given[1].dims, given[0].dims)
  if "BackwardFilter" in target:
    return _convolution(i, given[0].dims, out, given[1].dims)
  return _convolution(i, given[0].dims, given[1].dims, out)


def _convolution(i: Instruction, lhs, rhs, out) -> float:
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes)
  inputs, kernel, outputs = labels.groups()
  window = re.search(r"window=\{([^}]*)\}", i.attributes)
  window = dict(x.split("=") for x in window[1].split()) if window else {}
  axes = [label for label in kernel if label.isdigit()]
  each = lambda name: window.get(name, "x".join("1" * len(axes))).split("x")
  strides, holes, spread = map(each, ("stride", "lhs_dilate", "rhs_dilate"))
  pads = window.get("pad", "x".join(["0_0"] * len(axes))).split("x")
  spatial = [
    products.pairs(
      lhs[inputs.index(axis)],
      rhs[kernel.index(axis)],
      out[outputs.index(axis)],
      int(strides[n]),
      int(pads[n].split("_")[0]),
      int(holes[n]),
      int(spread[n]),
    )
    for n, axis in enumerate(axes)
  ]
  return products.convolution(
    out[outputs.index("b")],
    out[outputs.index("f")],
    rhs[kernel.index("i")],
    spatial,
  )
