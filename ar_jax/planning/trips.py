"""How often the loops of a compiled program turn."""

from __future__ import annotations

import math

from ar_jax.planning.hlo import Computation, Instruction

# What hands its first operand on.
_SAME = {
  "bitcast", "convert", "copy", "copy-done", "copy-start",
  "optimization-barrier",
}  # fmt: skip


def trips(
  loop: Instruction, where: Computation, all_of: dict[str, Computation]
) -> int | None:
  """The turns of a `while`; None if they are data.

  XLA says it for GPUs; elsewhere it is what the condition compares: a counter
  that begins at a constant and grows by one, with a constant.

  Args:
    loop: the instruction.
    where: its computation.
    all_of: the program.
  """
  known = loop.config.get("known_trip_count", {}).get("n")
  if known is not None:
    return int(known)
  condition = all_of[loop.called("condition")]
  found = _comparison(condition, all_of)
  if found is None:
    return None
  direction, sides = found
  begin = where.instructions.get(loop.operands[0])
  counter, bound = (_value(s, condition, begin, where) for s in sides)
  (at, start), (_, stop) = counter, bound
  if at is None:  # the counter stands on the right
    return None
  step = _step(all_of[loop.called("body")], at)
  if stop is None or not step:
    return None
  start = 0 if start is None else start
  if direction in ("LE", "GE"):
    stop += 1 if step > 0 else -1
  return max(0, math.ceil((stop - start) / step))


def _comparison(condition: Computation, all_of: dict[str, Computation]):
  """(direction, the two sides as instructions of the condition)."""
  root, inner = condition.root, condition
  arguments: list[str] = []
  if root.op in ("fusion", "call"):
    arguments = list(root.operands)
    inner = all_of[root.called("calls") or root.called("to_apply")]
    root = inner.root
  if root.op != "compare":
    return None
  sides = []
  for name in root.operands:
    side = _origin(inner, name)
    if arguments and side.op == "parameter":
      side = _origin(condition, arguments[int(side.operands[0])])
    sides.append(side)
  direction = root.attributes.split("direction=")[1][:2]
  return direction, sides


def _origin(where: Computation, name: str) -> Instruction:
  """The instruction behind copies and conversions."""
  instruction = where.instructions[name]
  while instruction.op in _SAME:
    instruction = where.instructions[instruction.operands[0]]
  return instruction


def _value(side, condition, begin, where) -> tuple[int | None, int | None]:
  """(its place in the state of the loop or None, its value at the beginning
  or None)."""
  if side.op == "constant":
    return None, _number(side)
  if side.op != "get-tuple-element":
    return None, None
  at = int(side.attributes.split("index=")[1].split(",")[0])
  if begin is None or begin.op != "tuple":
    return at, None
  origin = _origin(where, begin.operands[at])
  return at, _number(origin) if origin.op == "constant" else None


def _number(constant: Instruction) -> int | None:
  try:
    return int(constant.operands[0])
  except (ValueError, IndexError):
    return None


def _step(body: Computation, at: int) -> int | None:
  """What a turn adds to the counter; 1 where that is hidden in a fusion."""
  if body.root.op != "tuple":
    return 1
  new = _origin(body, body.root.operands[at])
  if new.op != "add":
    return 1
  for name in new.operands:
    side = _origin(body, name)
    if side.op == "constant":
      return _number(side)
  return 1
