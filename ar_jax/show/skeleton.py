"""Skeletons: bones seen from two sides, OBJ files, and rigs as text."""

from __future__ import annotations

import pathlib

import numpy as np

from ar_jax.core.forms import Skeleton
from ar_jax.data.science import rig_text
from ar_jax.show.files import numbered
from ar_jax.show.sheet import COLOURS, Sheet, scaled

_SIDE, _EDGE = 130, 10
_COLUMNS = 4
# The axes to the right and upwards, and what one looks at.
_VIEWS = ((0, 1, "front"), (2, 1, "side"))


def picture(
  form: Skeleton, x: np.ndarray, beside: dict, *, columns: int, truth=None
) -> np.ndarray:
  """Of each skeleton its joints and bones, x to the right and y upwards; and
  beside it from the side, z to the right. Both at one scale."""
  del form, truth
  sheet = Sheet(len(x), min(columns, _COLUMNS), 2 * _SIDE, _SIDE)
  for i in range(sheet.count):
    joints, bones = parts(x, beside, i)
    left, top = sheet.corner(i)
    sheet.frame(i)
    low, high = joints.min(0, initial=0), joints.max(0, initial=0)
    if len(joints):
      low, high = joints.min(0), joints.max(0)
    half = max(float((high - low).max()) / 2, 1e-9)
    middle = (low + high) / 2
    for k, (right, up, name) in enumerate(_VIEWS):
      begin = left + k * _SIDE + _EDGE
      end = begin + _SIDE - 2 * _EDGE
      place = lambda axis, a, b, j=joints, m=middle, h=half: scaled(
        j[:, axis], m[axis] - h, m[axis] + h, a, b
      )
      across = place(right, begin, end)
      down = place(up, top + _SIDE - _EDGE, top + _EDGE)
      points = np.stack([across, down], 1)
      for a, b in bones:
        sheet.line(points[[a, b]], COLOURS[0], 2)
      for px, py in points.tolist():
        sheet.pen.ellipse((px - 2, py - 2, px + 2, py + 2), fill=COLOURS[1])
      sheet.write((begin - 6, top + 1), f"{i}: {name}" if k == 0 else name)
  return sheet.array()


def parts(
  x: np.ndarray, beside: dict, i: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
  """(joints f32[count, 3], bones as pairs of their numbers) of skeleton i.

  Args:
    x: f32[N, J, 3].
    beside: `count` i32[N], all joints without; `parent` i32[N, J], no bones
      without. What lies beyond the count is no joint.
    i: which one.
  """
  count = x.shape[1]
  if "count" in beside:
    count = int(np.clip(np.asarray(beside["count"])[i], 0, count))
  joints = x[i, :count]
  if "parent" not in beside:
    return joints, []
  parent = np.asarray(beside["parent"])[i, :count].tolist()
  bones = [(p, j) for j, p in enumerate(parent) if p != j and 0 <= p < count]
  return joints, bones


def write(
  folder: pathlib.Path,
  stem: str,
  form: Skeleton,
  x: np.ndarray,
  beside: dict,
  columns: int,
  most: int,
) -> list[pathlib.Path]:
  """`stem.000.obj` and so on; and where there is a skin beside them,
  `stem.000.txt`, the rig in RigNet's format."""
  del form, columns

  def one(i: int, path: pathlib.Path) -> None:
    joints, bones = parts(x, beside, i)
    lines = [f"o skeleton_{i}"]
    lines += ["v " + " ".join(f"{v:.6g}" for v in joint) for joint in joints]
    lines += [f"l {a + 1} {b + 1}" for a, b in bones]
    path.write_text("\n".join(lines) + "\n")

  def rig(i: int, path: pathlib.Path) -> None:
    joints, _ = parts(x, beside, i)
    skin = np.asarray(beside["skin"])[i, :, : len(joints)]
    if "vertices" in beside:  # what lies behind them fills up the array
      skin = skin[: int(beside["vertices"][i])]
    parent = np.asarray(beside["parent"])[i, : len(joints)]
    lines = rig_text.lines(joints, parent, skin)
    path.write_text("\n".join(lines) + "\n")

  count = min(len(x), most)
  files = numbered(folder, stem, "obj", count, one)
  if {"skin", "parent", "count"} <= beside.keys():
    files += numbered(folder, stem, "txt", count, rig)
  return files


def said(form: Skeleton, x: np.ndarray) -> tuple[str, str]:
  return "skeletons", f"{x.shape[1]} joints at most"
