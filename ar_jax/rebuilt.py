"""What a tokenizer in training makes of test images, and of its codebook.

One forward pass over a few images: cheap enough to be looked at by default.
"""

from __future__ import annotations

import functools

import jax
import numpy as np

from ar_jax import data, parallel
from ar_jax.core import processes
from ar_jax.core.system import System, Vars


def can(system: System) -> bool:
  """Whether a system is a tokenizer in training."""
  return system.needs == ("image",) and hasattr(system, "units")


@functools.partial(jax.jit, static_argnums=0)
def _rebuild(system, variables, batch):
  return system.sample(variables, batch, None), system.units(variables, batch)


def rebuild(
  system: System,
  variables: Vars,
  dataset: data.Dataset,
  count: int,
  mesh: jax.sharding.Mesh,
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
  """(images u8[n, H, W, C], what is made of them f32, statistics).

  Args:
    system: see `can`.
    variables: its own.
    dataset: gives the first images of the test split.
    count: how many at most; n is this, rounded to fill the devices.
    mesh: of the run.
  """
  n = parallel.rounded(mesh, min(count, len(dataset.test)))
  rows = [dataset.test[i % len(dataset.test)]["image"] for i in range(n)]
  batch = {"image": np.stack(rows)}
  placed = parallel.put_whole(batch, mesh)
  images, units = processes.fetch(
    parallel.on(mesh, _rebuild)(system, variables, placed)
  )
  found = {}
  if system.vocab is not None:
    found = codebook(units, system.vocab)
  return batch["image"], images, found


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
