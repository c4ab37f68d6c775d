"""Parts of a map of units that appear together: the entities of xAR.

Beyond Next-Token: Next-X Prediction (arXiv 2502.20388), section 3.1. A plan
here has `row` and `col`: where each slot is, counted in units of the map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.plans import makers, plan
from ar_jax.core.plans.plan import Plan

ENTITIES = ("token", "cell", "subsample", "scale", "image")


def cells(h: int, w: int, side: int) -> Plan:
  """The cells of side x side units of a grid, row by row; inside a cell as
  well. Side 1 is `plan.raster`, and a side of the whole grid one step.

  Raises:
    UserError: the cells do not fill the grid.
  """
  return _grouped(h, w, side, lambda x: x // side, lambda x: x % side)


def subsamples(h: int, w: int, stride: int) -> Plan:
  """Every stride-th unit of a grid both ways a step, from stride^2 different
  first ones, in the order of these.

  Raises:
    UserError: the stride does not divide the sides.
  """
  return _grouped(h, w, stride, lambda x: x % stride, lambda x: x // stride)


Part = Callable[[np.ndarray], np.ndarray]


def _grouped(h: int, w: int, by: int, group: Part, place: Part) -> Plan:
  """One group a step: ordered by (group, place) of the row and the column."""
  if by < 1 or h % by or w % by:
    raise UserError(f"a grid of {h}x{w} does not fall into parts of {by}")
  row, col = (x.reshape(-1) for x in np.indices((h, w)))
  keys = (place(col), place(row), group(col), group(row))  # the last is first
  order = np.lexsort(keys)
  row, col = row[order], col[order]
  sizes = np.bincount(group(row) * (1 + group(col).max()) + group(col))
  return plan.plan(sizes, row=row, col=col)


def scales(h: int, sides: Sequence[int]) -> Plan:
  """Maps of growing sides, the last h; a cell of a coarse map is where its
  upper left unit is.

  Raises:
    UserError: the sides do not divide h, or the last is another.
  """
  if not sides or sides[-1] != h or any(h % side for side in sides):
    raise UserError(
      f"scales={tuple(sides)}: they must divide the side {h} of the map, and "
      "the last must be equal to it"
    )
  p = makers.scales(sides)
  step = h // np.array(sides)[p.step_of()]
  return plan.plan(p.sizes, row=p["row"] * step, col=p["col"] * step)


def entities(
  kind: str, grid: tuple[int, int], part: int | Sequence[int]
) -> Plan:
  """The entities of a map.

  Args:
    kind: one of ENTITIES.
    grid: (h, h).
    part: side of a cell, stride of a subsample, or sides of the scales; not
      read for a token or the image.

  Raises:
    UserError: no such kind, or the parts do not make up the map.
  """
  check_choice("entity", kind, ENTITIES)
  if kind == "scale":
    return scales(grid[0], (part,) if isinstance(part, int) else tuple(part))
  if kind == "subsample":
    return subsamples(*grid, part)
  return cells(*grid, {"token": 1, "image": grid[0]}.get(kind, part))
