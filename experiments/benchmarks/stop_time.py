"""How soon a run ends that is asked to, and whether it then goes on exactly.

  python -m experiments.benchmarks.stop_time [COUNT]

The quickstart's tokenizer and generator, on scikit-learn's digits, as a
process of its own that gets SIGTERM at random steps and is started again each
time; and the same without any signal.
"""

from __future__ import annotations

import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from experiments.shared import record, workdirs

STAGES = {"tokenizer": 160, "generator": 220}
COMMAND = (
  *(sys.executable, "-m", "ar_jax.main", "--config=configs/quickstart.py"),
  *(f"--config.{stage}.train.log_every=1" for stage in STAGES),
)
ROOT = pathlib.Path(__file__).parents[2]


def start(workdir: pathlib.Path, log: pathlib.Path) -> subprocess.Popen:
  """The run, from where it is."""
  with log.open("a") as file:
    return subprocess.Popen(
      [*COMMAND, f"--workdir={workdir}"],
      cwd=ROOT,
      stdout=file,
      stderr=subprocess.STDOUT,
    )


def last_row(workdir: pathlib.Path) -> int:
  """The last step of which there is a row."""
  try:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["step"]
  except (OSError, IndexError, ValueError):
    return 0


def stopped(workdir: pathlib.Path, stage: str, step: int) -> dict:
  """Sends SIGTERM once this step of the stage is done."""
  folder = workdir / stage
  run = start(workdir, workdir.with_suffix(".log"))
  while last_row(folder) < step and run.poll() is None:
    time.sleep(0.002)
  begun, at = time.perf_counter(), last_row(folder)
  run.send_signal(signal.SIGTERM)
  code = run.wait()
  saved = workdirs.steps_on_disk(folder)
  return {
    "stage": stage,
    "signal after step": at,
    "saved step": saved[-1] if saved else 0,
    "exit code": code,
    "s until the process is gone": round(time.perf_counter() - begun, 2),
  }


def main() -> None:
  (count,) = record.numbers(2) or (20,)
  begun, rng = time.perf_counter(), random.Random(0)
  rows, faults = [], []
  with tempfile.TemporaryDirectory() as folder:
    disturbed, whole = (pathlib.Path(folder, x) for x in ("stopped", "whole"))
    for stage, steps in STAGES.items():
      share = range(5, steps - 5)
      for step in sorted(rng.sample(share, int(count) // len(STAGES))):
        rows.append(stopped(disturbed, stage, step))
        print(*rows[-1].values(), flush=True)
        if rows[-1]["exit code"]:
          faults.append(f"{rows[-1]}")
      # The rest of this stage, and the beginning of the next, come with it.
    for workdir in (disturbed, whole):
      code = start(workdir, workdir.with_suffix(".log")).wait()
      if code:
        faults.append(f"{workdir.name}: exit code {code}")
    for stage in STAGES:
      different = workdirs.differences(disturbed / stage, whole / stage)
      # A checkpoint of a stop may be among the newest that are kept.
      faults += [f"{stage}: {x}" for x in different if "other steps" not in x]
  late = [r["saved step"] - r["signal after step"] for r in rows]
  slowest = max(r["s until the process is gone"] for r in rows)
  record.write(
    "stop_time",
    claim="SIGTERM at a random step ends a run within two steps, and the run "
    "that goes on ends as one that nothing happened to, bit for bit.",
    paper="none",
    baseline="the same run without a signal",
    ours=f"saved at most {max(late)} steps after the last finished one, in all "
    f"{len(rows)} trials; the process is gone after at most {slowest:.1f} s, "
    "which includes the save",
    holds=max(late) <= 2 and not faults,
    seeds=[0],
    seconds=time.perf_counter() - begun,
    tables={"Signals": rows},
    faults=faults,
  )


if __name__ == "__main__":
  main()
