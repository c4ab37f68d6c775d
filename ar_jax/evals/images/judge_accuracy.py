"""Do samples show the class that was asked for? A trained judge decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ar_jax.conditions import conditions
from ar_jax.core.system import UserError
from ar_jax.data import Dataset
from ar_jax.evals import samples
from ar_jax.evals.images.features import features


def build(
  data: Dataset,
  *,
  n: int = 0,
  batch: int = 100,
  steps: int = 0,
  options: Mapping[str, Any] | None = None,
  draw: samples.Draw | None = None,
):
  """The evaluator of class accuracy.

  Args:
    data: what the judge is trained on.
    n: how many samples, balanced as `conditions` has it; 0 means 100 of each
      class.
    batch: samples drawn at once.
    steps: of the judge's training; 0 means what suits the size of the data.
    options: of `system.sample`.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. Its results are `judge_accuracy`, beside it the judge's own
    `judge_test_accuracy` on real images, which bounds what can be told, and
    `judge_accuracy_per_class`.

  Raises:
    UserError: fewer samples than classes.
  """
  n = n or 100 * data.num_classes
  if n < data.num_classes:
    raise UserError(
      f"n={n}: judge_accuracy needs a sample of each of {data.num_classes} "
      "classes"
    )
  judge = features("judge", data, steps=steps)

  def evaluate(system, variables, batches, key):
    del batches
    if "label" not in system.needs:
      return {"judge_accuracy": "unavailable: the system takes no label"}
    cond = conditions(system, data, n)
    drawn = samples.field(
      "image",
      system,
      variables,
      cond,
      key,
      evaluator="judge_accuracy",
      batch=batch,
      forms=data.forms,
      options=options,
      draw=draw,
    )
    said = np.concatenate([judge.embed(x).logits.argmax(1) for x in drawn])
    right = said == cond["label"]
    return {
      "judge_accuracy": float(right.mean()),
      "judge_test_accuracy": judge.accuracy,
      "judge_accuracy_per_class": {
        name: float(right[cond["label"] == i].mean())
        for i, name in enumerate(data.class_names)
        if (cond["label"] == i).any()
      },
    }

  return evaluate
