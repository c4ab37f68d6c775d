"""How long one waits for the first of a sound that is made piece by piece."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ar_jax.conditions import conditions
from ar_jax.core.errors import UserError
from ar_jax.data import Dataset
from ar_jax.evals import samples


def build(
  data: Dataset,
  *,
  every: int = 4,
  batch: int = 1,
  repeats: int = 3,
  options: Mapping[str, Any] | None = None,
):
  """The evaluator of delays.

  Args:
    data: gives the conditions.
    every: latents of a piece.
    batch: sounds at once.
    repeats: timed calls after the first, which compiles.
    options: of `system.sample`.

  Returns:
    An evaluator. Its results are `first_sound`, the seconds from the call to
    the first piece, and `real_time_factor`, the seconds of work for a second
    of sound, medians over the timed calls; `piece`, the seconds of sound of a
    piece; and `device`.

  Raises:
    UserError: an option is out of range.
  """
  if min(every, batch, repeats) < 1:
    raise UserError(
      f"first_sound: every={every}, batch={batch} and repeats={repeats} must "
      "be at least 1"
    )

  def evaluate(system, variables, batches, key):
    del batches
    samples.check_makes(system, "audio", "first_sound")
    cond = conditions(system, data, batch)
    rate = data.forms["audio"].rate
    first, factor, piece = [], [], 0.0
    for row in jax.random.split(key, (repeats + 1, batch)):
      begun, made = time.perf_counter(), 0
      drawn = system.stream(
        variables, cond, row, every=every, **dict(options or {})
      )
      for audio in drawn:
        if not made:
          first.append(time.perf_counter() - begun)
          piece = audio.shape[1] / rate
        made += audio.shape[1]
      factor.append((time.perf_counter() - begun) * rate / made)
    return {
      "first_sound": float(np.median(first[1:])),
      "real_time_factor": float(np.median(factor[1:])),
      "piece": piece,
      "device": jax.devices()[0].device_kind,
    }

  return evaluate
