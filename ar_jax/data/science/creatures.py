"""Creatures by rule: a tree of joints, bones that are capsules, and points on
their surface.

J joints, P points.
"""

from __future__ import annotations

import numpy as np

from ar_jax.core.domains import skeletons
from ar_jax.core.errors import UserError
from ar_jax.core.forms import Skeleton
from ar_jax.data.dataset import Dataset, Example

_TEST = 2**40  # where those of the test part begin in the stream of seeds
_MOST = 12  # joints of a creature


def creatures(
  *,
  joints: int = 16,
  points: int = 256,
  count: int = 4000,
  shuffle: bool = True,
  turn: float = 0.3,
  seed: int = 0,
) -> Dataset:
  """Creatures made when asked for: surfaces and the skeletons within.

  From: a rule.
  Command: --config.data.name=creatures
  Fields: joints f32[J, 3], parent i32[J], count, points f32[P, 6], skin
    f32[P, J].

  A root, a spine of 2 to 4 joints, and pairs of limbs, mirrored: 4 to 12
  joints in all, breadth-first. Bones are capsules; points lie on the surface
  of all of them, each with its normal. The skin says how much each joint moves
  a point: by the inverse distance to the two nearest bones, which belong to
  their upper joints. All is within -1 and 1. Example i is a pure function of
  i; training also shuffles siblings and turns the creature.

  Args:
    joints: J, places of joints; beyond the count they are 0.
    points: P.
    count: training examples; an eighth of it for test.
    shuffle: whether training shuffles siblings.
    turn: about the upright axis in training, at most, in radians.
    seed: of all creatures.

  Raises:
    UserError: a number is out of range.
  """
  if joints < _MOST or points < 1 or count < 1 or not 0 <= turn <= np.pi:
    raise UserError(
      f"creatures: joints={joints} must be at least {_MOST}, points={points} "
      f"and count={count} at least 1, turn={turn} in 0 to pi"
    )
  make = lambda n, at, again: _Creatures(
    joints, points, n, (seed, at), shuffle and again, turn * again
  )
  return Dataset(
    "creatures",
    make(count, 0, True),
    make(max(count // 8, 1), _TEST, False),
    forms={"joints": Skeleton()},
    digest="rule 1",
  )


class _Creatures:
  """Examples made when asked for."""

  def __init__(self, joints, points, count, seed, shuffle, turn):
    self._joints, self._points, self._count = joints, points, count
    self._seed, self._shuffle, self._turn = seed, shuffle, turn

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, i: int) -> Example:
    return self._example(range(self._count)[i], None)

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    return self._example(i, rng)

  def _example(self, i: int, again: np.random.Generator | None) -> Example:
    seed, at = self._seed
    rng = np.random.default_rng((seed, at + i))
    places, parent = tree(rng)
    radius = rng.uniform(0.04, 0.1, len(parent))
    surface = skin_points(places, parent, radius, self._points, rng)
    angle = 0.0
    if again is not None and self._turn:
      angle = again.uniform(-self._turn, self._turn)
    shuffled = again if self._shuffle else None
    return example(places, parent, surface, None, self._joints, shuffled, angle)


def example(
  places: np.ndarray,
  parent: np.ndarray,
  surface: np.ndarray,
  weights: np.ndarray | None,
  most: int,
  shuffled: np.random.Generator | None,
  angle: float,
) -> Example:
  """An example of a rigged shape, breadth-first and within -1 and 1.

  Args:
    places: f64[n, 3], of the joints.
    parent: i64[n].
    surface: f[P, 6].
    weights: f64[P, n], the skin; None where it is to be made, see `skin`.
    most: J.
    shuffled: shuffles siblings, if given.
    angle: by which it is turned about the upright axis.
  """
  if angle:
    cos, sin = np.cos(angle), np.sin(angle)
    about = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    places = places @ about.T
    turned = surface[:, :3] @ about.T, surface[:, 3:] @ about.T
    surface = np.concatenate(turned, 1)
  low, high = surface[:, :3].min(0), surface[:, :3].max(0)
  middle = (low + high) / 2
  scale = np.abs(surface[:, :3] - middle).max()
  places = (places - middle) / scale
  surface = np.concatenate(
    [(surface[:, :3] - middle) / scale, surface[:, 3:]], 1
  )
  order = skeletons.breadth_first(parent, shuffled)
  parent, places = skeletons.reordered(parent, order), places[order]
  if weights is None:
    weights = skin(surface[:, :3], places, parent)
  else:
    weights = weights[:, order]
  n = len(parent)
  return {
    "joints": np.pad(places, ((0, most - n), (0, 0))).astype(np.float32),
    "parent": np.pad(parent, (0, most - n)).astype(np.int32),
    "count": np.int32(n),
    "points": surface.astype(np.float32),
    "skin": np.pad(weights, ((0, 0), (0, most - n))).astype(np.float32),
  }


def tree(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """(places f64[n, 3], parent i64[n]) of 4 to 12 joints."""
  places, parent = [np.zeros(3)], [0]

  def grow(above: int, step: np.ndarray) -> int:
    places.append(places[above] + step)
    parent.append(above)
    return len(parent) - 1

  spine = [0]
  way = np.array([0.0, rng.uniform(0.1, 1.0), rng.uniform(-1.0, 1.0)])
  way /= np.linalg.norm(way)
  for _ in range(rng.integers(2, 5)):
    bent = way + rng.normal(size=3) * [0.0, 0.2, 0.2]
    spine.append(grow(spine[-1], bent * rng.uniform(0.25, 0.45)))
  # A first pair of limbs, and others while there is room.
  for pair in range(rng.integers(1, 4)):
    room = (_MOST - len(parent)) // 2
    if not room:
      break
    long = int(rng.integers(1, min(3, room) + 1))
    sides = [spine[rng.integers(len(spine))]] * 2
    for _ in range(long):
      step = np.array([rng.uniform(0.2, 1.0), *rng.uniform(-1.0, 1.0, 2)])
      step *= rng.uniform(0.2, 0.4) / np.linalg.norm(step)
      sides = [
        grow(above, step * [side, 1, 1])
        for above, side in zip(sides, (1, -1), strict=True)
      ]
    del pair
  return np.asarray(places), np.asarray(parent)


def skin_points(
  places: np.ndarray,
  parent: np.ndarray,
  radius: np.ndarray,
  count: int,
  rng: np.random.Generator,
) -> np.ndarray:
  """f64[count, 6]: points of the surface of all capsules, and their normals.

  A capsule gets as many as its area says, of which those within another one
  are drawn again.

  Args:
    places: f64[n, 3].
    parent: i[n].
    radius: f64[n], of the bone that ends at each joint; the root has none.
    count: how many points.
    rng: draws them.
  """
  ends = np.flatnonzero(np.arange(len(parent)) != parent)
  a, b, r = places[parent[ends]], places[ends], radius[ends]
  length = np.linalg.norm(b - a, axis=1)
  area = 2 * np.pi * r * length + 4 * np.pi * r**2
  made: list[np.ndarray] = []
  while sum(map(len, made)) < count:
    bone = rng.choice(len(ends), count, p=area / area.sum())
    along = (b - a)[bone] / length[bone, None]
    # On the cylinder, or on the sphere at one of its ends.
    side = rng.random(count) < (length / (length + 2 * r))[bone]
    normal = rng.normal(size=(count, 3))
    flat = normal - np.sum(normal * along, 1, keepdims=True) * along
    normal = np.where(side[:, None], flat, normal)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    outer = np.sum(normal * along, 1) > 0
    place = np.where(side, rng.random(count), outer) * length[bone]
    point = a[bone] + place[:, None] * along + r[bone, None] * normal
    inside = skeletons.bone_distances(point, a, b) < r[None] * (1 - 1e-6)
    inside[np.arange(count), bone] = False
    free = ~inside.any(1)
    made.append(np.concatenate([point, normal], 1)[free])
  return np.concatenate(made)[:count]


def skin(
  points: np.ndarray, places: np.ndarray, parent: np.ndarray
) -> np.ndarray:
  """f64[P, n]: how much each joint moves each point; sums are 1."""
  ends = np.flatnonzero(np.arange(len(parent)) != parent)
  upper = parent[ends]
  far = skeletons.bone_distances(points, places[upper], places[ends])
  nearest = np.argsort(far, 1)[:, :2]
  share = 1 / np.maximum(np.take_along_axis(far, nearest, 1), 1e-6)
  share /= share.sum(1, keepdims=True)
  weights = np.zeros((len(points), len(places)))
  rows = np.arange(len(points))
  for j in range(nearest.shape[1]):
    np.add.at(weights, (rows, upper[nearest[:, j]]), share[:, j])
  return weights
