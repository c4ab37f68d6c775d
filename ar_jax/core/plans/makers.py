"""Makers of plans: rasters, scales, fronts, regions, blocks, trees.

Shapes: h x w the grid of units, L slots.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.plans.plan import (
  Plan,
  Rule,
  ancestors,
  causal,
  denoising,
  drafting,
  plan,
  recent,
)


def _grid(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
  row, col = np.indices((h, w))
  return row.reshape(-1), col.reshape(-1)


def raster(h: int, w: int, rule: Rule = causal) -> Plan:
  """One unit a step, row by row, on a grid of h x w."""
  row, col = _grid(h, w)
  return plan((1,) * (h * w), rule, row=row, col=col)


def scales(sides: Sequence[int | tuple[int, int]], rule: Rule = causal) -> Plan:
  """One map a step, coarse to fine (VAR, arXiv 2404.02905).

  Args:
    sides: side of each map, or its (height, width); its slots are in raster
      order.
    rule: `causal` is VAR's block-causal pattern, `within` is HMAR's.
  """
  shapes = list(map(pair, sides))
  grids = [_grid(*shape) for shape in shapes]
  row, col = (np.concatenate(axis) for axis in zip(*grids, strict=True))
  return plan([h * w for h, w in shapes], rule, row=row, col=col)


def pair(side: int | Sequence[int]) -> tuple[int, int]:
  """(height, width) of a map, given as these or as its side."""
  h, w = (side, side) if np.ndim(side) == 0 else side
  return int(h), int(w)


def blocks(length: int, size: int, rule: Rule = causal) -> Plan:
  """A line of `length` units in steps of `size`; the last may be shorter."""
  rest = length % size
  return plan((size,) * (length // size) + (rest,) * (rest > 0), rule)


def cosine(length: int, steps: int) -> tuple[int, ...]:
  """Units that each step of a masked model reveals (MaskGIT, MAR).

  After step k = 1..K, floor(L cos(pi k / 2 K)) units stay hidden, but every
  step reveals one at least and leaves one to the next; the last reveals what
  is left.

  Raises:
    UserError: there are more steps than units, or none.
  """
  if not 1 <= steps <= length:
    raise UserError(f"{steps} steps for {length} units: must be in 1..{length}")
  sizes, hidden = [], length
  for k in range(1, steps):
    stay = int(np.floor(length * np.cos(np.pi / 2 * k / steps)))
    stay = max(1, min(hidden - 1, stay))
    sizes.append(hidden - stay)
    hidden = stay
  return (*sizes, hidden)


def diagonals(h: int, w: int, rule: Rule = causal) -> Plan:
  """The anti-diagonals of a grid, from the upper left (NAR).

  All units with row + col = s appear at step s, ordered by row.
  """
  row, col = _grid(h, w)
  order = np.argsort(row + col, kind="stable")
  return plan(np.bincount(row + col), rule, row=row[order], col=col[order])


def regions(h: int, w: int, n: int) -> Plan:
  """One unit of each of n x n equal regions a step (PAR, arXiv 2412.15119).

  A region is filled in raster order; `region` says which it is and `place`
  where in it a unit lies.

  Raises:
    UserError: the grid does not divide into such regions.
  """
  if h % n or w % n:
    raise UserError(f"regions: {h}x{w} units do not divide into {n}x{n} parts")
  row, col = _grid(h, w)
  region = row // (h // n) * n + col // (w // n)
  place = row % (h // n) * (w // n) + col % (w // n)
  order = np.lexsort((region, place))
  columns = dict(row=row, col=col, region=region, place=place)
  columns = {name: column[order] for name, column in columns.items()}
  return plan((n * n,) * (len(row) // (n * n)), **columns)


def prefixed(p: Plan, length: int, *, each: bool = False) -> Plan:
  """`p` behind a prefix that all its slots see: text, a class, given frames.

  Args:
    p: a plan with the rule `causal`.
    length: slots of the prefix; their other integers are 0.
    each: whether the prefix is causal, rather than one step that sees itself.

  Raises:
    UserError: `p` has another rule, which would hide the prefix.
  """
  if p.rule is not causal:
    raise UserError(f"prefixed: needs a causal plan, got {p.rule.__name__}")
  columns = {
    name: np.pad(column, (length, 0))
    for name, column in p.slots.items()
    if name not in ("step", "index")
  }
  sizes = (1,) * length if each else (length,)
  return plan(sizes + p.sizes, **columns)


def sliding(length: int, size: int) -> Plan:
  """One unit a step, of which each sees the last `size`, itself included."""
  first = np.arange(length) - size + 1
  return plan((1,) * length, recent, first=first)


def noisy_clean(
  p: Plan, prefix: int = 0, *, each: bool = False, copies: int = 1
) -> Plan:
  """Noisy copies and a clean one of the slots of `p`, to train block diffusion.

  The last part is clean; `block` is the step in `p`. Noisy copies do not see
  each other.

  Args:
    p: a plan, whose steps are blocks.
    prefix: slots before them all, clean ones, which all of `p` see.
    each: whether the prefix is causal, rather than one block that sees itself.
    copies: noisy ones.
  """
  columns = {n: np.tile(c, copies + 1) for n, c in p.slots.items()}
  columns["block"] = columns.pop("step")
  columns["position"] = columns.pop("index")
  clean = np.repeat(np.arange(1 - copies, 2), len(p))
  sizes = p.sizes * (copies + 1)
  if prefix:
    columns = {n: np.pad(c, (prefix, 0)) for n, c in columns.items()}
    columns["block"][:prefix] = np.arange(-prefix, 0) if each else -1
    clean = np.pad(clean, (prefix, 0), constant_values=1)
    sizes = (1,) * prefix + sizes if each else (prefix, *sizes)
  return plan(sizes, denoising, clean=clean, **columns)


def groups(
  anchors: Sequence[int], count: int, length: int | None = None
) -> Plan:
  """Drafts behind some units of a line (gated LoRA, arXiv 2507.11851).

  First `length` ordinary slots, which see those before them; then, for each
  anchor, `count` drafts, which see the ordinary slots up to the anchor and the
  earlier drafts of their own group, and which nothing else sees. `anchor` is
  the ordinary slot of a slot, `draft` its number in the group, 0 for ordinary
  slots; it lies at the place anchor + draft.

  Args:
    anchors: ordinary slots.
    count: drafts of each.
    length: ordinary slots; up to the last anchor if None.

  Raises:
    UserError: an anchor is no ordinary slot.
  """
  length = max(anchors) + 1 if length is None else length
  if not all(0 <= anchor < length for anchor in anchors):
    raise UserError(f"groups: anchors {anchors} of {length} slots")
  anchor = np.concatenate([np.arange(length), np.repeat(anchors, count)])
  draft = np.concatenate(
    [np.zeros(length, int), np.tile(np.arange(1, count + 1), len(anchors))]
  )
  sizes = (1,) * length + (count,) * len(anchors)
  return plan(sizes, drafting, anchor=anchor, draft=draft)


def tree(parents: Sequence[int]) -> Plan:
  """A tree of drafts, verified in one step; each node sees its ancestors.

  Args:
    parents: the parent of each node, before it in this order; -1 for a root.

  Raises:
    UserError: a parent does not come before its node.
  """
  nodes = len(parents)
  if not all(-1 <= parent < node for node, parent in enumerate(parents)):
    raise UserError(f"tree: a parent must come before its node, got {parents}")
  below = np.ones(nodes, int)
  depth, enter, free = np.zeros((3, nodes + 1), int)  # the last: above roots
  for node in reversed(range(nodes)):
    if parents[node] >= 0:
      below[parents[node]] += below[node]
  for node, parent in enumerate(parents):
    depth[node] = depth[parent] + 1
    enter[node] = free[parent]
    free[parent] += below[node]
    free[node] = enter[node] + 1
  enter = enter[:-1]
  return plan(
    (nodes,), ancestors, enter=enter, leave=enter + below, depth=depth[:-1] - 1
  )


def fronts(frames: int, h: int, w: int) -> Plan:
  """The fronts of a video, from the upper left of its first frame (NAR).

  All units with frame + row + col = s appear at step s, in raster order.
  """
  frame, row, col = (x.reshape(-1) for x in np.indices((frames, h, w)))
  total = frame + row + col
  order = np.argsort(total, kind="stable")
  columns = dict(frame=frame[order], row=row[order], col=col[order])
  return plan(np.bincount(total), **columns)
