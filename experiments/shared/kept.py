"""What a run has trained, kept in its folder, so that a command that was
stopped goes on."""

from __future__ import annotations

import hashlib
import pathlib
import pickle
import re
from typing import Any

import jax
import numpy as np

from ar_jax import data
from ar_jax.core.system import System, Vars
from ar_jax.data.dataset import draw as draw_one


def digest(system: System, dataset: data.Dataset, given: Any, how: Any) -> str:
  """Says in which way an arm is trained. Of the data it knows some examples, as
  they are and as training draws them; of the code nothing.

  Args:
    system: that is trained.
    dataset: from which.
    given: its collections that are taken as they are.
    how: all else, which has a `repr`.
  """
  said = repr((system, how, len(dataset.train)))
  said = re.sub(r" at 0x[0-9a-f]+", "", said)  # of functions
  found = hashlib.sha256(said.encode())
  some = range(min(4, len(dataset.train)))
  draw = lambda i: dict(draw_one(dataset.train, i, np.random.default_rng(i)))
  seen = [(dict(dataset.train[i]), draw(i)) for i in some]
  for leaf in jax.tree.leaves((seen, given)):
    found.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
  return found.hexdigest()


def load(path: pathlib.Path) -> tuple[Vars, float] | None:
  """The variables in a file and the seconds of their training; None if there is
  no such file."""
  if not path.exists():
    return None
  variables, seconds = pickle.loads(path.read_bytes())
  return jax.tree.map(jax.numpy.asarray, variables), seconds


def save(path: pathlib.Path, variables: Vars, seconds: float) -> None:
  """Writes a file that `load` reads, whole or not at all."""
  path.parent.mkdir(parents=True, exist_ok=True)
  half = path.with_suffix(".tmp")
  half.write_bytes(pickle.dumps((jax.device_get(variables), seconds)))
  half.replace(path)
