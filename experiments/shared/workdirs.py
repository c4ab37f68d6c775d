"""What lies in a workdir, and in what two of them differ."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np

from ar_jax import checkpoint

TIMES = ("steps/s", "examples/s", "input_wait")


def rows(workdir: pathlib.Path) -> list[dict]:
  """All lines of the metrics, without how fast they were."""
  path = workdir / "metrics.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  found = [json.loads(line) for line in lines]
  return [{k: v for k, v in r.items() if k not in TIMES} for r in found]


def steps_on_disk(workdir: pathlib.Path) -> list[int]:
  folder = workdir / "checkpoints"
  found = folder.iterdir() if folder.exists() else ()
  return sorted(int(p.name) for p in found if p.name.isdigit())


def pictures(workdir: pathlib.Path) -> list[str]:
  return sorted(p.name for p in (workdir / "samples").glob("*"))


def whole_lines(workdir: pathlib.Path) -> list[str]:
  path = workdir / "metrics.jsonl"
  text = path.read_text() if path.exists() else ""
  return text[: text.rfind("\n") + 1].splitlines()


def differences(workdir: pathlib.Path, whole: pathlib.Path) -> list[str]:
  """In what a run ended unlike the undisturbed one."""
  faults = []
  logged = {r["step"] for r in rows(whole)}
  # A run that is asked to stop leaves a row of the step that it saves.
  mine = [r for r in rows(workdir) if r["step"] in logged]
  more = len({r["step"] for r in rows(workdir)} - logged)
  if mine != rows(whole) or more > 1:
    faults.append("other rows")
  for name, what in (
    ("steps", steps_on_disk),
    ("pictures", pictures),
    ("scores", scores),
  ):
    if what(workdir) != what(whole):
      faults.append(f"other {name}: {what(workdir)}, not {what(whole)}")
  pair = [checkpoint.load(w)[0] for w in (workdir, whole)]
  same = jax.tree.map(np.array_equal, *pair)
  if not all(jax.tree.leaves(same)):
    faults.append("other weights")
  return faults


def scores(workdir: pathlib.Path) -> dict:
  path = workdir / "checkpoints/scores.json"
  return json.loads(path.read_text()) if path.exists() else {}
