"""Is the skeleton that was made the one that was meant? Distances of joints and
bones, parents, and how many joints there are, against the test example that
each shape comes from.

J joints, E bones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from ar_jax import conditions
from ar_jax.core.domains import skeletons
from ar_jax.core.system import UserError
from ar_jax.data import Dataset
from ar_jax.evals import samples

_ALONG = 10  # points of a bone that stand for it
FIELDS = ("joints", "parent", "count")


def errors(
  joints: np.ndarray,
  parent: np.ndarray,
  true_joints: np.ndarray,
  true_parent: np.ndarray,
  near: float = 0.1,
) -> dict[str, float]:
  """What is wrong with a skeleton.

  Args:
    joints: f[J, 3].
    parent: i[J]; a root's is itself.
    true_joints, true_parent: what it should be.
    near: how near a joint must be to count as found, as a share of the longest
      side of the true skeleton.

  Returns:
    Mean distances to what is nearest in the other skeleton, the mean of both
    ways: `chamfer_j2j` of joints to joints, `chamfer_j2b` of joints to bones,
    `chamfer_b2b` of bones to bones. Of the one-to-one match of joints that
    is shortest in all: `parent_accuracy`, how many of the true joints but the
    root have a partner whose parent is the partner of theirs; `precision`,
    `recall` and `iou` of partners that are near. `count_error`, joints too
    many or too few.
  """
  far = np.linalg.norm(joints[:, None] - true_joints[None], axis=-1)
  own, other = linear_sum_assignment(far)
  partner = np.full(len(true_joints), -1)
  partner[other] = own
  below = np.flatnonzero(np.arange(len(true_parent)) != true_parent)
  pairs = partner[below], partner[true_parent[below]]
  right = (pairs[0] >= 0) & (parent[pairs[0]] == pairs[1])
  right &= pairs[0] != pairs[1]
  size = np.ptp(true_joints, 0).max()
  found = int((far[own, other] <= near * size).sum())
  either = len(joints) + len(true_joints) - found
  bones = [_bones(joints, parent), _bones(true_joints, true_parent)]
  along = [_along(*b) for b in bones]
  to_bone = lambda x, b: skeletons.bone_distances(x, *b).min(1).mean()
  return {
    "chamfer_j2j": float(far.min(1).mean() + far.min(0).mean()) / 2,
    "chamfer_j2b": float(
      to_bone(joints, bones[1]) + to_bone(true_joints, bones[0])
    )
    / 2,
    "chamfer_b2b": float(
      to_bone(along[0], bones[1]) + to_bone(along[1], bones[0])
    )
    / 2,
    "parent_accuracy": float(right.mean()) if len(below) else 1.0,
    "precision": found / len(joints),
    "recall": found / len(true_joints),
    "iou": found / either,
    "count_error": float(abs(len(joints) - len(true_joints))),
  }


def _bones(joints: np.ndarray, parent: np.ndarray):
  """(f64[E, 3], f64[E, 3]), where bones begin and end; a skeleton of one joint
  has one bone, without length."""
  below = np.flatnonzero(np.arange(len(parent)) != parent)
  below = below if len(below) else np.zeros(1, int)
  return np.float64(joints[parent[below]]), np.float64(joints[below])


def _along(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
  """f64[E * 10, 3]: points of bones."""
  share = np.linspace(0, 1, _ALONG)[None, :, None]
  return (begin[:, None] * (1 - share) + end[:, None] * share).reshape(-1, 3)


def build(
  data: Dataset,
  *,
  n: int = 0,
  batch: int = 100,
  near: float = 0.1,
  options: Mapping[str, Any] | None = None,
  draw: samples.Draw | None = None,
):
  """The evaluator of skeletons that have a truth.

  Args:
    data: shapes and true skeletons are of its test split.
    n: how many test examples, in a random order; 0 means all.
    batch: samples drawn at once.
    near: see `errors`.
    options: of `system.sample`.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. Its results are the means of `errors` over the examples,
    each also with `_baseline`: of the true skeleton of another example in
    place of what was made.

  Raises:
    UserError: the data have no skeletons, or the system makes none.
  """
  missing = [k for k in FIELDS if k not in data.test[0]]
  if missing:
    raise UserError(
      f"evals.skeletons: the examples of {data.name!r} have no "
      f"{', '.join(missing)}"
    )
  n = n or len(data.test)

  def evaluate(system, variables, batches, key):
    del batches
    for field in FIELDS:
      samples.check_makes(system, field, "skeletons")
    samples.check_pairs(system, "skeletons")
    cond = conditions.conditions(system, data, n)
    drawn = samples.whole(
      system, variables, cond, key, batch=batch, forms=data.forms,
      options=options, draw=draw,
    )  # fmt: skip
    found = list(_each(drawn))
    truth = list(_each(conditions.truth(system, data, n, fields=FIELDS)))
    others = [*truth[1:], truth[0]] if n > 1 else []
    mean = _means(found, truth, near)
    base = _means(others, truth, near)
    return {
      **mean,
      **{f"{name}_baseline": value for name, value in base.items()},
      "protocol": {
        "skeletons": n,
        "baseline": "the true skeleton of another test example",
        "near": near,
        "options": dict(options or {}),
      },
    }

  return evaluate


def _each(fields: Mapping[str, np.ndarray]):
  """(joints f[J, 3], parents i[J]) of each example."""
  rows = zip(*(fields[k] for k in FIELDS), strict=True)
  for joints, parent, count in rows:
    yield joints[:count], parent[:count]


def _means(found, truth, near) -> dict[str, float]:
  if not found:
    return {}
  rows = [errors(*a, *b, near) for a, b in zip(found, truth, strict=True)]
  return {k: float(np.mean([row[k] for row in rows])) for k in rows[0]}
