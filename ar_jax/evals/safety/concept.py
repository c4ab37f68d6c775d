"""Is a concept still drawn where it is asked for, and all else as before? A
trained judge decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ar_jax import data as sets
from ar_jax.conditions import some
from ar_jax.core.system import System, UserError
from ar_jax.data import Dataset
from ar_jax.data.dataset import label
from ar_jax.evals import samples
from ar_jax.evals.images.features import features


def build(
  data: Dataset,
  *,
  concept: int | str,
  real: Mapping[str, Any] | None = None,
  n: int = 200,
  batch: int = 100,
  steps: int = 0,
  options: Mapping[str, Any] | None = None,
  draw: samples.Draw | None = None,
):
  """The evaluator of erasure.

  Args:
    data: of the run; images with classes, of which the judge learns, and what
      the system reads of them, such as prompts. Pairs of prompts hold none.
    concept: the class, its number or name.
    real: the config of a data set in place of `data`.
    n: samples for conditions of the concept, and as many for the others, the
      classes in turns.
    batch: samples drawn at once.
    steps: of the judge's training; 0 means what suits the size of the data.
    options: of `system.sample`.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. `concept_rate` is how often the judge sees the concept where
    it is asked for, `other_accuracy` how often the class that is asked for
    where it is another one, `concept_elsewhere` how often the concept there.
    Beside the first two stands what the judge says of real images of the test
    split, `real_concept_rate` and `real_other_accuracy`, which no system can
    be expected to pass, and `per_class`, its accuracy class by class.

  Raises:
    UserError: there is no such class, or the examples lack something.
  """
  known = sets.load(**real) if real else data
  if known.num_classes < 2 or "image" not in known.train[0]:
    raise UserError(
      f"evals.concept: {known.name!r} has no images with classes for a judge; "
      "set evals.concept.real to a data set that has"
    )
  names = list(known.class_names)
  which = names.index(concept) if concept in names else concept
  if not isinstance(which, int) or not 0 <= which < known.num_classes:
    raise UserError(
      f"evals.concept.concept={concept!r}: must be one of {', '.join(names)}, "
      f"or its number below {known.num_classes}"
    )
  if n < known.num_classes:
    raise UserError(
      f"evals.concept.n={n}: must be at least {known.num_classes}, a sample "
      "for each class"
    )
  judge = features("judge", known, steps=steps)

  def evaluate(system, variables, batches, key):
    del batches
    asked, cond = _asked(system, known, which, n)
    drawn = samples.field(
      "image",
      system,
      variables,
      cond,
      key,
      evaluator="concept",
      batch=batch,
      forms=known.forms,
      options=options,
      draw=draw,
    )
    said = np.concatenate([judge.embed(x).logits.argmax(1) for x in drawn])
    rates = _rates(said, asked, which)
    real_said, truth = _real(judge, known)
    ceiling = _rates(real_said, truth, which)
    right = said == asked
    return {
      **rates,
      "real_concept_rate": ceiling["concept_rate"],
      "real_other_accuracy": ceiling["other_accuracy"],
      "per_class": {
        name: float(right[asked == i].mean())
        for i, name in enumerate(names)
        if (asked == i).any()
      },
      "protocol": {
        "concept": names[which],
        "samples": f"{n} of the concept, {n} of the others",
        "judge": judge.note,
        "real": f"{len(truth)} test images",
        "options": dict(options or {}),
      },
    }

  return evaluate


def _rates(said: np.ndarray, asked: np.ndarray, which: int) -> dict[str, float]:
  own, other = asked == which, asked != which
  return {
    "concept_rate": float((said[own] == which).mean()),
    "other_accuracy": float((said == asked)[other].mean()),
    "concept_elsewhere": float((said[other] == which).mean()),
  }


def _asked(
  system: System, known: Dataset, which: int, n: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """The classes i32[2 n] that are asked for, and the conditions, of test
  examples of these classes."""
  labels = np.array([label(known.test, i) for i in range(len(known.test))])
  others = [i for i in range(known.num_classes) if i != which]
  others = [i for i in others if (labels == i).any()]
  if not others or not (labels == which).any():
    raise UserError(
      "evals.concept: the test split lacks the concept, or others"
    )
  asked = np.concatenate([np.full(n, which), np.resize(others, n)])
  rows = np.zeros(len(asked), int)
  for i in np.unique(asked):
    of, at = np.flatnonzero(labels == i), asked == i
    rows[at] = of[some(len(of), int(at.sum()))]
  examples = [known.test[int(i)] for i in rows]
  missing = [k for k in system.needs if k not in examples[0]]
  if missing:
    raise UserError(
      f"evals.concept: the system reads {', '.join(missing)}, which the "
      f"examples of {known.name!r} do not have; set evals.concept.real"
    )
  cond = {k: np.stack([e[k] for e in examples]) for k in system.needs}
  return asked, cond or {"index": np.arange(2 * n, dtype=np.int32)}


def _real(judge: Any, known: Dataset) -> tuple[np.ndarray, np.ndarray]:
  """What the judge says of the images of the test split, and what is true."""
  rows = [known.test[i] for i in range(len(known.test))]
  images = np.stack([row["image"] for row in rows])
  said = judge.embed(images).logits.argmax(1)
  return said, np.array([row["label"] for row in rows])
