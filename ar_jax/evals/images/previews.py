"""What an image looks like after each group of its units: for tokenizers whose
units say it coarse to fine, and generators over them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import evals
from ar_jax.core import processes
from ar_jax.core.system import UserError, example_keys
from ar_jax.data import Dataset


@functools.partial(jax.jit, static_argnums=0)
def _errors(system, variables, batch, key):
  """f32[B, G], mean squared errors on a scale of 0 to 1."""
  if hasattr(system, "units"):
    units = system.units(variables, batch)
  else:
    units = system.encode(variables, batch)["units"]
  shown = system.previews(variables, units, example_keys(key, batch))
  true = batch["image"].astype(jnp.float32) / 255
  return jnp.square(shown - true[None]).mean((2, 3, 4)).T


def build(data: Dataset, *, n: int = 0):
  """The evaluator of previews of test images, from their true units.

  Args:
    data: whose test split `batches` walks through.
    n: how many images, the first ones; 0 means all.

  Returns:
    An evaluator. Its results are, for every number of groups g, `mse_g`, the
    mean squared error on a scale of 0 to 1, and `psnr_g`, that of it in dB;
    and `falls`, whether each error is below the one before.

  Raises:
    UserError: the system shows nothing before all units are there.
  """
  del data

  def evaluate(system, variables, batches, key):
    evals.check_system("previews", {}, system)
    found = []
    for batch in batches:
      mask, errors = processes.fetch(
        (
          batch.get("mask", np.ones(len(batch["image"]))),
          _errors(system, variables, batch, key),
        )
      )
      found.append(errors[mask > 0])
      if n and sum(map(len, found)) >= n:
        break
    if not sum(map(len, found)):
      raise UserError("previews: the test split holds no example")
    errors = np.concatenate(found)[: n or None]
    means = errors.mean(0, dtype=np.float64)
    results = {}
    for group, mse in enumerate(means.tolist(), 1):
      results[f"mse_{group}"] = mse
      results[f"psnr_{group}"] = -10 * np.log10(max(mse, 1e-10))
    return {
      **results,
      "falls": bool(np.all(np.diff(means) < 0)),
      "protocol": {
        "images": len(errors),
        "pixels": "on a scale of 0 to 1, not rounded",
        "psnr": "of the mean over images",
      },
    }

  return evaluate
