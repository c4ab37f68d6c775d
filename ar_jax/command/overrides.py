"""The keys of a config, those that it leaves unset among them, and changes.

`--config.KEY=VALUE` changes a key. Of a config with stages the key begins with
the name of a stage; what the whole run shares (`SHARED`) may be named without
one and is then changed in every stage. What cannot be changed is refused with
the full name of the nearest key that can.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from ar_jax import evals, optim
from ar_jax.command import arguments
from ar_jax.command.typed_text import Key, value
from ar_jax.core import system
from ar_jax.core.errors import UserError

Config = ml_collections.ConfigDict

# Groups that mean the same in every stage of a run.
SHARED = ("data", "loader", "mesh", "parallel", "seed")


def keys(config: Config) -> dict[str, Key]:
  """Every key of a config, by its full name."""
  if not config.get("stages"):
    return _keys(config)
  found = {}
  for stage in config.stages:
    if "system" in config[stage]:
      found |= {f"{stage}.{k}": v for k, v in _keys(config[stage]).items()}
    else:
      found |= {f"{stage}.{k}": Key(v) for k, v in config[stage].items()}
  return found


def _keys(config: Config) -> dict[str, Key]:
  found = dict(_unset(config))
  return found | {k: Key(v, _annotation(found, k)) for k, v in _flat(config)}


def _annotation(found: Mapping[str, Key], name: str) -> str:
  return found[name].annotation if name in found else ""


def _flat(config: Config, before: str = "") -> Iterator[tuple[str, Any]]:
  for name in config:
    value = config[name]
    if isinstance(value, Config) and len(value):
      yield from _flat(value, f"{before}{name}.")
    else:
      yield before + name, value


def _unset(config: Config) -> Iterator[tuple[str, Key]]:
  """The arguments that the groups of a config may hold."""

  def of(group: str, found: arguments.Arguments, but=()):
    for name, a in found.items():
      if name not in but:
        default = None if a.default is arguments.NONE else a.default
        yield f"{group}.{name}", Key(default, a.annotation, False)

  yield from _of_model("model", config.system, config.model)
  if "data" in config and "name" in config.data:
    yield from of("data", arguments.of_loader(config.data.name), ("hint",))
    for name in config.data.get("derive") or ():
      yield from of(f"data.derive.{name}", arguments.of_rule(name))
  if "optim" in config:
    yield from of("optim", arguments.of(optim.single, skip=1))
    yield "optim.frozen", Key((), "tuple[str, ...]", False)
  if "sample" in config:
    yield from of("sample.options", options(config))
  for name, given in config.get("evals", {}).items():
    kind = given.get("kind", name)
    if kind in evals.NAMES:
      yield from of(f"evals.{name}", evals.arguments(kind), ("draw",))


def options(config: Config) -> arguments.Arguments:
  """The sampling options of the system of a config."""
  try:
    made = system.build(config.system, **config.model.to_dict())
  except (UserError, TypeError, ValueError, KeyError):
    return arguments.Arguments({}, open=True)  # that is said elsewhere
  return arguments.of_sample(made)


def _of_model(
  group: str, name: str, model: Mapping
) -> Iterator[tuple[str, Key]]:
  try:
    found = arguments.of_build(name)
  except UserError:
    return
  for argument, a in found.items():
    default = None if a.default is arguments.NONE else a.default
    inner = model.get(argument)
    if isinstance(inner, Config) and "name" in inner:
      yield from _of_model(f"{group}.{argument}", inner.name, inner)
    else:
      yield f"{group}.{argument}", Key(default, a.annotation, False)


def apply(config: Config, changes: list[tuple[str, str]]) -> list[str]:
  """Changes a config as the command line says.

  Args:
    config: is changed.
    changes: (full name of a key, its new value as text), in order.

  Returns:
    What a person should be told: one line for each key that stood for several.

  Raises:
    UserError: there is no such key, or it cannot have this value.
  """
  notes, waiting = [], []
  given = {name for name, _ in changes}
  for name, text in changes:
    places = _places(config, name)
    if all(_has(config, place) for place in places):
      _change(config, name, places, text, given, notes)
    else:  # perhaps a change of another key makes it known
      waiting.append((name, places, text))
  for name, places, text in waiting:
    _change(config, name, places, text, given, notes)
  return notes


def _places(config: Config, name: str) -> list[str]:
  """The keys that a name stands for."""
  stages = config.get("stages") or ()
  first = name.split(".")[0]
  if not stages or first in stages or first not in SHARED:
    return [name]
  return [f"{s}.{name}" for s in stages if "system" in config[s]]


def _has(config: Config, name: str) -> bool:
  try:
    for part in name.split("."):
      config = config[part]
  except (KeyError, TypeError, AttributeError):
    return False
  return not (isinstance(config, Config) and len(config))


def _change(config, name, places, text, given, notes) -> None:
  known = keys(config)
  whole = text.startswith("{")  # a group in place of a group
  unknown = [
    p
    for p in places
    if p not in known
    and not _free(config, p)
    and not (whole and any(k.startswith(p + ".") for k in known))
  ]
  if unknown:
    raise UserError(_refusal(config, name, text, known))
  for place in places:
    key = known.get(place, Key(None))
    _put(config, place, value(name, text, key))
    also = [p for p in _same(config, place, known) if p not in given]
    for other in also:
      _put(config, other, value(name, text, known[other]))
    if also:
      notes.append(f"{place}={text}: so is {', '.join(also)}")
    if place.endswith("data.name"):
      notes += _left_out(config, place, given)
  if places != [name]:
    notes.append(f"{name}={text}: in every stage, {', '.join(places)}")


def _left_out(config: Config, name: str, given: set[str]) -> list[str]:
  """Takes from a group of data what the preset said of another set, and this
  one has no word for; what was typed stays, and is refused."""
  group = config
  for part in name.split(".")[:-1]:
    group = group[part]
  try:
    found = arguments.of_loader(group.name)
  except UserError:
    return []  # that is said elsewhere
  whole = name.removesuffix("name")
  stale = [
    k
    for k in group
    if k != "name" and not found.takes(k) and f"{whole}{k}" not in given
  ]
  with config.unlocked():
    for k in stale:
      del group[k]
  what = ", ".join(f"{whole}{k}" for k in stale)
  return [f"{name}={group.name}: has no {what}"] if stale else []


def _free(config: Config, name: str) -> bool:
  """Whether a group takes names that no one knows before."""
  stage, _, rest = name.partition(".")
  if stage in (config.get("stages") or ()) and "system" in config[stage]:
    return _free(config[stage], rest)
  group, _, last = name.rpartition(".")
  if group == "weights" or name.startswith("optim.groups."):
    return True
  if name.startswith("evals."):
    _, entry, *rest = name.split(".")
    kind = config.evals.get(entry, {}).get("kind", entry)
    if kind not in evals.NAMES or not rest:
      return kind in evals.NAMES
    found = evals.arguments(kind)
    if len(rest) > 1:  # of a group of options
      return rest[0] in found and "Mapping" in found[rest[0]].annotation
    return found.takes(last)
  if group == "sample.options" and "sample" in config:
    found = options(config)
    near = difflib.get_close_matches(
      last, [*found, *config.sample.options], n=1, cutoff=0.75
    )
    return found.open and not near
  return False


def _same(config: Config, name: str, known: Mapping[str, Key]) -> list[str]:
  """The keys of later stages that say the same of the model of this one: a
  generator repeats what its tokenizer is."""
  stage, _, rest = name.partition(".")
  if not rest.startswith("model.") or not config.get("stages"):
    return []
  argument, here = rest.removeprefix("model."), config[stage]
  found = []
  for other in config.stages:
    if stage not in config[other].get("weights", {}).values():
      continue
    for group in _groups(config[other].model, f"{other}.model"):
      inner = config
      for part in group.split("."):
        inner = inner[part]
      key = f"{group}.{argument}"
      if inner.name == here.system and key in known:
        found.append(key)
  return found


def _groups(model: Config, before: str) -> Iterator[str]:
  for name, inner in model.items():
    if isinstance(inner, Config):
      if "name" in inner:
        yield f"{before}.{name}"
      yield from _groups(inner, f"{before}.{name}")


def _put(config: Config, name: str, new: Any) -> None:
  *groups, last = name.split(".")
  with config.unlocked():
    for group in groups:
      if not isinstance(config.get(group), Config):
        config[group] = Config()
      config = config[group]
    with config.unlocked(), config.ignore_type():
      config[last] = Config(new) if isinstance(new, dict) else new


def _refusal(
  config: Config, name: str, text: str, known: Mapping[str, Key]
) -> str:
  """What to type in place of a key that there is not."""
  say = lambda found: " or ".join(f"--config.{k}" for k in found[:4])
  said = f"--config.{name}={text}: "
  below = [k for k in known if k.startswith(name + ".")]
  if below:
    return f"{said}is a group of keys; say one of them: {say(below)}"
  ends = [k for k in known if k.endswith("." + name)]
  last = name.rpartition(".")[2]
  ends = ends or [k for k in known if k.rpartition(".")[2] == last]
  if ends:
    first = name.partition(".")[0]
    staged = config.get("stages") and first not in config.stages
    why = "which stage? " if staged and "." in name else "no such key; "
    return f"{said}{why}did you mean {say(ends)}?"
  near = difflib.get_close_matches(name, known, n=2, cutoff=0.75)
  if not near:
    lasts = {k.rpartition(".")[2] for k in known}
    meant = difflib.get_close_matches(last, lasts, n=1, cutoff=0.6)
    near = [k for k in known if k.rpartition(".")[2] in meant]
    depth = name.count(".")
    near.sort(key=lambda k: abs(k.count(".") - depth))
  if near:
    return f"{said}no such key; did you mean {say(near)}?"
  return f"{said}no such key; --list with this --config prints them all"


def described(config: Config) -> list[str]:
  """One line a key: what `--list` prints of a config."""
  lines = []
  for name, key in sorted(keys(config).items()):
    what = key.annotation or type(key.value).__name__
    shown = repr(key.value)
    if isinstance(key.value, Config):
      shown, what = "{}", "group"
    mark = " " if key.set else "-"
    lines.append(f"{mark} --config.{name}={shown}  ({what})")
  return lines


def misfits(config: Config) -> Iterator[str]:
  """What the groups of a config hold that nothing takes: for configs that
  were changed in Python."""
  for group, found in (
    ("model", arguments.of_build(config.system)),
    ("sample.options", options(config)),
  ):
    place = config
    for part in group.split("."):
      place = place.get(part, {})
    for name in place:
      if not found.takes(name):
        close = difflib.get_close_matches(name, found, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        yield (
          f"{group}.{name}: no argument of {config.system!r}; {meant}"
          f"there are {', '.join(found)}"
        )
