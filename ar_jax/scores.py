"""Which steps of a run are kept: the newest, and the best by a metric."""

from __future__ import annotations

import json
import math
import pathlib

from ar_jax.core import json_text, processes


class Scores:
  """The metrics of each step, kept beside the checkpoints.

  The file says which metric a number is of, `{metric: {step: value}}`, so that
  a run that goes on with another metric ranks each by its own.

  Args:
    folder: of the checkpoints; gets `scores.json`.
    best: how many of the steps with the best scores to keep.
    by: the metric to rank by.
    highest: whether a high score is a good one.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    best: int,
    by: str = "loss",
    highest: bool = False,
  ):
    self._path, self._by = folder / "scores.json", by
    self._best, self._sign = best, -1.0 if highest else 1.0
    try:
      found = json.loads(self._path.read_text())
    except (OSError, ValueError):
      found = {}  # none yet; or lost: `train` notes again what it logged
    found = processes.broadcast(found)
    if not all(isinstance(v, dict) for v in found.values()):
      found = {by: found}  # as written before the metric was
    self._all = {
      metric: {int(step): float(v) for step, v in values.items()}
      for metric, values in found.items()
    }

  @property
  def _scores(self) -> dict[int, float]:
    return self._all.setdefault(self._by, {})

  def __contains__(self, step: int) -> bool:
    return step in self._scores

  def note(self, step: int, value: float) -> None:
    """The metric of a step; the next save keeps the best by it."""
    self._scores[step] = float(value)
    self._write()

  def forget_after(self, step: int) -> None:
    """Drops the scores of later steps: they are of a branch left behind."""
    kept = {
      metric: {s: v for s, v in values.items() if s <= step}
      for metric, values in self._all.items()
    }
    if kept != self._all:
      self._all = kept
      self._write()

  def _write(self) -> None:
    if processes.leads():
      temporary = self._path.with_suffix(".tmp")
      temporary.write_text(json_text.dumps(self._all) + "\n")
      temporary.rename(self._path)

  def ranked(self, steps: list[int]) -> list[int]:
    """Those of the steps that have a score, the best first, then the newest."""
    scored = [s for s in steps if math.isfinite(self._scores.get(s, math.nan))]
    return sorted(scored, key=lambda s: (self._sign * self._scores[s], -s))

  def best(self, steps: list[int]) -> set[int]:
    """Those of the steps that are kept for their score."""
    return set(self.ranked(steps)[: self._best])


class Keep:
  """Which steps to keep, as Orbax asks its policies.

  A step that was saved because the run was asked to stop is kept only until
  there is a newer one, so that a run that was disturbed leaves the same steps
  as one that was not.

  Args:
    scores: of the run.
    newest: how many of the newest steps to keep, at least 1.
    every: the run saves at multiples of it; 0 is at its end alone.
  """

  def __init__(self, scores: Scores, newest: int, every: int = 0):
    self._scores, self._newest, self._every = scores, newest, every

  def kept(self, steps: list[int]) -> set[int]:
    """Those of the steps, in order, that are kept."""
    due = lambda s: self._every and s % self._every == 0
    newest = [s for s in steps if due(s) or s == max(steps)]
    return {*newest[-self._newest :]} | self._scores.best(steps)

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    del context
    kept = self.kept([c.step for c in checkpoints])
    return [c.step in kept for c in checkpoints]
