"""Texts of a person's own that samples are asked for by, or begin with: the
lines of the file that `config.sample.prompts` names."""

from __future__ import annotations

import pathlib
from typing import Any

import ml_collections
import numpy as np

from ar_jax import conditions
from ar_jax.core.errors import UserError
from ar_jax.core.system import System
from ar_jax.data.text import reading

Config = ml_collections.ConfigDict


def given(config: Config) -> str:
  """The file; "" for none."""
  return config.get("sample", {}).get("prompts", "")


def lines(config: Config) -> list[str]:
  """The texts of the file, a line each; empty ones are passed over.

  Raises:
    UserError: there is no such file, it is no text, or holds none.
  """
  path = pathlib.Path(given(config)).expanduser()
  if not path.is_file():
    raise UserError(
      f"sample.prompts={given(config)!r}: no such file; name a file with a "
      "text a line, or give one text as sample.prompt"
    )
  found = [line.strip() for line in reading.read(path).split("\n")]
  if not any(found):
    raise UserError(f"sample.prompts={given(config)!r}: holds no text")
  return [line for line in found if line]


def check(system: System, config: Config) -> None:
  """Looks at the file; what it asks for needs the symbols of the data, see
  `asked`."""
  del system
  lines(config)
  if config.sample.get("prompt"):
    raise UserError("sample.prompt and sample.prompts: leave one of them")


def names(system: System, config: Config) -> list[str]:
  """The texts."""
  del system
  return lines(config)


def fields(system: System, config: Config) -> set[str]:
  """What need not come from the data."""
  del config
  return {k for k in system.needs if k in conditions.TEXTS}


def asked(
  system: System,
  data: Any,
  n: int,
  config: Config,
  labels: tuple[int, ...] = (),
) -> dict[str, np.ndarray]:
  """The conditions of n samples that say what is asked: sample i has text i mod
  their number; see `conditions.prompted`."""
  del labels
  return conditions.prompted(system, data, n, lines(config), "sample.prompts")
