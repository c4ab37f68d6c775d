"""What a person brings that samples are made of, by the key of `config.sample`
that names it:

  control   pictures that samples follow            controls
  shape     meshes and points that get a skeleton   shapes
  clip      clips that samples go on with           clips
  read      pictures, recordings, spectra to read   readings
  voice     a recording in whose voice is spoken    voices
  prompts   texts that samples are asked for by     prompts

Each module has `given`, what a config names; `check`, before anything else
runs; `names`, what samples are made of, in turn; `fields`, what then need not
come from the data; and `asked`, the conditions.
"""

from __future__ import annotations

from typing import Any

import ml_collections
import numpy as np

from ar_jax import conditions
from ar_jax.core.errors import UserError
from ar_jax.core.system import System
from ar_jax.own import clips, controls, prompts, readings, shapes, voices

Config = ml_collections.ConfigDict
KINDS = {
  "control": controls, "shape": shapes, "clip": clips, "read": readings,
  "voice": voices, "prompts": prompts,
}  # fmt: skip


def given(config: Config) -> list[str]:
  """The keys of `config.sample` that name something."""
  return [key for key, kind in KINDS.items() if kind.given(config)]


def check(system: System, config: Config) -> None:
  """Looks at what a config names.

  Raises:
    UserError: it names two kinds, the system makes nothing of it, or a file
      cannot be read.
  """
  keys = given(config)
  made_of = [key for key in keys if key != "voice"]  # which goes with prompts
  if len(made_of) > 1:
    both = " and ".join(f"sample.{key}" for key in made_of)
    raise UserError(f"{both}: samples are made of one of them; leave the other")
  for key in keys:
    KINDS[key].check(system, config)


def names(system: System, config: Config) -> list[str]:
  """What the things are called of which samples are made, in turn."""
  return [
    name for key in given(config) for name in KINDS[key].names(system, config)
  ]


def count(config: Config, called: list[str]) -> int:
  """How many samples: as many as are asked for, and one at least of each thing
  that a person brings; of what is read one alone, which no draw changes."""
  if called and readings.given(config):
    return len(called)
  return max(config.sample.count, len(called))


def fields(system: System, config: Config) -> set[str]:
  """What need not come from the data."""
  return set().union(
    *(KINDS[key].fields(system, config) for key in given(config))
  )


def asked(
  system: System,
  data: Any,
  n: int,
  config: Config,
  labels: tuple[int, ...] = (),
  prompted: dict[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
  """The conditions of n samples, of what a config names or, where it names
  nothing, of the data.

  Args:
    system, data, n, labels: see `conditions.conditions`.
    config: see above.
    prompted: what texts say of them; it goes before all else.

  Raises:
    UserError: as `check`, or as `conditions.conditions`.
  """
  found = {}
  for key in given(config):
    found |= KINDS[key].asked(system, data, n, config, labels)
  prompted = prompted or {}
  said = fields(system, config) | set(found) | set(prompted)
  # Who needs nothing is told all the same how many there are.
  enough = found or (prompted and system.needs)
  if enough and set(system.needs) <= said:
    return found | prompted
  rest = conditions.conditions(system, data, n, labels=labels)
  return rest | found | prompted
