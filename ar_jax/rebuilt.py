"""What a tokenizer in training makes of test examples, and of its codebook.

One forward pass over a few of them: cheap enough to be looked at by default.
"""

from __future__ import annotations

import functools

import jax
import numpy as np

from ar_jax import data, parallel, step
from ar_jax.core import processes
from ar_jax.core.system import System, Vars


def can(system: System) -> bool:
  """Whether a system is a tokenizer in training."""
  return system.needs == system.makes and hasattr(system, "units")


@functools.partial(jax.jit, static_argnums=0)
def _rebuild(system, variables, batch):
  drawn = step.made(system, system.sample(variables, batch, None))
  return drawn, system.units(variables, batch)


def rebuild(
  system: System,
  variables: Vars,
  dataset: data.Dataset,
  count: int,
  mesh: jax.sharding.Mesh,
) -> tuple[dict, dict, dict[str, float]]:
  """(examples [n, ...], what is made of them, statistics), both by the names of
  `system.makes`.

  Args:
    system: see `can`.
    variables: its own.
    dataset: gives the first examples of the test split.
    count: how many at most; n is this, rounded to fill the devices.
    mesh: of the run.
  """
  n = parallel.rounded(mesh, min(count, len(dataset.test)))
  rows = [dataset.test[i % len(dataset.test)] for i in range(n)]
  batch = {k: np.stack([row[k] for row in rows]) for k in system.needs}
  placed = parallel.put_whole(batch, mesh)
  made, units = processes.fetch(
    parallel.on(mesh, _rebuild)(system, variables, placed)
  )
  found = {}
  if system.vocab is not None:
    found = codebook(units, system.vocab)
  return batch, made, found


def codebook(units: np.ndarray, vocab: int) -> dict[str, float]:
  """How codes are used in units i32[...].

  Returns:
    `codebook/usage`, the share of the codes that occur, and
    `codebook/perplexity`, of their distribution: that many codes, used alike,
    would be as hard to guess. Both are of these units, so few units bound
    them.
  """
  counts = np.bincount(np.ravel(units), minlength=vocab)
  p = counts[counts > 0] / counts.sum()
  return {
    "codebook/usage": float((counts > 0).mean()),
    "codebook/perplexity": float(np.exp(-(p * np.log(p)).sum())),
  }
