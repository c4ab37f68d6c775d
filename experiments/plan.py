"""What fits, and how fast: published models on machines that are not here.

  python -m experiments.plan [--only=TEXT] [--list]

Each job is `ar_jax.aot` on a published config at its published batch. It needs
what `planning.machines` asks for. Rows are kept in `results/plan.jsonl`, so
that a run that was stopped goes on; then `results/plan.json` and a picture are
written, and the tables of docs/scale.md.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import time

import jax

from ar_jax import aot, parallel
from ar_jax.planning import machines, search, show
from experiments import record

KEEP = record.RESULTS / "plan.jsonl"

# Config, preset, topology, mesh, programs, whether to look for the largest
# batch. Parameters are split over all devices where a copy is too large.
SPLIT = {"data": 1, "fsdp": -1}
COPY = {"data": -1}
BOTH = ("train_step", "sample")
TRAIN = ("train_step",)
JOBS = (
  ("var", "d30", "v5e:16x16", SPLIT, BOTH, True),
  ("var", "d30", "v5p:4x4x4", SPLIT, BOTH, True),
  ("var", "d30", "h100:8", SPLIT, BOTH, True),
)


def key(job) -> tuple[str, str, str, str]:
  config, preset, topology, mesh, *_ = job
  return config, preset, topology, json.dumps(mesh)


def run_job(job, program: str) -> dict:
  """The row of one program of a job."""
  name, preset, topology, mesh, _, limit = job
  config = importlib.import_module(f"configs.{name}").get_config(preset)
  config.mesh.update(mesh)
  machine, _ = machines.parse(topology)
  devices = machines.devices(topology)
  compile_at = functools.partial(
    aot.compile_row, config, machine, devices, config.mesh.to_dict(), program
  )
  batch = config.batch if program == "train_step" else config.sample.batch
  unit = parallel.ways(parallel.make_mesh(config.mesh, devices))
  row = compile_at(batch)
  if limit and program == "train_step":
    row["largest batch"] = search.largest(compile_at, row, unit, 3)
  return row


if __name__ == "__main__":
  jax.config.update("jax_platforms", "cpu")
  import logging

  logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
  for job in JOBS:
    if sys.argv[1] not in "/".join(key(job)):
      continue
    for program in job[4]:
      if len(sys.argv) > 2 and program != sys.argv[2]:
        continue
      t = time.time()
      row = run_job((*job[:5], False), program)
      print(show.table([row], "/".join(key(job)[:3])), flush=True)
      print(time.time() - t, record.peak_memory())
