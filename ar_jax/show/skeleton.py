"""Skeletons: bones within their shapes, seen from two sides; OBJ files, and
rigs as text."""

from __future__ import annotations

import pathlib

import numpy as np

from ar_jax.core.forms import Skeleton
from ar_jax.data.science import rig_text
from ar_jax.show.files import numbered
from ar_jax.show.sheet import COLOURS, GREY, Sheet

_SIDE, _EDGE = 130, 10
_COLUMNS = 4
_POINTS = 2000  # of a surface that are drawn, at most
_PALE = 0.6  # how much of its colour a point of the surface has
_FEW = 300  # points, each of which is drawn larger
# The axes to the right and upwards, and what one looks at.
_VIEWS = ((0, 1, "front"), (2, 1, "side"))


def picture(
  form: Skeleton, x: np.ndarray, beside: dict, *, columns: int, truth=None
) -> np.ndarray:
  """Of each skeleton its joints and bones, x to the right and y upwards; and
  beside it from the side, z to the right. Both at one scale. Points of the
  shape lie behind, each pale in the colour of the joint that moves it most."""
  del form, truth
  sheet = Sheet(len(x), min(columns, _COLUMNS), 2 * _SIDE, _SIDE)
  for i in range(sheet.count):
    joints, bones = parts(x, beside, i)
    surface, colours = _surface(beside, i)
    left, top = sheet.corner(i)
    sheet.frame(i)
    every = np.concatenate([joints, surface])
    low, high = (every.min(0), every.max(0)) if len(every) else np.zeros((2, 3))
    middle, half = (low + high) / 2, max(float((high - low).max()) / 2, 1e-9)
    for k, (*axes, name) in enumerate(_VIEWS):
      corner = left + k * _SIDE, top
      seen = lambda at, m=middle, h=half, axes=axes, corner=corner: _seen(
        (at[:, axes] - m[axes]) / h, *corner
      )
      size = int(len(surface) < _FEW)
      for (px, py), colour in zip(seen(surface).tolist(), colours, strict=True):
        sheet.pen.rectangle((px, py, px + size, py + size), colour)
      points = seen(joints)
      for a, b in bones:
        sheet.line(points[[a, b]], COLOURS[0], 2)
      for px, py in points.tolist():
        sheet.pen.ellipse((px - 2, py - 2, px + 2, py + 2), fill=COLOURS[1])
      at = corner[0] + _EDGE - 6, top + 1
      sheet.write(at, f"{i}: {name}" if k == 0 else name)
  return sheet.array()


def _seen(at: np.ndarray, left: int, top: int) -> np.ndarray:
  """f[n, 2], pixels of points f[n, 2] within -1 and 1, to the right and up, in
  the square with this corner."""
  inner = _SIDE - 2 * _EDGE
  x = left + _EDGE + (at[:, 0] + 1) / 2 * inner
  y = top + _EDGE + (1 - at[:, 1]) / 2 * inner
  return np.stack([x, y], 1)


def _surface(
  beside: dict, i: int
) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
  """(f32[n, 3], colours): points of shape i, none where it is not known: of
  `query`, as far as there are `vertices`, or of `points`; grey without `skin`.
  """
  name = "query" if "query" in beside else "points"
  if name not in beside:
    return np.zeros((0, 3), np.float32), []
  surface = np.asarray(beside[name])[i, :, :3]
  skin = np.asarray(beside["skin"])[i] if "skin" in beside else None
  n = len(surface)
  if name == "query" and "vertices" in beside:  # the others fill up the array
    n = int(np.asarray(beside["vertices"])[i])
  some = np.unique(np.linspace(0, n - 1, min(n, _POINTS)).astype(int))
  if skin is None or len(skin) != len(surface):
    return surface[some], [GREY] * len(some)
  shades = 255 - _PALE * (255 - np.asarray(COLOURS))
  of = shades.astype(int)[skin[some].argmax(-1) % len(COLOURS)]
  return surface[some], list(map(tuple, of.tolist()))


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
