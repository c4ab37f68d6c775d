"""Which units appear at which step, and who sees whom.

A `Plan` is a static value: a few integers per slot and a predicate over them.
Everything else (the dense mask, the pairs that are computed, later the tile
tables of a kernel) follows from these on the host, in numpy.

Glossary: L slots (one per unit) in the order in which they are generated,
N steps; step s fills the slots `plan.span(s)`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ar_jax.core.errors import UserError

Slots = Mapping[str, np.ndarray]
Rule = Callable[[Slots, Slots], np.ndarray]


def causal(q: Slots, k: Slots) -> np.ndarray:
  """A slot sees its own step and every earlier one."""
  return q["step"] >= k["step"]


def within(q: Slots, k: Slots) -> np.ndarray:
  """A slot sees its own step only (Markov next-scale models)."""
  return q["step"] == k["step"]


def recent(q: Slots, k: Slots) -> np.ndarray:
  """A slot sees those from its `first` to itself."""
  return (q["index"] >= k["index"]) & (q["first"] <= k["index"])


def ancestors(q: Slots, k: Slots) -> np.ndarray:
  """A node of a tree sees the nodes above it and itself.

  `enter` and `leave` bound the numbers of a node and all below it, in an
  order in which each node comes right before those below it.
  """
  return (q["enter"] >= k["enter"]) & (q["enter"] < k["leave"])


def denoising(q: Slots, k: Slots) -> np.ndarray:
  """Clean slots see clean ones up to their block; noisy ones see their own
  noisy block and the clean ones before it (arXiv 2503.09573, 2510.06303)."""
  own = (q["block"] == k["block"]) & (q["clean"] == k["clean"])
  return own | ((q["block"] > k["block"]) & (k["clean"] > 0))


@dataclasses.dataclass(frozen=True)
class Plan:
  """The order of generation and the pattern of visibility; hashable.

  Build it with a maker of this module, or with `plan` from columns.

  Attributes:
    sizes: units per step; they sum to L.
    names: names of the integers that each slot carries.
    table: these integers, i32[len(names), L], as bytes, so that a plan is a
      value that hashes fast.
    rule: (q, k) -> bool, broadcasting over the integers of query and key; a
      function of a module, so that equal plans compare equal.
  """

  sizes: tuple[int, ...]
  names: tuple[str, ...]
  table: bytes = dataclasses.field(repr=False)
  rule: Rule = causal

  def __len__(self) -> int:
    return sum(self.sizes)

  def __getitem__(self, name: str) -> np.ndarray:
    """i32[L], read-only: the integer `name` of every slot."""
    return self.slots[name]

  @property
  def steps(self) -> int:
    """The number of steps, N."""
    return len(self.sizes)

  @functools.cached_property
  def slots(self) -> dict[str, np.ndarray]:
    """name -> i32[L], all integers of all slots."""
    rows = np.frombuffer(self.table, np.int32).reshape(len(self.names), -1)
    return dict(zip(self.names, rows, strict=True))

  @functools.cached_property
  def _ends(self) -> tuple[int, ...]:
    return tuple(itertools.accumulate(self.sizes))

  def span(self, step: int) -> slice:
    """The slots that step `step` fills."""
    stop = self._ends[step]
    return slice(stop - self.sizes[step], stop)

  def step_of(self) -> np.ndarray:
    """i32[L]: the step at which each slot is filled."""
    return self["step"]

  def visible(self, q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """bool, whether slots `q` see slots `k` (indices that broadcast)."""
    at = lambda i: {name: column[i] for name, column in self.slots.items()}
    return np.asarray(self.rule(at(q), at(k)))

  def mask(self, rows: slice = slice(None)) -> np.ndarray:
    """bool[L, L]: [query, key] of all slots, or of the query slots `rows`."""
    index = self["index"]
    return self.visible(index[rows, None], index[None, :])

  def pairs(self) -> int:
    """The number of visible (query, key) pairs."""
    spans = map(self.span, range(self.steps))
    return sum(int(self.mask(span).sum()) for span in spans)


def plan(
  sizes: Sequence[int], rule: Rule = causal, **columns: np.ndarray
) -> Plan:
  """A plan of given step sizes; `step` and `index` are added to `columns`.

  Args:
    sizes: units per step, each at least 1.
    rule: the predicate of visibility.
    **columns: further integers per slot, each i32[L].
  """
  sizes = tuple(int(n) for n in sizes)
  if not sizes or min(sizes) < 1:
    raise UserError(f"plan: step sizes must be at least 1, got {sizes}")
  columns = {
    "step": np.repeat(np.arange(len(sizes)), sizes),
    "index": np.arange(sum(sizes)),
    **columns,
  }
  table = np.stack([np.asarray(c, np.int32) for c in columns.values()])
  return Plan(sizes, tuple(columns), table.tobytes(), rule)


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
  """(height, width) of a map that is told by these, or by its side."""
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


def noisy_clean(p: Plan) -> Plan:
  """A noisy and a clean copy of the slots of `p`, to train block diffusion.

  The first half is noisy, the second clean; `block` is the step in `p`.
  """
  columns = {n: np.tile(c, 2) for n, c in p.slots.items()}
  columns["block"] = columns.pop("step")
  columns["position"] = columns.pop("index")
  clean = np.repeat([0, 1], len(p))
  return plan(p.sizes * 2, denoising, clean=clean, **columns)


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
