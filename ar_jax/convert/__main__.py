"""python -m ar_jax.convert SRC DST --family=NAME [--tokenizer=DIR] [--reverse]

Forward, SRC is a published file (.pth, .pt, .safetensors) and DST a workdir
that the modes of `ar_jax.main` take. A generator is stored together with its
tokenizer: convert that one first and name its workdir. With --reverse, SRC
is a workdir and DST a .safetensors file under the official names.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import pathlib
import pkgutil
import sys
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import ar_jax.convert
from ar_jax.core.system import UserError
from ar_jax.files import torch_file

# Files that are not families.
_MACHINERY = ("__main__", "tables", "torch_file")


def families() -> list[str]:
  """Names of the families that can be converted."""
  found = pkgutil.iter_modules(ar_jax.convert.__path__)
  return sorted(m.name for m in found if m.name not in _MACHINERY)


def state_of(content: dict[str, Any]) -> dict[str, np.ndarray]:
  """The state dict inside a file, which may wrap it under one name; where it
  holds an average of the weights as well, that."""
  for name in ("state_dict", "model_ema", "model", "trainer", "var_wo_ddp"):
    if isinstance(content.get(name), dict):
      return state_of(content[name])
  return content


def forward(
  source: str, target: str, family: str, tokenizer: str | None = None
) -> dict[str, Any]:
  """Makes a checkpoint of a published file; returns its config.

  Args:
    source: the file.
    target: the workdir to be made.
    family: a name of `families()`.
    tokenizer: workdir of the converted tokenizer of a generator.

  Raises:
    UserError: the file is not one of the family, or cannot be read.
  """
  # Here, not above: the tables are of use without any checkpoint.
  from ar_jax import checkpoint

  table = importlib.import_module(f"ar_jax.convert.{family}")
  state = state_of(torch_file.read(source))
  config = table.config(state)
  variables = table.to_ours(state)
  for name in reversed(table.PLACE):
    variables = {name: variables}
  if tokenizer:
    codes, meta = checkpoint.load(tokenizer)
    variables["tokenizer"] = codes["params"]["tokenizer"]
    config["model"]["tokenizer"] |= meta["config"]["model"]
  checkpoint.export(target, variables, config)
  return config


def reverse(source: str, target: str, family: str) -> None:
  """Writes the parameters of a workdir under the official names.

  Raises:
    UserError: the workdir holds another system, or DST is of another kind.
  """
  from ar_jax import checkpoint

  if pathlib.Path(target).suffix != ".safetensors":
    raise UserError(f"{target}: must end in .safetensors")
  table = importlib.import_module(f"ar_jax.convert.{family}")
  variables = checkpoint.load(source)[0]
  try:
    params = functools.reduce(lambda tree, k: tree[k], table.PLACE, variables)
    state = table.to_official(params)
  except KeyError as e:
    raise UserError(
      f"{source}: {e.args[0]} is not of the family {family}"
    ) from e
  save_file({k: np.ascontiguousarray(v) for k, v in state.items()}, target)


def main(argv: list[str] | None = None) -> int:
  """Returns the exit status; says what went wrong in one line."""
  parser = argparse.ArgumentParser(
    "python -m ar_jax.convert", description=__doc__.split("\n", 2)[2]
  )
  parser.add_argument("source", metavar="SRC")
  parser.add_argument("target", metavar="DST")
  parser.add_argument("--family", required=True, choices=families())
  parser.add_argument("--tokenizer", metavar="DIR")
  parser.add_argument("--reverse", action="store_true")
  args = parser.parse_args(argv)
  try:
    if args.reverse:
      config = reverse(args.source, args.target, args.family)
    else:
      config = forward(args.source, args.target, args.family, args.tokenizer)
  except (UserError, OSError) as e:
    print(f"error: {e}", file=sys.stderr)
    return 1
  print(f"wrote {args.target}" + (f": {config}" if config else ""))
  return 0


if __name__ == "__main__":
  sys.exit(main())
