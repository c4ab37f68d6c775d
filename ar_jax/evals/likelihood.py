"""The exact mean of the loss, and of every metric, over the test split."""

from __future__ import annotations

import functools
import math

import jax
import numpy as np

from ar_jax.core import forms, processes
from ar_jax.core.system import UserError
from ar_jax.data import Dataset


@functools.partial(jax.jit, static_argnums=0)
def _sums(system, variables, batch, key):
  """Per-example terms f32[B] of one batch."""
  loss = system.loss(variables, batch, key, train=False)
  terms = {"loss": loss.value, **loss.metrics}
  if loss.nll is not None:
    terms["nll"] = loss.nll.sum(1)
    if loss.units is None:
      terms["bits_per_unit"] = loss.nll.mean(1) / math.log(2)
    else:
      terms["units"] = loss.units
  return terms


def _pixels(data: Dataset, field: str) -> int:
  """The values of an example that is made of pixels; 0 of another."""
  if not isinstance(data.forms.get(field), forms.Image | forms.Video):
    return 0
  return math.prod(np.shape(data.test[0].get(field, ())))


def build(data: Dataset, *, repeats: int = 1):
  """The evaluator of the mean loss.

  Args:
    data: gives the number of dimensions of what is made of pixels.
    repeats: passes over the split with fresh noise, for losses that draw some
      (diffusion heads, random orders); the batches are then held in memory.

  Returns:
    An evaluator. Its results are `loss`, the system's own metrics by their
    names, `examples`, and for a system with a likelihood (`Loss.nll`) `nll` in
    nats per example and `bits_per_unit`; of images and videos `bits_per_dim`
    as well. That is per value of the image; where the units are not the
    pixels, it counts the units only and not what the tokenizer lost. Where
    not all units count (`Loss.units`, padded text), `units` is how many do
    per example, and `perplexity` the exponential of the nats per counted unit
    of the whole split. Sums are float64 over unmasked examples.
  """
  if repeats < 1:
    raise UserError(f"repeats={repeats}: must be at least 1")

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
    if "units" in means:
      each = totals["nll"] / totals["units"]
      means["bits_per_unit"] = each / math.log(2)
      means["perplexity"] = math.exp(each)
    dims = _pixels(data, system.makes[0]) if "nll" in means else 0
    if dims > 1:
      means["bits_per_dim"] = means["nll"] / (math.log(2) * dims)
    return {**means, "examples": weight / repeats}

  return evaluate
