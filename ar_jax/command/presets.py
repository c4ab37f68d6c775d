"""Configs by name, from any folder: `var:d16`, or a file of one's own.

The configs of the library are the package `configs`: in the repository beside
`ar_jax`, in an installed wheel inside it. They, and files that build on them,
import it as `configs`, wherever it lies.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pathlib
import re
import sys
import traceback
import types

import ml_collections

from ar_jax.core.errors import UserError

Config = ml_collections.ConfigDict

_HERE = pathlib.Path(__file__).resolve().parents[1]


def folder() -> pathlib.Path:
  """Where the configs of the library lie."""
  inside = _HERE / "configs"
  return inside if inside.is_dir() else _HERE.parent / "configs"


def package() -> types.ModuleType:
  """The package `configs` of the library, whatever else bears this name."""
  place = folder()
  found = sys.modules.get("configs")
  if found is not None:
    if place.resolve() in [pathlib.Path(p).resolve() for p in found.__path__]:
      return found
  spec = importlib.util.spec_from_file_location(
    "configs",
    place / "__init__.py",
    submodule_search_locations=[str(place)],
  )
  made = importlib.util.module_from_spec(spec)
  sys.modules["configs"] = made
  spec.loader.exec_module(made)
  return made


def names() -> list[str]:
  """The configs of the library that can be run."""
  files = sorted(folder().glob("*.py"))
  made = re.compile(r"^(def get_config\(|get_config = )", re.MULTILINE)
  return [f.stem for f in files if made.search(f.read_text("utf-8"))]


def about(name: str) -> str:
  """The first line of what a config of the library says of itself."""
  text = module(name).__doc__ or ""
  return text.strip().split("\n")[0]


def of(module: types.ModuleType) -> list[str]:
  """The presets of a config, which it names where it does not know one."""
  if not inspect.signature(module.get_config).parameters:
    return []
  try:
    module.get_config("?")
  except Exception as e:
    found = re.search(r"there are (.+)", str(e))
    if found:
      return [name.strip(" .'\"") for name in found[1].split(",")]
  return []


def load(said: str) -> Config:
  """The config that a person means.

  Args:
    said: NAME or a file, and perhaps :PRESET.

  Raises:
    UserError: there is no such config or preset, or the file fails.
  """
  name, _, preset = said.partition(":")
  made = module(name)
  if not hasattr(made, "get_config"):
    raise UserError(f"--config={said}: the file has no get_config()")
  taken = len(inspect.signature(made.get_config).parameters)
  known = of(made) if preset else []
  if preset and not taken or known and preset not in known:
    close = difflib.get_close_matches(preset, known, n=1)
    meant = f"did you mean {name}:{close[0]}? " if close else ""
    there = ", ".join(known) or "none"
    raise UserError(
      f"--config={said}: no such preset; {meant}there are {there}"
    )
  arguments = [preset] if preset else []
  config = _run(name, lambda: made.get_config(*arguments))
  if not isinstance(config, Config) or not {"system", "stages"} & set(config):
    raise UserError(
      f"--config={said}: get_config() must return a ConfigDict with `system` "
      "or `stages`; start from configs.common.base"
    )
  return config


def title(said: str) -> str:
  """What a run of a config is called: "var_d16" of "configs/var.py:d16"."""
  name, _, preset = said.partition(":")
  return "_".join(filter(None, (pathlib.Path(name).stem, preset)))


def module(name: str) -> types.ModuleType:
  """The module of a config, by its name or file.

  Raises:
    UserError: there is no such file, or it fails.
  """
  package()
  path = pathlib.Path(name).expanduser()
  is_path = path.suffix == ".py" or len(path.parts) > 1
  if is_path and path.is_file():
    return _file(path.resolve())
  # A file of the library may be named from any folder.
  ours = not is_path or path.parts[:-1] == ("configs",)
  known = names()
  if ours and path.stem in known:
    return _run(name, lambda: importlib.import_module(f"configs.{path.stem}"))
  close = difflib.get_close_matches(path.stem, known, n=3)
  meant = f"did you mean {' or '.join(close)}? " if close else ""
  raise UserError(
    f"--config={name}: no such {'file' if is_path else 'config'}; {meant}"
    "--list prints what there is"
  )


def _file(path: pathlib.Path) -> types.ModuleType:
  if path.parent == folder().resolve():
    name = f"configs.{path.stem}"
    return _run(str(path), lambda: importlib.import_module(name))
  if path.parent.name == "configs":  # its neighbours are `configs`, too
    places = package().__path__
    if str(path.parent) not in places:
      places.append(str(path.parent))
  spec = importlib.util.spec_from_file_location(
    f"ar_jax_config_{path.stem}", path
  )
  made = importlib.util.module_from_spec(spec)
  _run(str(path), lambda: spec.loader.exec_module(made))
  return made


def _run(name: str, call):
  """What `call` returns; what it raises is one line, with its place."""
  try:
    return call()
  except UserError:
    raise
  except Exception as e:
    at = traceback.extract_tb(e.__traceback__)[-1]
    line = f", line {at.lineno} of {pathlib.Path(at.filename).name}"
    if isinstance(e, SyntaxError):
      line = f", line {e.lineno}"
    text = str(e.args[0] if e.args else e).splitlines() or [""]
    raise UserError(
      f"--config={name}{line}: {type(e).__name__}: {text[0]}"
    ) from e
