"""Which keyword arguments a function takes, through every `**rest` as well.

A system's `build` hands most of its arguments on (`**net`, `**training`), as do
samplers. What they are is read off the code: the calls that `**rest` goes into.
A `build` that says so itself, by `system.passes_on`, is believed.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from ar_jax.core import system
from ar_jax.core.decoding import pick

NONE = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Argument:
  """A keyword argument.

  Attributes:
    default: NONE where there is none.
    annotation: as it is written; "" where there is none.
  """

  default: Any = NONE
  annotation: str = ""


@dataclasses.dataclass(frozen=True)
class Arguments(Mapping[str, Argument]):
  """The keyword arguments of a function, by name.

  Attributes:
    named: those that are known.
    open: whether it takes others, too, of which nothing is known.
  """

  named: dict[str, Argument]
  open: bool = False

  def __getitem__(self, name: str) -> Argument:
    return self.named[name]

  def __iter__(self):
    return iter(self.named)

  def __len__(self) -> int:
    return len(self.named)

  def takes(self, name: str) -> bool:
    return self.open or name in self.named


def of_build(name: str) -> Arguments:
  """Those of the `build` of a system or tokenizer.

  Raises:
    UserError: there is no such system.
  """
  return of(system.builder(name))


def of_sample(made: system.System) -> Arguments:
  """The sampling options of a system."""
  return of(type(made).sample, made, skip=4)


def of(function: Callable, owner: Any = None, *, skip: int = 0) -> Arguments:
  """Those of any function.

  Args:
    function: whose arguments.
    owner: the object that a method is of.
    skip: so many at the front are not meant.
  """
  return _of(function, owner, skip, frozenset())


def _of(function, owner, skip: int, passed: frozenset) -> Arguments:
  try:
    parameters = list(inspect.signature(function).parameters.values())[skip:]
  except (TypeError, ValueError):  # of C, say
    return Arguments({}, open=True)
  named, rest = {}, None
  for p in parameters:
    if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD):
      annotation = "" if p.annotation is NONE else _text(p.annotation)
      named[p.name] = Argument(p.default, annotation)
    elif p.kind == p.VAR_KEYWORD:
      rest = p.name
  if rest is None or function in passed:
    return Arguments(named)
  more, unknown = {}, False
  for target, place, count, given in _targets(function, owner, rest):
    found = _of(target, place, count, passed | {function})
    more |= {k: v for k, v in found.items() if k not in given}
    unknown |= found.open
  if not more:
    unknown = True
  return Arguments({**more, **named}, unknown)


def _text(annotation: Any) -> str:
  if isinstance(annotation, str):
    return annotation
  return getattr(annotation, "__name__", str(annotation))


def _targets(
  function, owner, rest: str
) -> list[tuple[Callable, Any, int, set[str]]]:
  """(function, its owner, how many arguments it gets by position, names that
  it gets otherwise) for each that is handed `**rest`."""
  if (said := getattr(function, "rest", None)) is not None:
    target = system.builder(said) if isinstance(said, str) else said
    by_place = [
      p
      for p in inspect.signature(target).parameters.values()
      if p.kind == p.POSITIONAL_OR_KEYWORD
    ]
    return [(target, None, len(by_place), set())]
  if rest == "law":  # everywhere the arguments of the one law of sampling
    return [(pick.law, None, 1, set())]
  try:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
  except (OSError, TypeError, SyntaxError):
    return []
  found = []
  for call in ast.walk(tree):
    if not isinstance(call, ast.Call):
      continue
    if not any(
      k.arg is None and isinstance(k.value, ast.Name) and k.value.id == rest
      for k in call.keywords
    ):
      continue
    given = {k.arg for k in call.keywords if k.arg}
    target, place = _value(call.func, function, owner)
    count = len(call.args)
    if target is system.build:
      named = call.args and call.args[0]
      if not isinstance(named, ast.Constant):
        continue  # of a system that only a value names
      target, count = system.builder(named.value), 0
    if target is None or target is nn.Module.apply:
      continue
    if inspect.isfunction(target) and place is not None:
      count += 1  # self
    found.append((target, place, count, given))
  return found


def _value(node: ast.expr, function, owner) -> tuple[Any, Any]:
  """(what an expression of a function stands for, the owner of a method)."""
  if isinstance(node, ast.Name):
    known = inspect.getmodule(function)
    found = getattr(known, node.id, getattr(builtins, node.id, None))
    return found, None
  if isinstance(node, ast.Attribute):
    if isinstance(node.value, ast.Name) and node.value.id == "self":
      if owner is None:
        return None, None
      found = getattr(type(owner), node.attr, None)
      if inspect.isfunction(found):
        return found, owner
      return getattr(owner, node.attr, None), None
    if (
      isinstance(node.value, ast.Call)
      and isinstance(node.value.func, ast.Name)
      and node.value.func.id == "super"
      and owner is not None
    ):
      name = function.__qualname__.split(".")[0]
      line = [c for c in type(owner).__mro__ if hasattr(c, node.attr)]
      here = next((i for i, c in enumerate(line) if c.__name__ == name), -1)
      above = [c for c in line[here + 1 :] if node.attr in vars(c)]
      return (vars(above[0])[node.attr], owner) if above else (None, None)
    place, _ = _value(node.value, function, owner)
    if place is None:
      return None, None
    found = getattr(type(place), node.attr, None)
    if inspect.isfunction(found):
      return found, place
    return getattr(place, node.attr, None), None
  return None, None


def of_loader(name: str) -> Arguments:
  """The options of the loader of a data set, `data.load`'s own among them."""
  from ar_jax.data import sources

  shared = of(sources.load).named
  prepared = ("images.prepared", "prepared")
  module, function = sources.LOADERS.get(name, prepared)
  loader = importlib.import_module(f"ar_jax.data.{module}")
  own = of(getattr(loader, function))
  return Arguments({**own, **shared}, own.open)


def of_rule(name: str) -> Arguments:
  """The options of a rule that derives fields of data from others."""
  from ar_jax.data.wrap import derived

  maker = derived.maker(name)
  return Arguments({}) if maker is None else of(maker)


def loaders() -> list[str]:
  """The names of the data sets that the library has loaders of."""
  from ar_jax.data import sources

  return sorted(sources.LOADERS)
