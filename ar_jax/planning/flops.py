"""The work that a program asks for, counted from its jaxpr.

This count knows nothing of XLA: products and convolutions by their sizes, each
loop as often as it runs. What the compiler makes of it is in `hlo.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core
from jax.interpreters import partial_eval as pe

from ar_jax.planning import products


@dataclasses.dataclass
class Count:
  """What was counted.

  Attributes:
    flops: of products, over all devices.
    kernels: name of a Pallas kernel -> FLOPs of one call on one device, by
      the sizes of its results.
    unknown_loops: loops whose length is data; each was counted as one turn.
  """

  flops: float = 0.0
  kernels: dict[tuple, float] = dataclasses.field(default_factory=dict)
  unknown_loops: int = 0

  def add(self, other: Count, times: float) -> None:
    self.flops += times * other.flops
    self.kernels |= other.kernels
    self.unknown_loops += other.unknown_loops


def count(jaxpr: Any) -> Count:
  """The products of a jaxpr, of all devices together.

  Args:
    jaxpr: a `Jaxpr` or `ClosedJaxpr`, such as `jax.jit(f).trace(x).jaxpr`.
  """
  jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
  # What nothing reads, such as the value where only its gradient is wanted.
  jaxpr, _ = pe.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return _count(jaxpr)


def _count(jaxpr: Any) -> Count:
  jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
  total = Count()
  for eqn in jaxpr.eqns:
    total.add(_equation(eqn), 1)
  return total


def _equation(eqn: Any) -> Count:
  name, p = eqn.primitive.name, eqn.params
  if name == "dot_general":
    lhs, rhs = (v.aval.shape for v in eqn.invars)
    return Count(products.dot(lhs, rhs, *p["dimension_numbers"]))
  if name == "conv_general_dilated":
    return Count(_convolution(eqn))
  if name == "cond":
    return max(map(_count, p["branches"]), key=lambda c: c.flops)
  if name == "pallas_call":
    return _kernel(eqn)
  total, times = Count(), 1.0
  if name == "scan":
    times = p["length"]
  elif name == "while":
    total.unknown_loops = 1
  elif name == "shard_map":
    axes = p.get("newly_manual_axes", p.get("manual_axes"))
    times = math.prod(p["mesh"].shape[axis] for axis in axes)
  for inner in _inner(p):
    total.add(_count(inner), times)
  return total


def _inner(params: dict[str, Any]) -> Iterator[Any]:
  for value in params.values():
    for x in value if isinstance(value, tuple | list) else (value,):
      if isinstance(x, core.Jaxpr | core.ClosedJaxpr):
        yield x


def _convolution(eqn: Any) -> float:
  p = eqn.params
  lhs, rhs = (v.aval.shape for v in eqn.invars)
  out = eqn.outvars[0].aval.shape
  inputs, kernel, outputs = p["dimension_numbers"]
  spatial = [
    products.pairs(
      lhs[inputs[2 + i]],
      rhs[kernel[2 + i]],
      out[outputs[2 + i]],
      p["window_strides"][i],
      p["padding"][i][0],
      p["lhs_dilation"][i],
      p["rhs_dilation"][i],
    )
    for i in range(len(lhs) - 2)
  ]
  batch, features = out[outputs[0]], out[outputs[1]]
  return products.convolution(batch, features, rhs[kernel[1]], spatial)


def _kernel(eqn: Any) -> Count:
  """A Pallas kernel: its body at every place of its grid. Its conditions are
  taken to exclude each other, as those of full and of partial tiles do."""
  p = eqn.params
  eqns = p["jaxpr"].eqns
  one = Count()
  for inner in eqns:
    if inner.primitive.name != "cond":
      one.add(_equation(inner), 1)
  choices = [_equation(x) for x in eqns if x.primitive.name == "cond"]
  if choices:
    one.add(max(choices, key=lambda c: c.flops), 1)
  grid = [n for n in p["grid_mapping"].grid if isinstance(n, int)]
  flops = one.flops * math.prod(grid)
  info = p.get("name_and_src_info")
  name = p.get("name") or getattr(info, "name", "")
  sizes = tuple(tuple(v.aval.shape) for v in eqn.outvars)
  unknown = one.unknown_loops + len(p["grid_mapping"].grid) - len(grid)
  return Count(flops, {(name, sizes): flops}, unknown)
