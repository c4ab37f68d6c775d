"""Results of experiments: one JSON file each, with all that made the number."""

from __future__ import annotations

import os
import pathlib
import platform
import resource
import shutil
import subprocess
import sys

import jax

from ar_jax.core import json_text

RESULTS = pathlib.Path(__file__).parents[1] / "results"


def trial() -> bool:
  """Whether the command line says --short: then nothing is recorded."""
  return "--short" in sys.argv[1:]


def numbers(*short: int) -> list[float]:
  """The numbers of the command line; of a trial, these in their place."""
  if trial():
    return list(short)
  return [float(x) if "." in x else int(x) for x in sys.argv[1:]]


def write(
  name: str,
  *,
  claim: str,
  paper: str,
  baseline: str,
  ours: str,
  holds: bool | str,
  seeds: list[int],
  seconds: float,
  tables: dict[str, list[dict]] | None = None,
  picture: str | None = None,
  folder: pathlib.Path | None = None,
  **details,
) -> None:
  """Writes `results/<name>.json`; in a trial prints what it would say.

  Args:
    name: of the experiment.
    claim: what is claimed, in a sentence.
    paper: the paper's figure.
    baseline: what it is compared with here.
    ours: the figure measured here, with its spread.
    holds: whether it holds; a string says why not, or how far.
    seeds: of the repetitions.
    seconds: of the whole experiment.
    tables: title -> rows with equal keys, for `report`.
    picture: file name of a plot or grid beside the JSON.
    folder: where the file goes in place of `results`.
    **details: anything else worth keeping.
  """
  if trial():
    print(f"{name}, a trial that is not recorded: {ours}")
    return
  record = {
    "claim": claim,
    "paper": paper,
    "baseline": baseline,
    "ours": ours,
    "holds": holds,
    "seeds": seeds,
    "seconds": round(seconds, 1),
    "device": device(),
    "jax": jax.__version__,
    "commit": commit(),
    "command": command(),
    "tables": tables or {},
    "picture": picture,
    **details,
  }
  folder = RESULTS if folder is None else folder
  folder.mkdir(exist_ok=True)
  path = folder / f"{name}.json"
  path.write_text(json_text.dumps(record, indent=2) + "\n")
  print(f"wrote {path}")


def device() -> str:
  kind = jax.devices()[0].device_kind
  if kind == "cpu":
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
      if line.startswith("model name"):
        kind = line.split(":")[1].strip()
    cores = len(os.sched_getaffinity(0))
    word = "core" if cores == 1 else "cores"
    return f"{kind}, {cores} {word}, {platform.machine()}"
  return f"{jax.device_count()} x {kind}"


def command() -> str:
  """What was typed, without folders."""
  module = getattr(sys.modules["__main__"], "__spec__", None)
  words = [word for word in sys.argv[1:] if "/" not in word]
  return " ".join(["python -m", module.name if module else "?", *words])


def commit() -> str:
  """The commit that ran, with a plus where the tree had changed, but for what
  runs write themselves; "unknown" in a copy without its history."""
  git = lambda *a: subprocess.run(
    ["git", *a], capture_output=True, text=True, cwd=RESULTS.parent
  ).stdout.strip()
  if shutil.which("git") is None or not git("rev-parse", "HEAD"):
    return "unknown"
  made = (f":(top,exclude){path}" for path in ("experiments/results", "docs"))
  changed = git("status", "--porcelain", "-uno", "--", ":(top)", *made)
  return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def peak_memory() -> float:
  """Peak resident memory of this process so far, GiB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
