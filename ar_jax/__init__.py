"""Autoregressive generation in JAX.

`load(workdir)` is a trained or converted model; `build(name, **arguments)`
makes any system of the library. `main.run(config, workdir, mode)`,
`train.run`, `sample.run` and `evaluate.run` are the command line as functions.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from ar_jax.core.errors import UserError
from ar_jax.core.system import build

if TYPE_CHECKING:
  from ar_jax.model import Model

__all__ = ["Model", "UserError", "build", "load"]


def load(workdir: str | pathlib.Path, which: int | str = "newest") -> Model:
  """The model of a run, trained or converted.

  Args:
    workdir: of the run; of one with stages, the last that was trained.
    which: "newest"; "best", by the score of the run; or the number of a step.

  Raises:
    UserError: there is no run, or none that can be read.
  """
  from ar_jax import model  # seconds, so only where it is used

  return model.load(workdir, which)


def __getattr__(name: str):
  if name == "Model":
    from ar_jax.model import Model

    return Model
  raise AttributeError(f"module 'ar_jax' has no attribute {name!r}")
