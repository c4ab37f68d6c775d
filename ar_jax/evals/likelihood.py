"""The exact mean of the loss, and of every metric, over the test split."""

from __future__ import annotations

import functools
import math

import jax
import numpy as np

from ar_jax.core import processes
from ar_jax.core.system import UserError
from ar_jax.data import Dataset


@functools.partial(jax.jit, static_argnums=0)
def _sums(system, variables, batch, key):
  """Per-example terms f32[B] of one batch."""
  loss = system.loss(variables, batch, key, train=False)
  terms = {"loss": loss.value, **loss.metrics}
  if loss.nll is not None:
    terms["nll"] = loss.nll.sum(1)
    terms["bits_per_unit"] = loss.nll.mean(1) / math.log(2)
  return terms


def build(data: Dataset, *, repeats: int = 1):
  """The evaluator of the mean loss.

  Args:
    data: gives the number of dimensions of an image.
    repeats: passes over the split with fresh noise, for losses that draw some
      (diffusion heads, random orders); the batches are then held in memory.

  Returns:
    An evaluator. Its results are `loss`, the system's own metrics by their
    names, `examples`, and for a system with a likelihood (`Loss.nll`) `nll` in
    nats per image, `bits_per_unit` and `bits_per_dim`. The last is per value
    of the image; where the units are not the pixels, it counts the units only
    and not what the tokenizer lost. Sums are float64 over unmasked examples.
  """
  if repeats < 1:
    raise UserError(f"repeats={repeats}: must be at least 1")
  dims = math.prod(np.shape(data.test[0].get("image", 0)))

  def evaluate(system, variables, batches, key):
    if repeats > 1:
      batches = list(batches)
    totals: dict[str, float] = {}
    weight = 0.0
    for r in range(repeats):
      noise = jax.random.fold_in(key, r) if r else key
      for batch in batches:
        terms, mask = processes.fetch(
          (_sums(system, variables, batch, noise), batch.get("mask", 1.0))
        )
        some = next(iter(terms.values()))
        mask = np.broadcast_to(mask, some.shape).astype(np.float64)
        weight += mask.sum()
        for name, value in terms.items():
          # A padded example may well be NaN, which 0 * NaN would let through.
          value = np.where(mask > 0, np.asarray(value, np.float64), 0)
          totals[name] = totals.get(name, 0.0) + float(value @ mask)
    if not weight:
      raise UserError("likelihood: the test split holds no example")
    means = {name: total / weight for name, total in totals.items()}
    if "nll" in means and dims > 1:
      means["bits_per_dim"] = means["nll"] / (math.log(2) * dims)
    return {**means, "examples": weight / repeats}

  return evaluate
