"""Which steps of a run are the best, by a metric."""

from __future__ import annotations

import json
import math
import pathlib

from ar_jax.core import processes


class Scores:
  """The metric of each step, kept beside the checkpoints.

  Args:
    folder: of the checkpoints; gets `scores.json`.
    best: how many of the steps with the best scores to keep.
    highest: whether a high score is a good one.
  """

  def __init__(self, folder: pathlib.Path, *, best: int, highest: bool):
    self._path = folder / "scores.json"
    self._best, self._sign = best, -1.0 if highest else 1.0
    try:
      found = json.loads(self._path.read_text())
    except (OSError, ValueError):
      found = {}  # none yet; or lost, and then only the newest are kept
    self._scores = {int(k): v for k, v in processes.broadcast(found).items()}

  def __contains__(self, step: int) -> bool:
    return step in self._scores

  def note(self, step: int, value: float) -> None:
    """The metric of a step; the next save keeps the best by it."""
    self._scores[step] = float(value)
    if processes.leads():
      temporary = self._path.with_suffix(".tmp")
      temporary.write_text(json.dumps(self._scores) + "\n")
      temporary.rename(self._path)

  def ranked(self, steps: list[int]) -> list[int]:
    """Those of the steps that have a score, the best first, then the newest."""
    scored = [s for s in steps if math.isfinite(self._scores.get(s, math.nan))]
    return sorted(scored, key=lambda s: (self._sign * self._scores[s], -s))

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Which steps to keep, as Orbax asks its policies."""
    del context
    best = self.ranked([c.step for c in checkpoints])[: self._best]
    return [c.step in best for c in checkpoints]
