"""The user's own rigged shapes: meshes with their joints and skin.

V vertices, J places of joints, P points.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from ar_jax.core.domains import skeletons
from ar_jax.core.errors import UserError
from ar_jax.core.forms import Skeleton
from ar_jax.data import digests, notes
from ar_jax.data.dataset import Dataset, Example
from ar_jax.data.folders import parts, walk
from ar_jax.data.science import creatures, rig_text, shapes

_ENDINGS = (".npz", ".obj", ".ply")


@dataclasses.dataclass(frozen=True)
class Rig:
  """A shape with its skeleton, breadth-first, and its skin f64[V, n]."""

  shape: shapes.Shape
  joints: np.ndarray
  parent: np.ndarray
  skin: np.ndarray


def rigged(
  *,
  path: str,
  joints: int = 64,
  points: int = 1024,
  shuffle: bool = True,
  turn: float = 0.3,
  pose: float = 0.0,
  test_fraction: float = 0.1,
  seed: int = 0,
) -> Dataset:
  """Your own rigged shapes: meshes, each with its joints and its skin.

  From: any folder, read with those below it. A shape is `a.obj` or `a.ply`
  with its rig in `a.txt` beside it, in RigNet's format (lines `joints NAME x
  y z`, `root NAME`, `hier PARENT CHILD`, `skin VERTEX NAME WEIGHT ...`); or
  `a.npz` with the arrays vertices [V, 3], perhaps faces [F, 3], joints [n, 3],
  parent [n] (itself for the root), and skin [V, n].
  Command: --config.data.name=rigged --config.data.path=DIR
  Fields: joints f32[J, 3], parent i32[J], count, points f32[P, 6], skin
    f32[P, J].

  Points are drawn from the surface, evenly by area, each with its normal. All
  is brought into -1 to 1. Where a shape has no skin, it is made by the inverse
  distance to the two nearest bones, and this is said. One line tells what was
  found and what was left out.

  Args:
    path: the folder. With sub-folders `train` and `test`, these are the parts.
    joints: J, places of joints; beyond the count they are 0.
    points: P.
    shuffle: whether training shuffles siblings.
    turn: about the upright axis in training, at most, in radians.
    pose: how far training turns every joint, at most, in radians.
    test_fraction: the part held out where there is no test folder, 0 to 1.
    seed: of the points of the test part.

  Raises:
    UserError: no such folder, no shapes, a damaged one, or one with more
      joints than there are places.
  """
  for name, value in (("joints", joints), ("points", points)):
    if value < 1:
      raise UserError(f"data.{name}={value}: must be at least 1")
  root = parts.root(path, test_fraction, "rigged shapes, a.obj with a.txt")
  tree = walk.walk(root, _ENDINGS, "shape")
  if not tree.files:
    raise UserError(
      f"{root}: no shape in this folder; it is to hold a.obj or a.ply with "
      "a.txt, or a.npz"
    )
  beside = {e.stem: e for e in tree.others if e.kind == ".txt"}
  rigs, bare = {}, 0
  for e in tree.files:
    its = beside.get(e.stem)
    rigs[e.parts], made = read(e.path, its and its.path)
    bare += made
    n = len(rigs[e.parts].joints)
    if n > joints:
      raise UserError(
        f"{notes.printable(e.path)}: {n} joints; set data.joints (of "
        f"RigAnything model.joints, which it follows) to {n} at least"
      )
  used = {id(beside.get(e.stem)) for e in tree.files}
  tree.others = [e for e in tree.others if id(e) not in used]
  found = parts.divided(root, tree, rigs, 1, test_fraction)
  said = [f"{bare} have no skin: by distance to bones"] if bare else []
  parts.tell("rigged", root, tree, found, said)
  digest = digests.of_stats(
    ("/".join((side, *e.parts)), e.size, e.changed)
    for side, chosen in (("train", found.train), ("test", found.test))
    for e, _ in chosen
  )
  skeletons_of = [rigs[e.parts].joints.tobytes() for e in tree.files]
  part = lambda chosen, again: Rigs(
    [rigs[e.parts] for e, _ in chosen],
    joints,
    points,
    seed,
    shuffle and again,
    turn * again,
    pose * again,
  )
  return Dataset(
    "rigged",
    part(found.train, True),
    part(found.test, False),
    forms={"joints": Skeleton()},
    digest=digests.fingerprint(digest, [repr(x) for x in skeletons_of]),
  )


def read(path: str, text: str | None) -> tuple[Rig, bool]:
  """(a rigged shape, whether its skin had to be made).

  Args:
    path: of the shape.
    text: of its rig in RigNet's format; None where it has none.

  Raises:
    UserError: it has no rig, or is damaged.
  """
  where = notes.printable(path)
  if path.lower().endswith(".npz"):
    held = shapes.arrays(pathlib.Path(path), where)
    missing = [k for k in ("vertices", "joints", "parent") if k not in held]
    if missing:
      raise UserError(
        f"{where}: has no {', '.join(missing)}; a rigged shape has vertices, "
        "joints, parent and perhaps faces and skin"
      )
    shape = shapes.checked(shapes.of_arrays(held, where), where)
    rig = held["joints"], held["parent"], held.get("skin")
  elif text is None:
    stem = os.path.splitext(path)[0]
    raise UserError(
      f"{where}: no {notes.printable(stem)}.txt beside it, with its rig; write "
      "one, or move the shape away"
    )
  else:
    shape = shapes.read(path)
    rig = rig_text.read(text, len(shape.vertices))
    where = notes.printable(text)
  return _checked(shape, *rig, where)


def _checked(shape, joints, parent, skin, where) -> tuple[Rig, bool]:
  n, v = len(joints), len(shape.vertices)
  if joints.shape != (n, 3) or not n or not np.isfinite(joints).all():
    raise UserError(
      f"{where}: joints of shape {joints.shape}; give finite numbers [n, 3]"
    )
  whole = np.issubdtype(parent.dtype, np.integer)
  if not whole or parent.shape != (n,):
    raise UserError(
      f"{where}: parent, {parent.dtype} of shape {parent.shape}; give whole "
      f"numbers [{n}], one for each joint"
    )
  try:
    order = skeletons.breadth_first(parent)
  except UserError as e:
    raise UserError(f"{where}: {e}") from e
  joints = np.float64(joints)[order]
  parent = skeletons.reordered(parent, order)
  if made := skin is None:
    skin = creatures.skin(shape.vertices, joints, parent)
    return Rig(shape, joints, parent, skin), made
  good = skin.shape == (v, n) and np.isfinite(skin).all() and (skin >= 0).all()
  if not good:
    raise UserError(
      f"{where}: skin of shape {skin.shape}; give numbers from 0 on, a row for "
      f"each of {v} vertices, a column for each of {n} joints"
    )
  total = skin.sum(1, keepdims=True)
  if not (total > 0).all():
    bad = int(np.flatnonzero(total[:, 0] <= 0)[0])
    raise UserError(f"{where}: vertex {bad} follows no joint")
  return Rig(shape, joints, parent, np.float64(skin / total)[:, order]), made


class Rigs:
  """Examples made when asked for; arguments as of `rigged`."""

  def __init__(
    self,
    rigs: Sequence[Rig],
    joints: int,
    points: int,
    seed: int,
    shuffle: bool,
    turn: float,
    pose: float,
  ):
    self._rigs, self._joints, self._points = rigs, joints, points
    self._seed, self._shuffle, self._turn = seed, shuffle, turn
    self._pose = pose

  def __len__(self) -> int:
    return len(self._rigs)

  def __getitem__(self, i: int) -> Example:
    own = np.random.default_rng((self._seed, range(len(self))[i]))
    return self._example(i, own, False)

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    return self._example(i, rng, True)

  def _example(self, i: int, rng: np.random.Generator, again: bool) -> Example:
    rig = self._rigs[i]
    points, skin = shapes.surface(rig.shape, self._points, rng, rig.skin)
    joints, parent = rig.joints, rig.parent
    if again and self._pose:
      joints, points = skeletons.posed(
        joints, parent, points, skin, rng, self._pose
      )
    shuffled = rng if again and self._shuffle else None
    angle = rng.uniform(-self._turn, self._turn) if again else 0.0
    return creatures.example(
      joints, parent, points, skin, self._joints, shuffled, angle
    )
