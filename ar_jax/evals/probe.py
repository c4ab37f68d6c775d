"""What the features of a system know of the classes: a linear probe and
nearest neighbours, learned from a few labels.

A system has features where it has a method

  features(variables, batch, **options) -> f32[B, d]

of a batch of the data; the options, static, are its own, as which layer. Beside
every number stands its baseline, the same of the raw values of the field.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ar_jax.conditions import some
from ar_jax.core import processes
from ar_jax.core.system import UserError
from ar_jax.data import Dataset
from ar_jax.data.dataset import Source, label


@functools.partial(jax.jit, static_argnums=(0, 3))
def _features(system, variables, batch, options):
  return system.features(variables, batch, **dict(options))


def build(
  data: Dataset,
  *,
  per_class: Sequence[int] = (10, 100),
  field: str = "image",
  n: int = 0,
  neighbours: int = 5,
  repeats: int = 3,
  batch: int = 100,
  options: Mapping[str, Any] | None = None,
):
  """The evaluator of features.

  Args:
    data: labelled; the probes learn training examples and answer test ones.
    per_class: how many labelled training examples of each class, one probe
      each; where a class has fewer, all of it.
    field: whose raw values are the baseline; what else an example has is
      given to `features`, too.
    n: how many test examples, in a random order; 0 means all.
    neighbours: that vote.
    repeats: choices of labelled examples that the results are means of.
    batch: examples at once.
    options: of `system.features`.

  Returns:
    An evaluator. Its results are for every number of labels l
    `linear_l`, the accuracy of a logistic regression on standardised features,
    and `knn_l`, that of the nearest neighbours by cosine, each also with
    `_std` over the choices and `_baseline`; and `chance`, the share of the
    largest class.

  Raises:
    UserError: the data have no classes or no such field, or an option is
      wrong.
  """
  if data.num_classes < 2:
    raise UserError(
      f"evals.probe: {data.name!r} has no classes to tell apart; take it out "
      "of evals"
    )
  if not per_class or min(per_class) < 1 or repeats < 1 or neighbours < 1:
    raise UserError(
      f"evals.probe: per_class={tuple(per_class)}, repeats={repeats} and "
      f"neighbours={neighbours} must be at least 1"
    )
  if len(data.train) and field not in data.train[0]:
    raise UserError(
      f"evals.probe: field={field!r} is not in the examples of {data.name!r}, "
      f"which have {', '.join(data.train[0])}"
    )
  test = some(len(data.test), n or len(data.test))
  options = dict(options or {})

  def evaluate(system, variables, batches, key):
    del batches, key
    if not callable(getattr(system, "features", None)):
      raise UserError(
        f"evals.probe: {type(system).__name__} has no method features("
        "variables, batch) -> [batch, d], which the probe reads; take it out "
        "of evals"
      )
    static = tuple(sorted(options.items()))
    of_system = lambda rows: processes.fetch(
      _features(system, variables, rows, static)
    )
    raw = lambda rows: np.reshape(rows[field], (len(rows[field]), -1))
    kinds = {"": of_system, "_baseline": raw}
    found: dict[str, list[float]] = {}
    answers = np.array([label(data.test, int(i)) for i in test])
    asked = {k: _embed(f, data.test, test, batch) for k, f in kinds.items()}
    for r in range(repeats):
      order = _by_class(data, max(per_class), r)
      rows = np.unique(np.concatenate(list(order.values())))
      place = {int(row): i for i, row in enumerate(rows)}
      known = {k: _embed(f, data.train, rows, batch) for k, f in kinds.items()}
      for count in per_class:
        chosen = [(c, place[int(i)]) for c in order for i in order[c][:count]]
        classes, at = map(np.array, zip(*chosen, strict=True))
        for k in kinds:
          x, y = known[k][at], asked[k]
          said = linear(x, classes, y)
          found.setdefault(f"linear_{count}{k}", []).append(
            float((said == answers).mean())
          )
          said = nearest(x, classes, y, neighbours)
          found.setdefault(f"knn_{count}{k}", []).append(
            float((said == answers).mean())
          )
    results: dict[str, Any] = {}
    for name, values in found.items():
      results[name] = float(np.mean(values))
      if not name.endswith("_baseline"):
        results[f"{name}_std"] = float(np.std(values))
    return {
      **results,
      "chance": float(np.bincount(answers).max() / len(answers)),
      "protocol": {
        "test_examples": len(test),
        "labels_per_class": list(per_class),
        "choices": repeats,
        "linear": "logistic regression, L2 with C = 1, standardised features",
        "knn": f"{neighbours} nearest by cosine",
        "baseline": f"the raw values of {field!r}",
        "options": options,
      },
    }

  return evaluate


def linear(x: np.ndarray, classes: np.ndarray, y: np.ndarray) -> np.ndarray:
  """The classes of y f[M, d], by a logistic regression of x f[N, d]."""
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.linear_model import LogisticRegression

  mean, std = x.mean(0), x.std(0)
  std = np.where(std > 1e-6, std, 1.0)  # a feature that never differs
  with warnings.catch_warnings():  # after 500 rounds it is near enough
    warnings.simplefilter("ignore", ConvergenceWarning)
    probe = LogisticRegression(max_iter=500).fit((x - mean) / std, classes)
  return probe.predict((y - mean) / std)


def nearest(
  x: np.ndarray, classes: np.ndarray, y: np.ndarray, neighbours: int
) -> np.ndarray:
  """The classes of y f[M, d], by the votes of the nearest of x f[N, d]."""
  from sklearn.neighbors import KNeighborsClassifier

  mean = x.mean(0)
  unit = lambda z: (
    (z - mean) / np.maximum(np.linalg.norm(z - mean, axis=1), 1e-9)[:, None]
  )
  k = min(neighbours, len(x))
  voters = KNeighborsClassifier(k, weights="distance")
  return voters.fit(unit(x), classes).predict(unit(y))


def _embed(
  features: Callable[[Mapping[str, np.ndarray]], np.ndarray],
  source: Source,
  rows: np.ndarray,
  batch: int,
) -> np.ndarray:
  """f64[N, d] of some examples; every batch is of one size."""
  parts = []
  for start in range(0, len(rows), batch):
    part = rows[start : start + batch]
    filled = np.concatenate([part, np.repeat(part[-1:], batch - len(part))])
    examples = [source[int(i)] for i in filled]
    stacked = {k: np.stack([e[k] for e in examples]) for k in examples[0]} | {
      "index": filled.astype(np.int32)
    }
    found = np.asarray(features(stacked), np.float64)
    if found.ndim != 2:
      raise UserError(
        f"evals.probe: features are {found.shape}, must be [batch, d]; take a "
        "mean over the places"
      )
    parts.append(found[: len(part)])
  return np.concatenate(parts)


def _by_class(data: Dataset, most: int, seed: int) -> dict[int, np.ndarray]:
  """Class -> at most `most` random training examples of it.

  Raises:
    UserError: only one class is among the training examples.
  """
  found: dict[int, list[int]] = {}
  full = 0
  for i in some(len(data.train), len(data.train), seed):
    rows = found.setdefault(label(data.train, int(i)), [])
    if len(rows) < most:
      rows.append(int(i))
      full += len(rows) == most
    if full == data.num_classes:
      break
  if len(found) < 2:
    raise UserError("evals.probe: the training split has one class only")
  return {c: np.array(found[c]) for c in sorted(found)}
