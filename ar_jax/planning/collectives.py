"""What devices tell each other in a compiled program."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np

from ar_jax.planning.hlo import Instruction

KINDS = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "ragged-all-to-all",
  "collective-permute",
  "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class Collective:
  """One exchange.

  Attributes:
    kind: one of `KINDS`.
    payload: bytes that a device gives to it.
    wire: bytes that a device sends, if each goes around a ring once.
    far: whether some group has devices of several nodes.
    channel: the same number means the same exchange; None if it has none.
  """

  kind: str
  payload: float
  wire: float
  far: bool
  channel: int | None


def kind_of(op: str) -> str | None:
  """The kind of an operation; None if it sends nothing, or ends what another
  has begun."""
  op = op.removesuffix("-start")
  return op if op in KINDS else None


def collective(
  instruction: Instruction,
  payload: float,
  devices: int,
  node: int,
  kind: str | None = None,
) -> Collective:
  """What an instruction sends.

  Args:
    instruction: of an op that has a `kind_of`.
    payload: bytes of its operands on one device.
    devices: that run the program.
    node: devices of one node, numbered in sequence.
    kind: where it is known better than from the op.
  """
  kind = kind or kind_of(instruction.op)
  rows = groups(instruction.attributes, devices)
  size = rows.shape[1]
  share = (size - 1) / size
  if kind == "all-gather":
    wire = payload * (size - 1)
  elif kind == "all-reduce":
    wire = 2 * payload * share
  elif kind in ("collective-permute", "collective-broadcast"):
    wire = payload if size > 1 else 0.0
  else:
    wire = payload * share
  far = bool(np.any(rows // node != rows[:, :1] // node))
  found = re.search(r"channel_id=(\d+)", instruction.attributes)
  channel = int(found[1]) if found else None
  return Collective(kind, payload, wire, far, channel)


def groups(attributes: str, devices: int) -> np.ndarray:
  """int[groups, devices of each]: who takes part with whom.

  XLA writes lists, {{0,1},{2,3}}; or iotas, [2,4]<=[4,2]T(1,0); or axes of a
  mesh, mesh['a'=2,'b'=4] {'b'}, whose devices may be an iota.
  """
  found = re.search(
    r"(?:replica_groups|source_target_pairs)=\{(\{.*?\})\}", attributes
  )
  if found:
    rows = [r.split(",") for r in re.findall(r"\{([\d,]+)\}", found[1])]
    width = max(map(len, rows))
    # Groups of unequal sizes: the small ones are filled with a member.
    rows = [list(map(int, r)) + [int(r[0])] * (width - len(r)) for r in rows]
    return np.array(rows)
  found = re.search(r"replica_groups=(\[[\d,]+\]<=\S+?)(?:,\s|$)", attributes)
  if found:
    return _iota(found[1])
  found = re.search(
    r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?\]\S*?)\))? "
    r"\{(.*?)\}",
    attributes,
  )
  if found:
    return _axes(*found.groups())
  return np.arange(devices)[None]


def _iota(text: str) -> np.ndarray:
  """Of [2,4]<=[4,2]T(1,0); of [4,2]T(1,0), the numbers in one row."""
  shape, _, source = text.rpartition("<=")
  dims, _, turned = source.partition("T")
  dims = _ints(dims)
  order = np.arange(math.prod(dims)).reshape(dims)
  if turned:
    order = order.transpose(_ints(turned))
  return order.reshape(_ints(shape) if shape else (1, -1))


def _axes(mesh: str, device_ids: str | None, named: str) -> np.ndarray:
  sizes = {k: int(n) for k, n in re.findall(r"'([^']+)'=(\d+)", mesh)}
  devices = math.prod(sizes.values())
  order = _iota(device_ids) if device_ids else np.arange(devices)
  # An axis may take part in pieces, 'a':(2)4: the four places of the second
  # level of an axis that is cut into 2 x 4 x the rest.
  dims, taken = [], []
  wanted = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", named)
  for axis, size in sizes.items():
    cuts = [(int(a), int(b)) for k, a, b in wanted if k == axis and a]
    whole = any(k == axis and not a for k, a, _ in wanted)
    before = 1
    for outer, inner in sorted(cuts):
      dims += [outer // before, inner]
      taken += [False, True]
      before = outer * inner
    dims.append(size // before)
    taken.append(whole)
  order = np.asarray(order).reshape(dims)
  free = [i for i, t in enumerate(taken) if not t]
  used = [i for i, t in enumerate(taken) if t]
  size = math.prod(dims[i] for i in used)
  return order.transpose(free + used).reshape(-1, size)


def _ints(text: str) -> tuple[int, ...]:
  return tuple(map(int, re.findall(r"\d+", text)))
