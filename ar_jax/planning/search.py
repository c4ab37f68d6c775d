"""The largest batch that fits, and the best mesh, by few compilations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from ar_jax.core.system import UserError

log = logging.getLogger("ar_jax")

Row = dict[str, Any]
# Batches are told to an eighth of their size, by at most so many compilations.
CLOSE, COMPILES = 8, 6


def largest(
  compile_at: Callable[[int], Row],
  first: Row,
  unit: int,
  compiles: int = COMPILES,
) -> Row:
  """The largest batch that fits, to an eighth.

  Memory grows nearly in proportion to the batch, so each compilation is tried
  where the line through those before says that the memory ends, and the
  bracket is halved where nothing is known.

  Args:
    compile_at: compiles for a batch; its row has "fits", and "needed" and
      "memory" where they are known.
    first: the row of a batch that was compiled, with "batch", and "state
      bytes", what is needed without any batch.
    unit: batches are multiples of it.
    compiles: how many more at most.

  Returns:
    "batch": the largest found to fit, 0 if none; "too large": the smallest
    found not to fit, None if none was tried; "tried": batch -> bytes needed.
  """
  tried = {0: first["state bytes"]}
  fits, fails, memory = 0, None, first["memory"]
  row, batch = first, first["batch"]
  for left in reversed(range(compiles + 1)):
    if row["fits"]:
      fits = max(fits, batch)
    else:
      fails = batch if fails is None else min(fails, batch)
    if row.get("needed") is not None:
      tried[batch] = row["needed"]
    memory = row.get("memory", memory)
    batch = _next(tried, fits, fails, memory, unit)
    if batch is None or not left:
      break
    row = compile_at(batch)
  del tried[0]
  return {"batch": fits, "too large": fails, "tried": tried}


def _next(tried, fits, fails, memory, unit) -> int | None:
  """The batch to try next; None if the answer is close enough."""
  if fails is not None and fails - fits <= max(unit, fits // CLOSE):
    return None
  # The line through the two points nearest to the limit.
  near = sorted(tried, key=lambda b: abs(tried[b] - memory))[:2]
  low, high = min(near), max(near)
  guess = None
  if low != high and tried[high] > tried[low]:
    slope = (tried[high] - tried[low]) / (high - low)
    guess = int(low + (memory - tried[low]) / slope)
  if fails is None:
    guess = 4 * fits if guess is None else min(guess, 4 * fits)
    guess = max(guess // unit * unit, fits + max(unit, fits // CLOSE))
    return -(-guess // unit) * unit
  middle = (fits + fails) // 2
  guess = middle if guess is None else guess
  # Inside the bracket, and not so near to its ends that nothing is learnt.
  edge = max(unit, (fails - fits) // 8)
  guess = min(max(guess, fits + edge), fails - edge) // unit * unit
  if not fits < guess < fails:
    guess = middle // unit * unit
  return guess if fits < guess < fails else None


def sweep(
  compile_on: Callable[[dict[str, int], int], Row],
  meshes: Iterable[dict[str, int]],
  batches: Iterable[int],
) -> list[Row]:
  """Every mesh with every batch, the best first.

  Args:
    compile_on: compiles for a mesh and a batch.
    meshes: axis -> size.
    batches: what does not fit on a mesh is not tried with larger ones.

  Returns:
    Rows, those that fit first, by the examples a second of the roofline; a
    batch that does not divide among the devices is left out.
  """
  rows = []
  for sizes in meshes:
    for batch in sorted(batches):
      try:
        row = compile_on(sizes, batch)
      except UserError as e:
        log.info("%s, batch %d: %s", sizes, batch, e)
        continue
      rows.append({**row, "mesh": sizes})
      if not row["fits"]:
        break
  return sorted(rows, key=lambda r: (-r["fits"], -(r.get("examples/s") or 0)))
