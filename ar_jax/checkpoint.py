"""Checkpoints: atomic, checked, restored on any mesh. The only Orbax user.

A run keeps `workdir/checkpoints/<step>/` with four items, so that each reader
loads only what it needs:

  variables   params and the other Linen collections
  ema         averaged params, absent when the run keeps none
  optimizer   the state of optax
  meta        JSON: step, config, versions

Orbax writes to a temporary folder and renames, so a killed save is never
seen. Against rot and truncation a `seal.json` with the CRC-32 of every file is
added once a save is complete (`seal.py`); a step that fails its seal is set
aside as `broken-<step>` and the one before it is used. Nothing else is a
reason to set one aside. `scores.json` holds the metrics by which the best
steps are kept (`scores.py`).

The processes of a run share the folder. Each writes and reads the slices of
its devices and sums its share of the files; the first one does the rest.
"""

from __future__ import annotations

import itertools
import json
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ar_jax import metrics, parallel, quiet, seal
from ar_jax.core import processes
from ar_jax.core.system import UserError, Vars
from ar_jax.scores import Keep, Scores

ITEMS = ("variables", "ema", "optimizer", "meta")

log = logging.getLogger("ar_jax")


class Checkpoints:
  """The checkpoints of one run.

  Args:
    workdir: the folder of the run.
    keep: how many of the newest steps to keep.
    best: how many of the steps with the best scores to keep beside them.
    by: the metric that the scores are of.
    highest: whether a high score is a good one.
    every: the run saves at multiples of it, see `scores.Keep`.
    read_only: neither writes nor sets anything aside: a run may be going on.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    *,
    keep: int = 2,
    best: int = 0,
    by: str = "loss",
    highest: bool = False,
    every: int = 0,
    read_only: bool = False,
  ):
    self.folder = metrics.expanded(workdir) / "checkpoints"
    self._read_only = read_only
    self._metadata: dict[int, Any] = {}  # of steps; slow to read
    self._unsealed = False
    self.scores = Scores(self.folder, best=best, by=by, highest=highest)
    self._keep = Keep(self.scores, keep, every)
    quiet.libraries()
    try:
      self._manager = ocp.CheckpointManager(
        self.folder,
        item_handlers={
          **{i: ocp.StandardCheckpointHandler() for i in ITEMS[:-1]},
          "meta": ocp.JsonCheckpointHandler(),
        },
        options=ocp.CheckpointManagerOptions(
          preservation_policy=self._keep,
          enable_async_checkpointing=True,
          cleanup_tmp_directories=not read_only,  # of saves that were killed
          create=not read_only,
          read_only=read_only,
        ),
      )
    except OSError as e:
      raise UserError(
        f"{self.folder}: cannot be written ({e.strerror}); choose another "
        "--workdir"
      ) from e

  def steps(self) -> list[int]:
    return sorted(self._manager.all_steps())

  def save(self, step: int, items: dict[str, Any], meta: dict) -> None:
    """Starts saving `items` as `step`; the arrays may be donated afterwards.

    Raises:
      UserError: the file system refuses (a full disk, a quota). The steps
        already saved are untouched.
    """
    args = {k: ocp.args.StandardSave(v) for k, v in items.items()}
    args["meta"] = ocp.args.JsonSave({**meta, "step": step})
    self._metadata.pop(step, None)
    try:
      self.wait()
      self._manager.save(step, args=ocp.args.Composite(**args), force=True)
      self._unsealed = True
    except (UserError, jax.errors.JaxRuntimeError):
      raise  # said already; or another process is lost
    except Exception as e:
      raise self._save_error(e) from e

  def wait(self) -> None:
    """Returns when every save begun is complete and sealed."""
    if self._read_only:
      return
    try:
      self._manager.wait_until_finished()
      unsealed = [s for s in self.steps() if not seal.sealed(self._path(s))]
      for step in processes.broadcast(unsealed):
        seal.close(self._path(step))
      self._unsealed = False
    except (UserError, jax.errors.JaxRuntimeError):
      raise
    except Exception as e:
      raise self._save_error(e) from e

  def seal_finished(self) -> None:
    """Seals the last save if it is complete by now: a run that is killed
    before the next one goes on from it."""
    if self._unsealed:
      if processes.agree(not self._manager.is_saving_in_progress()):
        self.wait()

  def settle(self) -> None:
    """Lets a save that was begun be finished, if it can be: for a run that
    ends for another reason, of which other processes may not know."""
    try:
      self._manager.wait_until_finished()
    except Exception as e:
      reason = str(e).splitlines()[0][:160] if str(e) else type(e).__name__
      log.warning("%s: the last save failed: %s", self.folder, reason)

  def close(self) -> None:
    self.wait()
    if not self._read_only:  # a run may have been killed before it did this
      steps = processes.broadcast(self.steps())
      for step in sorted({*steps} - self._keep.kept(steps)):
        self._manager.delete(step)
    self._manager.close()

  def _path(self, step: int) -> pathlib.Path:
    return self.folder / str(step)

  def restore(
    self,
    want: Callable[[int], dict[str, Any]],
    steps: list[int] | None = None,
  ) -> tuple[dict, dict] | None:
    """The newest good step as (items, meta), or None if there is no step.

    Good is what its seal says. An error on the way to the arrays, of memory or
    of the disk, is no damage: it is raised, and nothing is set aside.

    Args:
      want: step -> item -> what to read: a tree of ShapeDtypeStruct with
        shardings is read straight to those devices, one of numpy arrays to
        the host. It raises UserError if the step does not fit.
      steps: to try, from the last on; by default all.

    Raises:
      UserError: none is good, or the newest good one cannot be read.
    """
    steps = processes.broadcast(self.steps() if steps is None else steps)
    for step in reversed(steps):
      fault = seal.fault(self._path(step))
      if fault is None:
        return self._read(step, want(step))
      self._set_aside(step, fault)
    if steps or processes.broadcast(any(self.folder.glob("broken-*"))):
      aside = "" if self._read_only else "; see broken-* there"
      raise UserError(
        f"{self.folder}: no step is whole{aside}; restore a copy, start with "
        "another --workdir, or remove the folder to begin anew"
      )
    return None

  def _read(self, step: int, items: dict[str, Any]) -> tuple[dict, dict]:
    args = {k: ocp.args.StandardRestore(v) for k, v in items.items()}
    args["meta"] = ocp.args.JsonRestore()
    try:
      found = self._manager.restore(step, args=ocp.args.Composite(**args))
    except Exception as e:  # Orbax raises bare Exceptions for bad chunks
      raise self._read_error(step, e) from e
    return {k: found[k] for k in items}, found["meta"]

  def tree(self, step: int, item: str):
    """The tree of array metadata of an item; {} if the step lacks it."""
    if not (self._path(step) / item).is_dir():
      return {}
    if step not in self._metadata:
      try:
        self._metadata[step] = self._manager.item_metadata(step)
      except Exception as e:
        raise self._read_error(step, e) from e
    tree = self._metadata[step][item]
    return getattr(tree, "tree", tree)

  def _set_aside(self, step: int, fault: str) -> None:
    done = "passed over" if self._read_only else f"set aside as broken-{step}"
    text = "checkpoint %d of %s is damaged (%s): %s, using the one before"
    log.warning(text, step, self.folder, fault, done)
    if self._read_only:
      return
    if processes.leads():
      ends = itertools.chain([""], (f".{n}" for n in itertools.count(1)))
      targets = (self.folder / f"broken-{step}{end}" for end in ends)
      self._path(step).rename(next(t for t in targets if not t.exists()))
    processes.meet("set aside")
    self._manager.reload()

  def _read_error(self, step: int, e: Exception) -> Exception:
    lost = isinstance(e, jax.errors.JaxRuntimeError) and jax.process_count() > 1
    if lost and "RESOURCE_EXHAUSTED" not in str(e):
      return e  # another process is
    advice = "mend that and run again"
    if not seal.sealed(self._path(step)):  # the run was killed before that
      advice = "run again, or move that folder away to use the step before"
    return UserError(
      f"{self._path(step)}: cannot be read ({_reason(e)}); nothing was "
      f"changed; {advice}"
    )

  def _save_error(self, e: Exception) -> UserError:
    return UserError(
      f"{self.folder}: saving failed ({_reason(e)}); free space or mend the "
      "disk and run the same command again: it resumes from step "
      f"{max(self.steps(), default=0)}"
    )


def _reason(e: Exception) -> str:
  return str(e).splitlines()[0][:160] if str(e) else type(e).__name__


def load(
  workdir: str | pathlib.Path,
  place: Callable[[Any], Any] | None = None,
  which: int | str = "newest",
) -> tuple[Vars, dict]:
  """(variables, meta) of a step.

  `variables["params"]` are the averaged ones where the run keeps an average.

  Args:
    workdir: of the run.
    place: tree of shapes -> tree of shardings, for arrays on a mesh, each
      process reading its own slices; by default they are numpy arrays, which
      no device has seen.
    which: "newest", the newest good step; "best", by the score of the run
      (`train.best`); or the number of a step.

  Raises:
    UserError: there is no checkpoint, no such one, or none that can be read.
  """
  workdir = metrics.expanded(workdir)
  if not (workdir / "checkpoints").is_dir():
    raise UserError(
      f"{workdir}: no checkpoints there; train first, or convert published "
      "weights with python -m ar_jax.convert"
    )
  meta = read_meta(workdir) or {}
  train = meta.get("config", {}).get("train", {})
  checkpoints = Checkpoints(
    workdir,
    by=train.get("best_by", "loss"),
    highest=train.get("best_is") == "highest",
    read_only=True,
  )

  def wanted(step):
    trees = {i: checkpoints.tree(step, i) for i in ("variables", "ema")}
    trees = {i: tree for i, tree in trees.items() if tree}
    if place is None:
      return jax.tree.map(_host, trees)
    return {
      i: parallel.abstract(tree, place(tree)) for i, tree in trees.items()
    }

  found = checkpoints.restore(wanted, _named(checkpoints, which))
  checkpoints.close()
  if found is None:
    raise UserError(f"{workdir}/checkpoints: no complete step there")
  items, meta = found
  variables = dict(items["variables"])
  if "ema" in items:
    variables["params"] = items["ema"]
  return variables, meta


def _named(checkpoints: Checkpoints, which: int | str) -> list[int] | None:
  """The steps to try: None for all."""
  if which == "newest":
    return None
  steps = checkpoints.steps()
  chosen = checkpoints.scores.ranked(steps)[:1] if which == "best" else [which]
  if not set(chosen) & {*steps, *map(str, steps)}:
    raise UserError(
      f"{checkpoints.folder}: no step {which}; there are {steps}"
      + ("; set train.best to have steps rated" if which == "best" else "")
    )
  return [int(step) for step in chosen]


def export(
  workdir: str | pathlib.Path, variables: Vars, config: dict | None = None
) -> None:
  """Writes `variables` as step 0 of a new run, for `weights` to refer to."""
  checkpoints = Checkpoints(workdir)
  if checkpoints.steps():
    raise UserError(f"{workdir}: already holds a run; choose another folder")
  checkpoints.save(0, {"variables": variables}, {"config": config or {}})
  checkpoints.close()


def read_meta(workdir: str | pathlib.Path) -> dict | None:
  """The meta of the newest step, or None where there is no run."""
  folder = metrics.expanded(workdir) / "checkpoints"
  if not folder.is_dir():
    return None
  steps = [int(p.name) for p in folder.iterdir() if p.name.isdigit()]
  for step in sorted(steps, reverse=True):
    try:
      return json.loads((folder / str(step) / "meta/metadata").read_text())
    except (OSError, ValueError):
      continue  # not complete, or damaged: `restore` sets it aside
  return None


def _host(leaf) -> np.ndarray:
  """What stands for an array that is to be read to the host; takes no room."""
  return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
