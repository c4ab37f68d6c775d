"""Runs that are interrupted somewhere and go on with the same or another
config: what a resumed run must never do, tried at random.

  python -m experiments.benchmarks.resume_fuzz [COUNT] [--seed=N] [--keep=FILE]

One trial is (config before, config after, place of interruption), on the toy
system of the tests. The first config runs, and is killed or asked to stop at
the place; the second config then goes on in the same folder. However
that goes, no good checkpoint is renamed and no row of metrics is lost; a
config that cannot go on is refused in one line and changes nothing; and where
both configs are equal, the end is that of a run that nothing happened to, bit
for bit. Trial i depends on the seed and i alone.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from unittest import mock

from ar_jax import checkpoint, main, metrics, seal, train, watch
from ar_jax.core.errors import UserError
from ar_jax.scores import Scores
from ar_jax.stop import Preempted
from experiments.shared import record, workdirs
from tests import toy
from tests.forks import Forks

# What a person may change between two runs; the first value is the usual one.
SPACE = {
  "optim.clip": (1.0, 0.0),
  "optim.weight_decay": (0.05, 0.0),
  "optim.lr": (1e-3, 3e-3),
  "optim.groups": ((), ("adversary",)),
  "train.fresh_optimizer": (False, True),
  "train.steps": (24, 30, 17),
  "train.save_every": (5, 8, 0),
  "train.log_every": (1, 4, 7, 0),
  "train.keep": (2, 1, 3),
  "train.best": (0, 1, 2),
  "train.best_by": ("loss", "eval/loss"),
  "train.best_is": ("lowest", "highest"),
  "train.eval_every": (5, 10),
  "train.sample_every": (0, 6),
  "train.ema": (0.9, 0.0),
  "train.accumulate": (1, 2),
}
# Where a process can be interrupted, and how often it comes there at most.
PLACES = {
  "step": 17,
  "row": 12,
  "half a row": 12,
  "save": 3,
  "saved": 3,
  "sealing": 3,
  "sealed": 3,
  "look": 17,
  "sampled": 2,
  "evaluated": 3,
  "scored": 2,
}


def config(changes: dict):
  """The config of the toy with these values of SPACE."""
  c = toy.get_config()
  with c.unlocked():
    for key, value in changes.items():
      group, name = key.split(".")
      if name == "groups":
        value = {part: {"lr": 1e-2} for part in value}
      c[group][name] = value
  c.train.sample_count = 2
  return c


def trial(rng: random.Random) -> tuple[dict, dict, tuple[str, str, int]]:
  """(before, after, (how, where, which time))."""
  before = {k: v[0] for k, v in SPACE.items()}
  for key in rng.sample(sorted(SPACE), rng.randint(0, 6)):
    before[key] = rng.choice(SPACE[key])
  where = rng.choice(sorted(PLACES))
  if where == "sampled":
    before["train.sample_every"] = 6
  if where == "scored":
    before["train.best"] = 1
  after = dict(before)
  if rng.random() < 0.5:
    for key in rng.sample(sorted(SPACE), rng.randint(1, 3)):
      after[key] = rng.choice(SPACE[key])
  how = "SIGKILL" if where == "half a row" else rng.choice(HOWS)
  return before, after, (how, where, rng.randint(1, PLACES[where]))


HOWS = ("SIGKILL", "SIGTERM")


def interrupted(changes: dict, workdir: str, how: str, where: str, turn: int):
  """What a process does that is to be killed."""
  main.set_up_devices()
  main.set_up_log()
  try:
    disturbed(changes, workdir, how, where, turn)
  except UserError as e:
    sys.exit(f"ar_jax: {e}")


def disturbed(changes: dict, workdir, how: str, where: str, turn: int) -> bool:
  """Trains, and sends the signal `how` to this process when it comes to the
  place for the `turn`th time; returns whether that has ended the run."""
  visits = 0

  def come() -> None:
    nonlocal visits
    visits += 1
    if visits == turn:
      os.kill(os.getpid(), signal.Signals[how])

  def hooked(function, first):
    def call(*args, **kwargs):
      if first:
        come()
      value = function(*args, **kwargs)
      if not first:
        come()
      return value

    return call

  def half(writer, step, values):
    if visits + 1 == turn:
      writer._file.write(json.dumps({"step": step, "loss": 0})[:-8])
      writer._file.flush()
    come()
    write(writer, step, values)

  write = metrics.Writer.write
  place, name, first = {
    "step": (metrics.Writer, "advance", False),
    "row": (metrics.Writer, "write", False),
    "half a row": (metrics.Writer, "write", None),
    "save": (checkpoint.Checkpoints, "save", True),
    "saved": (checkpoint.Checkpoints, "save", False),
    "sealing": (seal, "close", True),
    "sealed": (seal, "close", False),
    "look": (watch.Watch, "look", True),
    "sampled": (watch.Watch, "_sample", False),
    "evaluated": (watch.Watch, "_evaluate", False),
    "scored": (Scores, "note", False),
  }[where]
  call = half if first is None else hooked(getattr(place, name), first)
  with mock.patch.object(place, name, call):
    try:
      train.run(config(changes), workdir)
    except Preempted:
      return True
  return False


def _due(changes: dict, step: int) -> bool:
  """Whether a run of these changes leaves a row of this step."""
  train = {k.split(".")[1]: v for k, v in changes.items()}
  every = [e for e in (train["log_every"], train["save_every"]) if e]
  return step == train["steps"] or any(step % e == 0 for e in every)


class Fuzz:
  """Trials, in one folder, with undisturbed runs to compare with.

  Args:
    folder: for all runs.
    forks: makes the processes that are interrupted.
  """

  def __init__(self, folder: pathlib.Path, forks: Forks):
    self._folder, self._forks = folder, forks
    self._whole: dict[str, pathlib.Path] = {}

  def whole(self, changes: dict) -> pathlib.Path:
    """The folder of a run that nothing happened to."""
    key = json.dumps(changes)
    if key not in self._whole:
      workdir = self._folder / f"whole{len(self._whole)}"
      train.run(config(changes), workdir)
      self._whole[key] = workdir
    return self._whole[key]

  def run(self, number: int, before: dict, after: dict, place) -> dict:
    """One trial; `faults` of what it returns ought to be empty."""
    workdir, faults = self._folder / f"trial{number}", []
    how = place[0]
    if how == "SIGTERM":  # which this process survives
      came = disturbed(before, workdir, *place)
    else:
      child = self._forks.start(
        self._folder / f"trial{number}.log",
        "experiments.benchmarks.resume_fuzz:interrupted",
        before,
        str(workdir),
        *place,
        devices=1,
      )
      code = child.wait()
      came = code == -signal.SIGKILL
      if code and not came:
        faults.append(f"exit code {code}: {child.text()[-2000:]}")
    outcome, equal = "went on", before == after
    saved = workdirs.steps_on_disk(workdir)
    lines = workdirs.whole_lines(workdir)
    try:
      train.run(config(after), workdir)
    except UserError as e:
      outcome = "refused"
      if "\n" in str(e):
        faults.append(f"more than a line: {e}")
      if equal:
        faults.append(f"refused to go on: {e}")
      if (
        workdirs.steps_on_disk(workdir) != saved
        or workdirs.whole_lines(workdir) != lines
      ):
        faults.append("changed what it refused")
      train.run(config(before), workdir)
      after = before
    start = saved[-1] if saved else 0
    faults += _lost(workdir, before, after, start, lines)
    if before == after:
      faults += workdirs.differences(workdir, self.whole(before))
    if list(workdir.glob("checkpoints/broken-*")):
      faults.append("a good checkpoint was renamed")
    for step in workdirs.steps_on_disk(workdir):
      folder = workdir / "checkpoints" / str(step)
      if not seal.sealed(folder) or seal.fault(folder):
        faults.append(f"step {step} is not sealed, or damaged")
    return {
      "number": number,
      "how": how if came else "none",
      "where": place[1],
      "outcome": outcome,
      "equal": equal,
      "faults": faults,
    }


def _lost(workdir, before, after, start: int, lines: list[str]) -> list[str]:
  """Rows that are not there, or are there twice."""
  found = workdirs.rows(workdir)
  counts = collections.Counter(r["step"] for r in found if "loss" in r)
  last = max(after["train.steps"], start)
  wanted = [s for s in range(1, start + 1) if _due(before, s)]
  wanted += [s for s in range(start + 1, last + 1) if _due(after, s)]
  faults = [f"no row of step {s}" for s in wanted if not counts[s]]
  faults += [f"{n} rows of step {s}" for s, n in counts.items() if n > 1]
  there = set((workdir / "metrics.jsonl").read_text().splitlines())
  kept = [line for line in lines if json.loads(line)["step"] <= start]
  return faults + [f"lost {x[:40]}" for x in kept if x not in there]


def run(count: int, seed: int = 0, keep: str = os.devnull) -> list[dict]:
  """Makes the trials 0 to count - 1; returns what became of each.

  Args:
    count: of the trials.
    seed: of all.
    keep: a file of trials that are done; those made are added to it.
  """
  sys.modules["ar_jax.systems.toy"] = toy
  path = pathlib.Path(keep)
  lines = path.read_text().splitlines() if path.exists() else []
  found = [json.loads(line) for line in lines][:count]
  with (
    tempfile.TemporaryDirectory() as folder,
    Forks() as forks,
    path.open("a") as file,
  ):
    fuzz = Fuzz(pathlib.Path(folder), forks)
    for number in range(len(found), count):
      rng = random.Random(f"{seed} {number}")
      begun = time.perf_counter()
      result = fuzz.run(number, *trial(rng))
      result["seconds"] = round(time.perf_counter() - begun, 2)
      result["commit"] = record.commit()
      found.append(result)
      print(json.dumps(result), file=file, flush=True)
      if result["faults"]:
        print(result, trial(random.Random(f"{seed} {number}")), flush=True)
  return found


def write(count: int, seed: int, keep: str) -> None:
  """Makes the trials and records them."""
  main.set_up_devices()
  found = run(count, seed, keep)
  bad = [x for x in found if x["faults"]]
  table = []
  for where in PLACES:
    here = [x for x in found if x["where"] == where]
    count_of = lambda key, value, here=here: sum(x[key] == value for x in here)
    table.append({
      "place": where,
      "trials": len(here),
      "killed": count_of("how", "SIGKILL"),
      "stopped": count_of("how", "SIGTERM"),
      "not reached": count_of("how", "none"),
      "equal configs": count_of("equal", True),
      "refused": count_of("outcome", "refused"),
      "faults": sum(bool(x["faults"]) for x in here),
    })  # fmt: skip
  record.write(
    "resume_fuzz",
    claim="A run that is interrupted anywhere, and goes on with the same or "
    "another config, renames no good checkpoint and loses no row of metrics; "
    "with the same config it ends as one that nothing happened to.",
    paper="none",
    baseline="the same run, undisturbed",
    ours=f"{len(bad)} of {len(found)} random trials with a fault",
    holds=not bad,
    seeds=[seed],
    seconds=sum(x["seconds"] for x in found),
    tables={"By place of interruption": table},
    faults=bad,
    commits=sorted({x["commit"] for x in found}),
  )


if __name__ == "__main__":
  parser = argparse.ArgumentParser()
  parser.add_argument("count", nargs="?", type=int, default=200)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--keep", default=os.devnull)
  args = parser.parse_args()
  write(args.count, args.seed, args.keep)
