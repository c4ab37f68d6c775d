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


def bone_distances(
  points: np.ndarray, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
  """f64[P, n]: from points [P, 3] to segments from a to b [n, 3]."""
  way = b - a
  share = np.einsum("pnc,nc->pn", points[:, None] - a[None], way)
  share = np.clip(share / np.maximum((way**2).sum(1), 1e-12), 0, 1)
  near = a[None] + share[..., None] * way[None]
  return np.linalg.norm(points[:, None] - near, axis=2)


def posed(
  joints: np.ndarray,
  parent: np.ndarray,
  points: np.ndarray,
  skin: np.ndarray,
  rng: np.random.Generator,
  angle: float,
) -> tuple[np.ndarray, np.ndarray]:
  """(joints, points) after each joint has turned, with all below it, by up to
  `angle` radians about an axis of chance; points follow by their skin (linear
  blend skinning).

  Args:
    joints: f[J, 3], parents before children.
    parent: i[J].
    points: f[P, 6], with normals.
    skin: f[P, J].
    rng: draws axes and angles.
    angle: at most.
  """
  turns, shifts = np.zeros((len(joints), 3, 3)), np.zeros((len(joints), 3))
  for j, above in enumerate(parent):
    own = _rotation(rng, angle)
    if above == j:
      turns[j] = own
      shifts[j] = joints[j] - own @ joints[j]
    else:
      turns[j] = turns[above] @ own
      at = turns[above] @ joints[j] + shifts[above]
      shifts[j] = at - turns[j] @ joints[j]
  moved = np.einsum("jab,jb->ja", turns, joints) + shifts
  turn = np.einsum("pj,jab->pab", skin, turns)
  place = np.einsum("pab,pb->pa", turn, points[:, :3]) + skin @ shifts
  normal = np.einsum("pab,pb->pa", turn, points[:, 3:])
  length = np.linalg.norm(normal, axis=1, keepdims=True)
  normal = normal / np.maximum(length, 1e-9)
  return moved, np.concatenate([place, normal], 1)


def _rotation(rng: np.random.Generator, angle: float) -> np.ndarray:
  """f64[3, 3]: by up to `angle` about an axis of chance (Rodrigues)."""
  axis, by = rng.normal(size=3), rng.uniform(-angle, angle)
  x, y, z = axis / np.linalg.norm(axis)
  k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
  return np.eye(3) + np.sin(by) * k + (1 - np.cos(by)) * k @ k
