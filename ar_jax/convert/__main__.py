"""python -m ar_jax.convert SRC DST --family=NAME [options]

Forward, SRC is a published file or a training checkpoint (.pth, .pt, .ckpt,
.safetensors) and DST a workdir that the modes of `ar_jax.main` take. A
generator is stored together with its tokenizer: convert that one first and
name its workdir with --tokenizer; one that lies in the file itself is taken
without. With --reverse, SRC is a workdir and DST a .safetensors file under
the official names.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import pathlib
import pkgutil
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import ar_jax.convert
from ar_jax.convert import heads, wrappers
from ar_jax.core.errors import UserError
from ar_jax.files import torch_file
from ar_jax.files.pickles import shown

# Files that are not families.
_MACHINERY = ("__main__", "depth_head", "heads", "llama", "wrappers")


_OPTIONS = ("heads", "scales", "size", "frames", "encoder")
_SET = "weights of a training checkpoint: ema, model, ...; averages, if there"
_TARGET = "workdir of the model that a drafter drafts for"
_SCALES = "sides of the maps of a generator, if they are no published list"
_ENCODER = "file of the encoder that a generator begins with"
_SIZE = "side of the images of a generator whose file does not tell"


def families() -> list[str]:
  """Names of the families that can be converted."""
  found = pkgutil.iter_modules(ar_jax.convert.__path__)
  return sorted(m.name for m in found if m.name not in _MACHINERY)


def _table(family: str):
  return importlib.import_module(f"ar_jax.convert.{family}")


def forward(
  source: str,
  target: str,
  family: str,
  tokenizer: str | None = None,
  *,
  drafts_for: str | None = None,
  only: str | None = None,
  say: Callable[[str], None] = lambda line: None,
  **options: Any,
) -> dict[str, Any]:
  """Makes a checkpoint of a published file; returns its config.

  Args:
    source: the file.
    target: the workdir to be made.
    family: a name of `families()`.
    tokenizer: workdir of the converted tokenizer of a generator.
    drafts_for: workdir of the model whose units a drafter proposes.
    only: which set of weights to take; see `wrappers.unwrap`.
    say: is told, a line each, what was chosen that the file does not tell.
    **options: what the family's `config` takes: heads, scales, size, frames.

  Raises:
    UserError: the file is not one of the family, or cannot be read, or the
      tokenizer is not that of the generator.
  """
  # Here, not above: the tables are of use without any checkpoint.
  from ar_jax import checkpoint

  table = _table(family)
  known = set(inspect.signature(table.config).parameters)
  if hasattr(table, "join"):
    known.add("target")
  elif not _is_tokenizer(table):
    known.add("tokenizer")
  asked = {"tokenizer": tokenizer, "target": drafts_for, **options}
  for name in (name for name, value in asked.items() if value is not None):
    if name not in known:
      raise UserError(f"--{name} means nothing for the family {family}")
  content = torch_file.read(source)
  if hasattr(table, "flat"):
    content = table.flat(content)
  try:
    state, said = wrappers.unwrap(content, only, _is_tokenizer(table))
    config = table.config(state, **options)
    variables = table.to_ours(state, **options)
  except UserError as e:
    raise UserError(f"{source}: {e}") from e
  except (KeyError, IndexError, TypeError, ValueError) as e:
    # A key or an axis that a file of the family has.
    raise UserError(
      f"{source}: not of the family {family} ({type(e).__name__}: "
      f"{shown(str(e))})"
    ) from e
  if said:
    say(said)
  settled = options.get("heads") or heads.stated(state)
  if hasattr(table, "HEADS") and not settled:
    say(heads.line(config["model"]))
  for name in reversed(table.PLACE):
    variables = {name: variables}
  if hasattr(table, "join"):
    if drafts_for is None:
      raise UserError(
        f"{family}: say what it drafts for with --target=DIR, the workdir of "
        "the converted model"
      )
    other, meta = checkpoint.load(drafts_for)
    variables, config = table.join(state, variables, other, meta["config"])
  elif tokenizer:
    codes, meta = checkpoint.load(tokenizer)
    if "tokenizer" not in codes.get("params", {}):
      raise UserError(f"{tokenizer}: holds no tokenizer that was converted")
    _join(variables, config, codes["params"]["tokenizer"], meta["config"])
  elif not _is_tokenizer(table) and "tokenizer" in config["model"]:
    inside = wrappers.tokenizer_of(content)
    if inside is not None:
      own = _table(config["model"]["tokenizer"]["name"])
      params, given = own.to_ours(inside), own.config(inside)
      _join(variables, config, params, given)
      say("tokenizer: the one in the file")
  checkpoint.export(target, variables, config)
  return config


def _is_tokenizer(table) -> bool:
  return table.PLACE[-1:] == ("tokenizer",)


def _join(variables, config, params, tokenizer) -> None:
  """Puts a tokenizer beside a generator, whose own file settles the list of
  its scales, its side and the sizes of its codes."""
  own = config["model"]["tokenizer"]
  name, sizes = tokenizer["system"], dict(tokenizer["model"])
  if name != own["name"]:
    raise UserError(
      f"the tokenizer is a {name}, the generator needs a {own['name']}"
    )
  for key in ("vocab", "channels", "bits"):
    if key in own and key in sizes and own[key] != sizes[key]:
      raise UserError(
        f"the tokenizer has {key}={sizes[key]}, the generator needs {own[key]}"
      )
  variables["tokenizer"] = params
  config["model"]["tokenizer"] = sizes | own


def reverse(source: str, target: str, family: str) -> None:
  """Writes the parameters of a workdir under the official names.

  Raises:
    UserError: the workdir holds another system, or DST is of another kind.
  """
  from ar_jax import checkpoint

  if pathlib.Path(target).suffix != ".safetensors":
    raise UserError(f"{target}: must end in .safetensors")
  table = _table(family)
  variables, meta = checkpoint.load(source)
  # Of videos, how many frames there are; of some, how many heads.
  model = meta["config"]["model"]
  takes = inspect.signature(table.to_official).parameters
  fields = {**model.get("target", {}), **model}
  options = {
    k: fields[k] for k in ("frames", "heads") if k in fields.keys() & takes
  }
  try:
    params = functools.reduce(lambda tree, k: tree[k], table.PLACE, variables)
    state = table.to_official(params, **options)
  except KeyError as e:
    raise UserError(
      f"{source}: {e.args[0]} is not of the family {family}"
    ) from e
  save_file({k: np.ascontiguousarray(v) for k, v in state.items()}, target)


def _numbers(text: str) -> tuple[int, ...]:
  """What --scales says."""
  try:
    return tuple(int(x) for x in text.split(","))
  except ValueError:
    raise argparse.ArgumentTypeError(
      f"{text!r}: give sides with commas, as 1,2,3,4"
    ) from None


def main(argv: list[str] | None = None) -> int:
  """Returns the exit status; says what went wrong in one line."""
  parser = argparse.ArgumentParser(
    "python -m ar_jax.convert", description=__doc__.split("\n", 2)[2]
  )
  add = parser.add_argument
  add("source", metavar="SRC")
  add("target", metavar="DST")
  add("--family", required=True, choices=families())
  add("--tokenizer", metavar="DIR", help="workdir of its tokenizer")
  add("--target", metavar="DIR", dest="target_model", help=_TARGET)
  add("--set", metavar="NAME", dest="only", help=_SET)
  add("--heads", type=int, help="of attention, where no table knows them")
  add("--scales", type=_numbers, metavar="1,2,...", help=_SCALES)
  add("--size", type=int, help=_SIZE)
  add("--encoder", metavar="FILE", help=_ENCODER)
  add("--frames", type=int, help="of the videos of a generator")
  add("--reverse", action="store_true")
  args = parser.parse_args(argv)
  given = {k: getattr(args, k) for k in _OPTIONS}
  options = {k: v for k, v in given.items() if v is not None}
  try:
    if args.reverse:
      config = reverse(args.source, args.target, args.family)
    else:
      config = forward(
        args.source,
        args.target,
        args.family,
        args.tokenizer,
        drafts_for=args.target_model,
        only=args.only,
        say=print,
        **options,
      )
  except (UserError, OSError) as e:
    print(f"error: {e}", file=sys.stderr)
    return 1
  print(f"wrote {args.target}" + (f": {config}" if config else ""))
  return 0


if __name__ == "__main__":
  sys.exit(main())
