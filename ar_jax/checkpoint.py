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
aside as `broken-<step>` and the one before it is used. `scores.json` holds the
metric by which the best steps are kept (`scores.py`).

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

from ar_jax import parallel, seal
from ar_jax.core import processes
from ar_jax.core.system import UserError, Vars
from ar_jax.scores import Scores

ITEMS = ("variables", "ema", "optimizer", "meta")

log = logging.getLogger("ar_jax")


class Checkpoints:
  """The checkpoints of one run.

  Args:
    workdir: the folder of the run.
    keep: how many of the newest steps to keep.
    best: how many of the steps with the best scores to keep beside them.
    highest: whether a high score is a good one.
    read_only: neither writes nor sets anything aside: a run may be going on.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    *,
    keep: int = 2,
    best: int = 0,
    highest: bool = False,
    read_only: bool = False,
  ):
    self.folder = pathlib.Path(workdir).resolve() / "checkpoints"
    self._read_only = read_only
    self._metadata: dict[int, Any] = {}  # of steps; slow to read
    self.scores = Scores(self.folder, best=best, highest=highest)
    policy = ocp.checkpoint_managers.AnyPreservationPolicy(
      [ocp.checkpoint_managers.LatestN(keep), self.scores]
    )
    try:
      self._manager = ocp.CheckpointManager(
        self.folder,
        item_handlers={
          **{i: ocp.StandardCheckpointHandler() for i in ITEMS[:-1]},
          "meta": ocp.JsonCheckpointHandler(),
        },
        options=ocp.CheckpointManagerOptions(
          preservation_policy=policy,
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
      unsealed = [
        s for s in self.steps() if not (self._path(s) / seal.SEAL).exists()
      ]
      for step in processes.broadcast(unsealed):
        seal.close(self._path(step))
    except jax.errors.JaxRuntimeError:
      raise
    except Exception as e:
      raise self._save_error(e) from e

  def settle(self) -> None:
    """Lets a save that was begun be finished, if it can be: for a run that
    ends for another reason, of which other processes may not know."""
    try:
      self._manager.wait_until_finished()
    except Exception as e:
      log.warning("%s: the last save failed: %s", self.folder, e)

  def close(self) -> None:
    self.wait()
    self._manager.close()

  def _path(self, step: int) -> pathlib.Path:
    return self.folder / str(step)

  def restore(
    self,
    abstract: dict[str, Any] | Callable[[int], dict[str, Any]],
    steps: list[int] | None = None,
  ) -> tuple[dict, dict] | None:
    """The newest good step as (items, meta), or None if there is no step.

    Args:
      abstract: item -> tree of ShapeDtypeStruct with shardings; only these
        items are read, straight to those devices. Or a function that gives
        this for a step.
      steps: to try, from the last on; by default all.

    Raises:
      UserError: the checkpoint belongs to another model, or none is readable.
    """
    steps = processes.broadcast(self.steps() if steps is None else steps)
    for step in reversed(steps):
      fault = seal.fault(self._path(step))
      if fault is None:
        try:
          meta = self._manager.restore(
            step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
          )["meta"]
          want = abstract(step) if callable(abstract) else abstract
          self._check_shapes(step, want)
          found = self._manager.restore(
            step,
            args=ocp.args.Composite(
              **{k: ocp.args.StandardRestore(v) for k, v in want.items()}
            ),
          )
          return {k: found[k] for k in want}, meta
        except UserError:
          raise
        except Exception as e:  # Orbax raises bare Exceptions for bad chunks
          fault = str(e).splitlines()[0][:120]
      self._set_aside(step, fault)
    if steps:
      aside = "" if self._read_only else "; they were set aside as broken-*"
      raise UserError(
        f"{self.folder}: none of the steps {steps} can be read{aside}; restore "
        "a copy or start with another --workdir"
      )
    return None

  def _check_shapes(self, step: int, abstract: dict[str, Any]) -> None:
    for item in ("variables", "ema"):
      if item not in abstract:
        continue
      differs = mismatch(abstract[item], self.tree(step, item))
      if differs:
        raise UserError(
          f"{self.folder}/{step}: another model: {item} {differs}; use its "
          "config or another --workdir"
        )

  def tree(self, step: int, item: str):
    """The tree of array metadata of an item; {} if the step lacks it."""
    if not (self._path(step) / item).is_dir():
      return {}
    if step not in self._metadata:
      self._metadata[step] = self._manager.item_metadata(step)
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

  def _save_error(self, e: Exception) -> UserError:
    reason = str(e).splitlines()[0][:160] if str(e) else type(e).__name__
    return UserError(
      f"{self.folder}: saving failed ({reason}); free space or mend the disk "
      f"and run the same command again: it resumes from step "
      f"{max(self.steps(), default=0)}"
    )


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
      process reading its own slices; by default they are host arrays.
    which: "newest", the newest good step; "best", by the score of the run
      (`train.best`); or the number of a step.

  Raises:
    UserError: there is no checkpoint, no such one, or none that can be read.
  """
  workdir = pathlib.Path(workdir)
  if not (workdir / "checkpoints").is_dir():
    raise UserError(
      f"{workdir}: no checkpoints there; train first, or convert published "
      "weights with python -m ar_jax.convert"
    )
  meta = read_meta(workdir) or {}
  train = meta.get("config", {}).get("train", {})
  checkpoints = Checkpoints(
    workdir, highest=train.get("best_is") == "highest", read_only=True
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
  if place is None:
    items = jax.tree.map(np.asarray, items)
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
  folder = pathlib.Path(workdir) / "checkpoints"
  if not folder.is_dir():
    return None
  steps = [int(p.name) for p in folder.iterdir() if p.name.isdigit()]
  for step in sorted(steps, reverse=True):
    try:
      return json.loads((folder / str(step) / "meta/metadata").read_text())
    except (OSError, ValueError):
      continue  # not complete, or damaged: `restore` sets it aside
  return None


def _host(leaf) -> jax.ShapeDtypeStruct:
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)


def mismatch(want, have) -> str | None:
  """How two trees differ in names and shapes, by the first that does.

  Args:
    want: what the config asks for; leaves have a shape.
    have: what a checkpoint holds.
  """
  want, have = _shapes(want), _shapes(have)
  for name in sorted(want.keys() | have.keys()):
    if want.get(name) != have.get(name):
      there, here = (tree.get(name, "absent") for tree in (have, want))
      return f"{name} is {there} there and {here} in this config"
  return None


def _shapes(tree) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
    for path, leaf in leaves
  }
