"""Values of a config's keys from what a person types."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import ml_collections

from ar_jax.core.errors import UserError

Config = ml_collections.ConfigDict


@dataclasses.dataclass(frozen=True)
class Key:
  """A key that can be set.

  Attributes:
    value: in the config; or the default of the argument that it sets.
    annotation: of that argument, as written; "" where it is not known.
    set: whether the config has it.
  """

  value: Any
  annotation: str = ""
  set: bool = True


def value(name: str, text: str, key: Key) -> Any:
  """A value from its text, of the type that the key has.

  Raises:
    UserError: it cannot be read as that.
  """
  old, kinds = key.value, set(re.findall(r"\w+", key.annotation))
  if old is not None and not isinstance(old, Config | Mapping):
    kinds |= {type(old).__name__}
  if "float" in kinds and isinstance(old, int) and not isinstance(old, bool):
    kinds.discard("int")
  many = kinds & {"tuple", "list", "Sequence"}
  if text.lower() in ("none", "null") and (
    old is None or "None" in kinds or not kinds
  ):
    return None
  if kinds - {"None"} == {"bool"}:
    return _bool(name, text)
  if "bool" in kinds and text.lower() in ("true", "false"):
    return text.lower() == "true"  # of those that may be a number, too
  if many and not (kinds & {"str"} and isinstance(old, str)):
    return _tuple(name, text, old, kinds)
  if kinds & {"dict", "Mapping", "ConfigDict"} or isinstance(old, Mapping):
    return _literal(name, text, dict, "a dict such as {'n': 100}")
  if "int" in kinds and not kinds & {"float", "str"}:
    return _int(name, text)
  if "float" in kinds and "str" not in kinds:
    return _float(name, text)
  if kinds and kinds <= {"str", "None"}:
    return text
  try:
    found = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return {"true": True, "false": False}.get(text.lower(), text)
  return found if not isinstance(found, list) else tuple(found)


def _bool(name: str, text: str) -> bool:
  known = {"true": True, "1": True, "yes": True}
  known |= {"false": False, "0": False, "no": False}
  if text.lower() not in known:
    raise UserError(f"--config.{name}={text}: must be true or false")
  return known[text.lower()]


def _int(name: str, text: str) -> int:
  try:
    return int(text)
  except ValueError:
    number = _float(name, text, "a whole number")
    if not number.is_integer():
      raise UserError(
        f"--config.{name}={text}: must be a whole number"
      ) from None
    return int(number)


def _float(name: str, text: str, what: str = "a number") -> float:
  try:
    return float(text)
  except ValueError as e:
    raise UserError(f"--config.{name}={text}: must be {what}") from e


def _literal(name: str, text: str, kind: type, what: str):
  try:
    found = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    found = None
  if not isinstance(found, kind):
    raise UserError(f"--config.{name}={text}: must be {what}")
  return found


def _tuple(name: str, text: str, old: Any, kinds: set[str]) -> Any:
  try:
    found = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    found = tuple(t.strip() for t in text.strip("()[]").split(",") if t.strip())
  if isinstance(found, list | tuple):
    return tuple(tuple(x) if isinstance(x, list) else x for x in found)
  if kinds & {"int", "float", "str"} & {type(found).__name__} and (
    not isinstance(old, tuple)
  ):
    return found  # a number in place of a sequence, where both are possible
  return (found,)
