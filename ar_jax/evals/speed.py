"""How fast a system samples, once compiled."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ar_jax.conditions import conditions
from ar_jax.core.system import UserError
from ar_jax.data import Dataset


def build(
  data: Dataset,
  *,
  batch: int = 100,
  repeats: int = 3,
  options: Mapping[str, Any] | None = None,
):
  """The evaluator of sampling speed.

  Args:
    data: gives the conditions.
    batch: images at once.
    repeats: timed calls after the first, which compiles.
    options: of `system.sample`.

  Returns:
    An evaluator. Its results are `images_per_second` (median over the timed
    calls), `seconds_per_batch`, `compile_seconds` (first call less a timed
    one), `traces` (1 unless something retraces), `forwards` if the system has
    a method of this name that tells them, and `device`.
  """
  if repeats < 1 or batch < 1:
    raise UserError(f"speed: batch={batch} and repeats={repeats} must be > 0")
  options = dict(options or {})

  def evaluate(system, variables, batches, key):
    del batches
    traces = 0

    def sample(variables, cond, keys):
      nonlocal traces
      traces += 1
      return system.sample(variables, cond, keys, **options)

    compiled = jax.jit(sample)
    cond = conditions(system, data, batch)
    keys = jax.random.split(key, (repeats + 1, batch))
    seconds = []
    for row in keys:
      start = time.perf_counter()
      jax.block_until_ready(compiled(variables, cond, row))
      seconds.append(time.perf_counter() - start)
    usual = float(np.median(seconds[1:]))
    found = {
      "images_per_second": batch / usual,
      "seconds_per_batch": usual,
      "compile_seconds": max(seconds[0] - usual, 0.0),
      "traces": traces,
      "device": jax.devices()[0].device_kind,
    }
    if hasattr(system, "forwards"):
      found["forwards"] = system.forwards(**options)
    return found

  return evaluate
