"""A machine for pickles that knows tensors and plain containers, nothing else.

A pickle is a program: it may call anything, and a hundred bytes of it may ask
for gigabytes. This machine runs it instruction by instruction, as Python's
`pickletools` tells them apart. What is no harmless word is refused before it
could be called, and what would take more memory than a file of that size may
ask for is refused before the memory is taken:

  - the number of instructions is bounded, and so are the objects they make;
  - a text or a number is as long as the file at most;
  - what is remembered is kept by its number, however large the number is;
  - keys of dicts are texts, numbers and flat tuples of these, and containers
    lie in each other up to a depth, so nothing can overflow the stack.
"""

from __future__ import annotations

import argparse
import collections
import pickletools
from collections.abc import Callable, Hashable, Mapping
from typing import Any, BinaryIO

from ar_jax.core.errors import UserError

# Of one pickle; a tensor takes about 35. An instruction makes one object of
# about a hundred bytes at most, apart from the bytes of the file.
INSTRUCTIONS = 2_000_000
DEPTH = 64  # of containers in containers

# Instructions that push what is written behind them.
_LITERALS = frozenset(
  "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING "
  "SHORT_BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES "
  "SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class Namespace(argparse.Namespace):
  """Options of a script, as a training checkpoint keeps them."""


class Refused(UserError):
  """The pickle asks for what this machine does not do."""


class Word:
  """A name that the pickle may call: only what stands behind it is run."""

  def __init__(self, name: str, call: Callable[..., Any] | None):
    self.name, self.call = name, call


# What a key may be, alone or in a tuple.
_SCALARS = (str, bytes, int, float, bool, type(None), Word)


class _Bounded:
  """Reads a stretch of a file and never asks for more than is left of it."""

  def __init__(self, file: BinaryIO, size: int):
    self._file, self._left = file, size

  def read(self, n: int) -> bytes:
    if not 0 <= n <= self._left:
      raise ValueError(f"{n} bytes are asked for, {self._left} are left")
    self._left -= n
    return self._file.read(n)

  def readline(self) -> bytes:
    line = self._file.readline(min(self._left, 1 << 16))
    self._left -= len(line)
    return line


def shown(x: Any) -> str:
  """x in a message: one line, not too long."""
  text = str(x) if isinstance(x, str) else type(x).__name__
  text = text.encode("ascii", "backslashreplace").decode()
  text = "".join(c if c.isprintable() else "?" for c in text)
  return text if len(text) <= 80 else text[:77] + "..."


def load(
  file: BinaryIO,
  size: int,
  words: Mapping[tuple[str, str], Word],
  storage: Callable[[Any], Any],
  limit: int | None = None,
) -> Any:
  """What a pickle describes.

  Args:
    file: stands at its first byte; afterwards behind its last.
    size: bytes that the file has from there on.
    words: what may be named, by module and name; plain containers are known.
    storage: makes an object of a persistent id.
    limit: on the instructions; INSTRUCTIONS if None.

  Raises:
    Refused: the pickle asks for something else, or for too much.
    Exception: it is damaged.
  """
  machine = _Machine(words, storage)
  limit = INSTRUCTIONS if limit is None else limit
  done = 0
  for op, value, _ in pickletools.genops(_Bounded(file, size)):
    done += 1
    if done > limit:
      raise Refused(f"its pickle has more than {limit} instructions")
    machine.run(op.name, value)
  result = machine.pop()
  _check_depth(result)
  return result


class _Machine:
  """The stack, what is remembered, and one method that does a step."""

  def __init__(self, words, storage):
    self._stack: list[Any] = []
    self._memo: dict[int, Any] = {}
    self._words, self._storage = words, storage

  def pop(self) -> Any:
    x = self._stack.pop()
    if x is _MARK:
      raise ValueError("a mark in place of an object")
    return x

  def _behind_mark(self) -> list[Any]:
    """What lies above the last mark, which is taken off with it."""
    stack, at = self._stack, len(self._stack) - 1
    while stack[at] is not _MARK:
      at -= 1
      if at < 0:
        raise ValueError("no mark")
    items = stack[at + 1 :]
    del stack[at:]
    return items

  def run(self, name: str, value: Any) -> None:
    push = self._stack.append
    if name in _LITERALS:
      push(value)
    elif name in _CONSTANTS:
      push(_CONSTANTS[name])
    elif name in _EMPTY:
      push(_EMPTY[name]())
    elif name in _TUPLES:
      items = [self.pop() for _ in range(_TUPLES[name])]
      push(tuple(items[::-1]))
    elif name == "MARK":
      push(_MARK)
    elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
      self._memo[value] = self._top()
    elif name == "MEMOIZE":
      self._memo[len(self._memo)] = self._top()
    elif name in ("GET", "BINGET", "LONG_BINGET"):
      push(self._memo[value])
    elif name == "GLOBAL":
      push(self._word(*value.split(" ", 1)))
    elif name == "STACK_GLOBAL":
      word, module = self.pop(), self.pop()
      push(self._word(module, word))
    elif name == "BINPERSID":
      push(self._storage(self.pop()))
    elif name == "POP":
      self._stack.pop()
    elif name == "POP_MARK":
      self._behind_mark()
    elif name == "DUP":
      push(self._top())
    elif name in ("APPEND", "APPENDS"):
      items = [self.pop()] if name == "APPEND" else self._behind_mark()
      _of(self._top(), list).extend(items)
    elif name in ("SETITEM", "SETITEMS"):
      if name == "SETITEM":
        items = [self.pop(), self.pop()][::-1]
      else:
        items = self._behind_mark()
      _fill(_of(self._top(), dict), items)
    elif name in ("ADDITEMS", "FROZENSET"):
      items = [_key(x) for x in self._behind_mark()]
      if name == "FROZENSET":
        push(frozenset(items))
      else:
        _of(self._top(), set).update(items)
    elif name == "TUPLE":
      push(tuple(self._behind_mark()))
    elif name == "LIST":
      push(self._behind_mark())
    elif name == "DICT":
      items = self._behind_mark()
      push(_fill({}, items))
    elif name in ("REDUCE", "NEWOBJ"):
      args, word = self.pop(), self.pop()
      if not isinstance(word, Word) or word.call is None:
        name = word.name if isinstance(word, Word) else type(word).__name__
        raise Refused(
          f"its pickle asks for {name}, which is neither a tensor nor a plain "
          "container; refused, since calling it could run anything. If you "
          "trust the file, load it in PyTorch and save only its state dict"
        )
      push(word.call(*_of(args, tuple)))
    elif name == "BUILD":
      self._build(self.pop())
    elif name not in ("PROTO", "FRAME", "STOP"):
      raise Refused(f"its pickle holds the instruction {name}")

  def _top(self) -> Any:
    x = self._stack[-1]
    if x is _MARK:
      raise ValueError("a mark in place of an object")
    return x

  def _word(self, module: Any, name: Any) -> Word:
    if not isinstance(module, str) or not isinstance(name, str):
      raise ValueError("a name that is no text")
    if (module, name) in PLAIN:
      return PLAIN[module, name]
    if (module, name) in self._words:
      return self._words[module, name]
    # A class may be named, as a key of Lightning's callbacks; it stands for
    # nothing here, and nothing is imported.
    return Word(f"{shown(module)}.{shown(name)}", None)

  def _build(self, state: Any) -> None:
    """Attributes: of options they are what is wanted; what PyTorch hangs on a
    state dict (the versions of its modules) is dropped."""
    x = self._top()
    if isinstance(x, Namespace):
      for key, value in _of(state, dict).items():
        # An attribute with two underscores is no option.
        if isinstance(key, str) and not key.startswith("__"):
          vars(x)[key] = value
    elif not isinstance(x, (dict, str)):  # a text: the name of a dtype
      raise Refused(f"its pickle sets attributes of a {type(x).__name__}")


def _of(x: Any, kind: type) -> Any:
  if not isinstance(x, kind):
    raise ValueError(f"a {type(x).__name__} in place of a {kind.__name__}")
  return x


def _key(x: Any) -> Hashable:
  flat = isinstance(x, tuple) and all(isinstance(y, _SCALARS) for y in x)
  if not flat and not isinstance(x, _SCALARS):
    raise Refused(f"its pickle has a {type(x).__name__} as a key")
  return x


def _fill(into: dict, items: list) -> dict:
  if len(items) % 2:
    raise ValueError("a key without a value")
  for key, value in zip(items[::2], items[1::2], strict=True):
    into[_key(key)] = value
  return into


def _ordered(items: Any = ()) -> dict[Any, Any]:
  flat = [y for x in items for y in _of(tuple(x), tuple)[:2]]
  return _fill(collections.OrderedDict(), flat)


def _set(items: Any = ()) -> set[Any]:
  return {_key(x) for x in items}


# What may be called, apart from tensors. A default of a dict is dropped.
PLAIN = {
  key: Word(".".join(key), call)
  for key, call in {
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): lambda default=None: {},
    ("argparse", "Namespace"): Namespace,
    ("builtins", "dict"): lambda items=(): dict(_ordered(items)),
    ("builtins", "list"): lambda items=(): list(_of(items, (list, tuple))),
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): lambda items=(): frozenset(_set(items)),
    ("__builtin__", "frozenset"): lambda items=(): frozenset(_set(items)),
    ("__builtin__", "dict"): lambda items=(): dict(_ordered(items)),
    ("__builtin__", "set"): _set,
    # How protocol 2 writes bytes.
    ("_codecs", "encode"): lambda text, *_: _of(text, str).encode("latin1"),
    ("pathlib", "PosixPath"): lambda *parts: "/".join(map(str, parts)),
    ("pathlib", "WindowsPath"): lambda *parts: "/".join(map(str, parts)),
  }.items()
}


def _inside(x: Any) -> list[Any]:
  """The containers right inside of one."""
  if isinstance(x, Namespace):
    x = vars(x)
  inner = x.values() if isinstance(x, dict) else x
  if not isinstance(x, (dict, list, tuple)):
    return []
  return [y for y in inner if isinstance(y, (dict, list, tuple, Namespace))]


def _check_depth(x: Any) -> None:
  """That containers do not lie in each other too deep, or in themselves."""
  heights: dict[int, int] = {}  # of those that were left, by identity
  path, here = [[x, iter(_inside(x)), 1]], {id(x)}
  while path:
    item, inner, height = path[-1]
    below = next(inner, None)
    if below is None:
      heights[id(item)] = height
      here.discard(id(item))
      path.pop()
      if path:
        path[-1][2] = max(path[-1][2], height + 1)
      continue
    if id(below) in here:
      raise Refused("one of its containers holds itself")
    if len(path) + heights.get(id(below), 1) > DEPTH:
      raise Refused(f"its containers lie in each other over {DEPTH} deep")
    if id(below) in heights:
      path[-1][2] = max(height, heights[id(below)] + 1)
    else:
      here.add(id(below))
      path.append([below, iter(_inside(below)), 1])
