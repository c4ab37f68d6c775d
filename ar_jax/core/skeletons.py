"""Trees of joints as sequences: breadth-first, so that a parent stands before
its children.

J places of joints, of which the first `count` are joints; the parent of a root
is itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ar_jax.core.errors import UserError


def breadth_first(
  parent: Sequence[int], rng: np.random.Generator | None = None
) -> np.ndarray:
  """i64[count]: the joints of a tree, breadth-first.

  Args:
    parent: of each joint, itself for the root.
    rng: shuffles the children of each joint; None keeps their order.

  Raises:
    UserError: it is no tree.
  """
  children: dict[int, list[int]] = {}
  roots = []
  for joint, above in enumerate(parent):
    if not 0 <= above < len(parent):
      raise UserError(f"joint {joint}: its parent {above} is no joint")
    if above == joint:
      roots.append(joint)
    else:
      children.setdefault(int(above), []).append(joint)
  if len(roots) != 1:
    raise UserError(f"a tree has one root, this one has {len(roots)}")
  order = roots
  for joint in order:  # it grows
    own = children.get(joint, [])
    if rng is not None:
      own = [own[i] for i in rng.permutation(len(own))]
    order.extend(own)
  if len(order) != len(parent):
    raise UserError(
      f"{len(parent) - len(order)} joints are not below the root: their "
      "parents go round in a circle"
    )
  return np.asarray(order)


def reordered(parent: Sequence[int], order: np.ndarray) -> np.ndarray:
  """i32[count]: the parents of joints that are put into another order."""
  place = np.empty(len(order), np.int64)
  place[order] = np.arange(len(order))
  return place[np.asarray(parent)[order]].astype(np.int32)
