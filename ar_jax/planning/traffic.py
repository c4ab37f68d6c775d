"""Bytes between a device and its memory, by the text of its program.

Memory is what each scheduled instruction reads and writes beyond the chip:
what a fusion keeps to itself costs nothing; of a buffer that is cut, or is
updated in place, only the part counts.
"""

from __future__ import annotations

from ar_jax.planning.collectives import kind_of
from ar_jax.planning.hlo import Computation, Instruction

# Scheduled, but no traffic of their own.
_FREE = {
  "parameter", "constant", "tuple", "get-tuple-element", "bitcast",
  "after-all", "partition-id", "replica-id", "opt-barrier",
  "optimization-barrier", "while", "conditional", "call", "domain",
  "async-start", "async-update", "async-done", "get-dimension-size",
}  # fmt: skip
_CUTS = {"dynamic-slice", "slice", "gather"}


class Traffic:
  """Reads the instructions of one program.

  Args:
    computations: from `hlo.parse`.
  """

  def __init__(self, computations: dict[str, Computation]):
    self.all = computations

  def bytes(self, c: Computation, i: Instruction) -> float:
    """Bytes that a scheduled instruction reads and writes."""
    if i.op in _FREE or i.op.endswith("-done"):
      return 0.0
    given = c.operands(i)
    read = [sum(a.far for a in x.arrays) for x in given]
    wrote = sum(a.far for a in i.arrays)
    if i.op == "fusion":
      inner = self.all[i.called("calls")]
      return self._inputs(inner, given) + self._outputs(inner, i)
    if i.op in _CUTS:
      return 2 * wrote
    if i.op == "dynamic-update-slice":
      return 2 * read[1] if not i.arrays[0].near else read[1]
    if i.op == "scatter":
      return sum(read[1:]) + 2 * read[-1]
    if i.op in ("copy-start", "slice-start", "dynamic-slice-start"):
      # The result is a tuple of what is written, what is read, and a context.
      return i.arrays[0].far + (i.arrays[0].bytes if read and read[0] else 0)
    if kind := kind_of(i.op):
      far = sum(read)
      return far * 2 if kind != "all-gather" else far + i.arrays[-1].far
    if i.op == "custom-call" and "__cu" in i.attributes:
      wrote = i.arrays[0].far  # what follows is a workspace
    return sum(read) + wrote

  def _inputs(self, inner: Computation, given: list[Instruction]) -> float:
    total = 0.0
    for p, x in zip(inner.parameters, given, strict=False):
      far = sum(a.far for a in x.arrays)
      total += min(far, self._read(inner, p.name)) if far else 0.0
    return total

  def _read(self, c: Computation, value: str) -> float:
    """Bytes that a fusion reads of a value in it."""
    total = 0.0
    own = sum(a.bytes for a in c.instructions[value].arrays)
    for user in c.users.get(value, ()):
      if user.op in _CUTS and user.operands[0] == value:
        total += sum(a.bytes for a in user.arrays)
      elif user.op == "dynamic-update-slice" and user.operands[0] == value:
        pass  # in place
      elif user.op == "bitcast":
        total += self._read(c, user.name)
      elif user.op == "fusion":
        deeper = self.all[user.called("calls")]
        at = user.operands.index(value)
        total += self._read(deeper, deeper.parameters[at].name)
      elif user.op == "tuple" and user.root:
        pass  # handed on
      else:
        return own
    return min(own, total)

  def _outputs(self, inner: Computation, i: Instruction) -> float:
    roots = self._roots(inner)
    if len(roots) != len(i.arrays):
      return sum(a.far for a in i.arrays)
    total = 0.0
    for array, updated in zip(i.arrays, roots, strict=True):
      if array.far:
        total += array.far if updated is None else min(array.far, updated)
    return total

  def _roots(self, c: Computation) -> list[float | None]:
    """For each array that a fusion returns: None if all of it is written,
    else the bytes that are updated in place, or 0 if it is handed on."""
    root = c.root
    names = root.operands if root.op == "tuple" else (root.name,)
    return [self._updated(c, name) for name in names]

  def _updated(self, c: Computation, name: str) -> float | None:
    i = c.instructions[name]
    while i.op == "bitcast":
      i = c.instructions[i.operands[0]]
    if i.op == "parameter":
      return 0.0
    if i.op == "dynamic-update-slice":
      update = c.instructions[i.operands[1]]
      return sum(a.bytes for a in update.arrays)
    if i.op == "fusion":
      deeper = self._roots(self.all[i.called("calls")])
      return deeper[0] if len(deeper) == 1 else None
    return None
