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


def drafting(q: Slots, k: Slots) -> np.ndarray:
  """Ordinary slots see those before them; drafts see these up to their anchor
  and the earlier drafts of their own group (arXiv 2507.11851)."""
  ordinary = (k["draft"] == 0) & (q["anchor"] >= k["anchor"])
  own = (q["anchor"] == k["anchor"]) & (q["draft"] >= k["draft"])
  return ordinary | own


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
