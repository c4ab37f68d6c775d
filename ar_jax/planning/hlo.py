"""The text of a compiled program, taken apart.

XLA writes one line for each instruction:

  %name = shape op(operands), attributes

Shapes are of one device. `S(1)` in a layout is memory on the chip, such as a
TPU's VMEM: what lies there moves no bytes to or from the device's memory.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Iterator

_BITS = {
  "pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128, "tf32": 32,
}  # fmt: skip
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<= ]*)\](\{[^}]*\})?")
_LINE = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = ")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_OP = re.compile(r"([\w\-]+)\(")
_NAME = re.compile(r"%([\w.\-]+)")
_COMMENT = re.compile(r"/\*.*?\*/")


@dataclasses.dataclass(frozen=True)
class Array:
  """An array in a shape.

  Attributes:
    dtype: as XLA writes it, for example "bf16".
    dims: its sizes.
    bytes: of its elements.
    near: whether it lies on the chip, not in the device's memory.
  """

  dtype: str
  dims: tuple[int, ...]
  bytes: int
  near: bool

  @property
  def far(self) -> int:
    """Bytes in the device's memory."""
    return 0 if self.near else self.bytes


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of the text.

  Attributes:
    name: unique in its computation.
    shape: of the result, as text.
    op: what is done.
    operands: the names of its operands; of a parameter or a constant, what
      stands in the brackets.
    attributes: the rest of the line.
    root: whether its computation returns it.
  """

  name: str
  shape: str
  op: str
  operands: tuple[str, ...]
  attributes: str
  root: bool

  @functools.cached_property
  def arrays(self) -> tuple[Array, ...]:
    return tuple(arrays(self.shape))

  def called(self, attribute: str) -> str | None:
    """The computation named by an attribute."""
    found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
    return found and found[1]

  def numbers(self, attribute: str) -> tuple[int, ...]:
    """The numbers of an attribute such as dimensions={0,1}."""
    found = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.attributes)
    return tuple(map(int, found[1].split(","))) if found and found[1] else ()

  @functools.cached_property
  def config(self) -> dict:
    """`backend_config`, where it is JSON."""
    start = self.attributes.find("backend_config={")
    if start < 0:
      return {}
    text = self.attributes[start + len("backend_config=") :]
    try:
      return json.JSONDecoder().raw_decode(text)[0]
    except ValueError:
      return {}


@dataclasses.dataclass
class Computation:
  """Instructions in order, by name."""

  name: str
  entry: bool
  instructions: dict[str, Instruction]

  @functools.cached_property
  def root(self) -> Instruction:
    return next(i for i in reversed(self.instructions.values()) if i.root)

  @functools.cached_property
  def parameters(self) -> list[Instruction]:
    found = [i for i in self.instructions.values() if i.op == "parameter"]
    return sorted(found, key=lambda i: int(i.operands[0]))

  def operands(self, i: Instruction) -> list[Instruction]:
    """The instructions whose results one reads."""
    found = (self.instructions.get(name) for name in i.operands)
    return [x for x in found if x is not None]

  @functools.cached_property
  def users(self) -> dict[str, list[Instruction]]:
    """Name of an instruction -> those that read it."""
    found: dict[str, list[Instruction]] = {}
    for i in self.instructions.values():
      for name in dict.fromkeys(i.operands):
        found.setdefault(name, []).append(i)
    return found


def arrays(shape: str) -> Iterator[Array]:
  """The arrays of a shape, those of a tuple in order."""
  for dtype, dims, layout in _ARRAY.findall(shape):
    bits = _BITS.get(dtype)
    if bits is None:
      bits = int(re.search(r"\d+", dtype)[0])
    sizes = tuple(int(d.strip("<= ")) for d in dims.split(",") if d.strip())
    near = bool(re.search(r"S\([1-9]", layout))
    yield Array(dtype, sizes, math.prod(sizes) * bits // 8, near)


def _closing(text: str, start: int) -> int:
  """The place after the bracket that closes the one at `start`."""
  depth = 0
  for at in range(start, len(text)):
    if text[at] in "({":
      depth += 1
    elif text[at] in ")}":
      depth -= 1
      if not depth:
        return at + 1
  raise ValueError(f"no end of {text[start : start + 40]!r}")


def _instruction(line: str) -> Instruction | None:
  line = _COMMENT.sub("", line)
  found = _LINE.match(line)
  if not found:
    return None
  at = found.end()
  stop = _closing(line, at) if line[at] == "(" else line.index(" ", at)
  shape = line[at:stop]
  op = _OP.match(line, stop + 1)
  if not op:
    return None
  end = _closing(line, op.end() - 1)
  inside = line[op.end() : end - 1]
  operands = tuple(_NAME.findall(inside)) or (inside.strip(),)
  return Instruction(
    found[2], shape, op[1], operands, line[end:], bool(found[1])
  )


def parse(text: str) -> dict[str, Computation]:
  """Name -> computation, of `compiled.as_text()`."""
  found, current = {}, None
  for line in text.splitlines():
    if line.startswith("}"):
      current = None
    elif current is None:
      head = _HEAD.match(line)
      if head:
        current = Computation(head[2], bool(head[1]), {})
        found[head[2]] = current
    else:
      instruction = _instruction(line)
      if instruction:
        current.instructions[instruction.name] = instruction
  return found


def entry(computations: dict[str, Computation]) -> Computation:
  """Where the program begins."""
  return next(c for c in computations.values() if c.entry)
