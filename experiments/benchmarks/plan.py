"""What fits, and how fast: published models on machines that are not here.

  python -m experiments.benchmarks.plan [--only=TEXT] [--list] [--render]
    [--short]

Each job is one program of a published config, at its published batch or at the
one named, compiled by `ar_jax.aot` for one machine; that takes what
`ar_jax/planning/machines.py` asks for. Rows are kept in `results/plan.jsonl`,
so that a run that was stopped goes on. Then `results/plan.json` and a picture
are written, and with all other pages the tables in docs/scale.md, between its
two marks.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import sys
import time
from typing import Any

import jax

from ar_jax import aot, parallel
from ar_jax.planning import machines, search, show
from experiments import report
from experiments.shared import record

KEEP = record.RESULTS / "plan.jsonl"
SHORT = ("var", "smoke", "cpu:8", "data=all", "sample", None, 0)  # a trial

# Parameters split over all devices, within each node of eight, or copied.
SPLIT, NODE, COPY = "fsdp=all", "fsdp=8", "data=all"
MESHES = {
  SPLIT: {"data": 1, "fsdp": -1},
  NODE: {"data": -1, "fsdp": 8},
  COPY: {"data": -1, "fsdp": 1},
}
TRAIN, SAMPLE = "train_step", "sample"
# Config, preset, topology, mesh, program, batch (the config's if None), and
# how many compilations to spend on the largest batch that fits.
JOBS = (
  ("var", "d30", "h100:8", SPLIT, TRAIN, None, 0),
  ("var", "d30", "v5e:16x16", SPLIT, TRAIN, None, 0),
  ("var", "d30", "v5p:4x4x4", SPLIT, TRAIN, None, 0),
  ("var", "d30", "h100:8", COPY, SAMPLE, None, 0),
  ("var", "d16", "h100:8", COPY, TRAIN, None, 0),
  ("var", "d36", "h100:64", SPLIT, TRAIN, None, 0),
  ("llamagen", "3b", "h100:8", SPLIT, TRAIN, None, 0),
  ("xar", "h", "h100:64", SPLIT, TRAIN, None, 0),
  ("var", "d20", "h100:8", SPLIT, TRAIN, None, 0),
  ("var", "d24", "h100:8", SPLIT, TRAIN, None, 0),
  ("llamagen", "3b", "h100:8", COPY, SAMPLE, None, 0),
  ("xar", "h", "h100:8", COPY, SAMPLE, None, 0),
  ("var", "d30", "v5e:4x4", COPY, SAMPLE, None, 0),
  ("var", "d30", "h200:8", SPLIT, TRAIN, None, 3),
)
# Of each family the largest published models, on each kind of machine that does
# not stand above. The data of some cannot be had: of videos, recordings,
# spectra, pictures of words and prompts one example is read.
NODES, ONE = (
  ("h100:64", "v5e:8x8", "v5p:4x4x4"),
  ("h100:8", "v5e:2x4", "v5p:2x2x2"),
)
LARGEST = (
  ("igpt", "xl", NODES, SPLIT),  # pixel
  ("igpt", "l", NODES, SPLIT),
  ("pixelcnn", "paper_plus", ONE, COPY),
  ("token_shuffle", "paper", NODES, SPLIT),  # token
  ("elm", "2b", NODES, SPLIT),
  ("llamagen", "3b", NODES[1:], SPLIT),
  ("speakervid", "paper", NODES, SPLIT),  # block
  ("sdar", "8b", ONE, SPLIT),
  ("xar", "h", NODES[1:], SPLIT),
  ("dd1", "llamagen_l", ONE, COPY),  # speculation
  ("dd1", "var_d24", ONE, SPLIT),
  ("cspd", "paper", NODES, SPLIT),
  ("lbw", "paper", ONE, COPY),  # safety
  ("infinity", "20b", NODES, SPLIT),  # scale
  ("infinity", "8b", NODES, SPLIT),
  ("mar", "h", NODES, SPLIT),  # masked
  ("hi_mar", "h", NODES, SPLIT),
  ("flowar", "h", NODES, SPLIT),
  ("transition_matching", "llm", NODES, SPLIT),  # flow
  ("transition_matching", "paper", NODES, SPLIT),
  ("arflow", "xl", ONE, SPLIT),
  ("arig", "paper", ONE, COPY),  # series
  ("riganything", "paper", ONE, COPY),  # skeleton
  ("video_fsq", "paper", ONE, COPY),  # tokenizers
  ("bitwise", "paper", ONE, COPY),
  ("vq", "paper", ONE, COPY),
  ("semaim", "h", NODES, SPLIT),  # encoders
  ("vit", "paper", ONE, COPY),
)
JOBS += tuple(
  (config, preset, machine, mesh, TRAIN, None, 0)
  for config, preset, kinds, mesh in LARGEST
  for machine in kinds
)

Job = tuple[str, str, str, str, str, int | None, int]


def key(job: Job) -> str:
  name, preset, topology, mesh, program, batch, _ = job
  return f"{name}:{preset} {topology} {mesh} {program} {batch or ''}".strip()


def run_job(job: Job) -> dict[str, Any]:
  """The row of a job."""
  name, preset, topology, mesh, program, batch, more = job
  config = importlib.import_module(f"configs.{name}").get_config(preset)
  machine, _ = machines.parse(topology)
  devices = machines.devices(topology)
  sizes = {"data": 1, "fsdp": 1, "tensor": 1, **MESHES[mesh]}
  compile_at = functools.partial(
    aot.compile_row, config, machine, devices, sizes, program
  )
  published = config.batch if program == TRAIN else config.sample.batch
  row = compile_at(batch or published)
  if more:
    unit = parallel.ways(parallel.make_mesh(sizes, devices))
    row["largest batch"] = search.largest(compile_at, row, unit, more)
  return row


def kept() -> dict[str, dict[str, Any]]:
  """Key of a job -> its row, of those compiled so far."""
  lines = KEEP.read_text().splitlines() if KEEP.exists() else []
  return {row["job"]: row for row in map(json.loads, lines)}


def short(job: Job, row: dict[str, Any]) -> dict[str, str]:
  """A row for people."""
  name, preset, topology, mesh, program, *_ = job
  asked = row["FLOPs analytic"]
  rate = row.get("examples/s")
  return {
    "model": f"{name} {preset}",
    "program": program,
    "machine": topology,
    "mesh": mesh,
    "batch": row["batch"],
    "fits": show.fits(row),
    "largest batch": show.limit(row),
    "arguments": show.size(row.get("arguments", row["state bytes"])),
    "temporaries": show.size(row.get("temporaries")),
    "FLOPs": show.amount(row.get("FLOPs", asked)),
    "of the analytic": f"{row['FLOPs'] / asked:.4f}" if "FLOPs" in row else "-",
    "HBM": show.size(row.get("HBM bytes")),
    "sent": show.size(row.get("sent bytes")),
    "roofline": show.seconds(row.get("roofline seconds")),
    "bound": row.get("bound", "-"),
    "examples/s": show.amount(rate),
    "compiled in": show.seconds(row["compile seconds"]),
    "of a core": show.seconds(row.get("CPU seconds here")),
    "memory here": f"{row['peak GiB here']:.1f} GiB",
  }


def details(job: Job, row: dict[str, Any]) -> dict[str, str]:
  """The times and collectives of a row."""
  second = lambda part: show.seconds(row.get("seconds", {}).get(part))
  kinds = row.get("collective bytes")
  return {
    "job": key(job),
    "parameters": show.amount(row["parameters"]),
    "frozen": show.amount(row["frozen parameters"]),
    "compute": second("compute"),
    "HBM": second("HBM"),
    "interconnect": second("interconnect"),
    "FLOPs a byte": show.amount(row.get("intensity")),
    "collectives of a device": "-"
    if kinds is None
    else ", ".join(f"{k} {show.size(n)}" for k, n in kinds.items()) or "none",
  }


def facts() -> list[dict[str, str]]:
  """The machines as the predictions take them."""
  return [
    {
      "machine": m.name,
      "bf16": show.amount(m.rates["bf16"], "FLOP/s"),
      "float32, by default": show.amount(m.rates["f32"], "FLOP/s"),
      "float32, in full": show.amount(m.rates["f32 in full"], "FLOP/s"),
      "memory for a program": show.size(m.memory),
      "its rate": show.amount(m.memory_rate, "B/s"),
      "sends to neighbours": show.amount(m.link, "B/s"),
      "sends to other nodes": show.amount(m.node_link, "B/s"),
      "source": m.source,
    }
    for m in machines.MACHINES.values()
    if m.name != "cpu"
  ]


def picture(rows: dict[str, dict[str, Any]]) -> None:
  """Predicted times of the programs that fit, by what takes them."""
  from matplotlib.figure import Figure

  timed = {k: r["seconds"] for k, r in rows.items() if "seconds" in r}
  figure = Figure((9, 1 + 0.35 * len(timed)), layout="constrained")
  axes = figure.subplots()
  names = list(timed)[::-1]
  for part, colour in (
    ("compute", "tab:blue"),
    ("HBM", "tab:orange"),
    ("interconnect", "tab:green"),
  ):
    axes.plot(
      [timed[n][part] for n in names], names, "o", color=colour, label=part
    )
  axes.set_xscale("log")
  axes.set_xlabel("seconds of a call, at the peak of each")
  axes.grid(axis="y", alpha=0.3)
  axes.legend()
  figure.savefig(record.RESULTS / "plan.png", dpi=110)


def render(seconds: float) -> None:
  """Writes what was compiled so far."""
  rows = kept()
  done = [job for job in JOBS if key(job) in rows]
  of = {key(job): rows[key(job)] for job in done}
  ratios = [
    r["FLOPs"] / r["FLOPs analytic"] for r in of.values() if "FLOPs" in r
  ]
  picture(of)
  tables = {
    "Predicted": [short(job, of[key(job)]) for job in done],
    "Where the time goes": [
      details(job, of[key(job)]) for job in done if "seconds" in of[key(job)]
    ],
    "Machines": facts(),
  }
  off = max(abs(x - 1) for x in ratios)
  record.write(
    "plan",
    claim="A config tells before a machine is rented whether its programs fit "
    "and how fast they can be; the work that XLA compiles is within 3 % of "
    "the analytic count.",
    paper="none",
    baseline="the analytic count from the jaxpr",
    ours=f"{len(done)} of {len(JOBS)} programs compiled; FLOPs within "
    f"{100 * off:.2g} % of the analytic count, of "
    f"{len(ratios)} programs that fit",
    holds=off < 0.03
    if len(done) == len(JOBS)
    else f"{len(JOBS) - len(done)} programs not compiled yet",
    seeds=[],
    seconds=seconds + sum(r["seconds here"] for r in of.values()),
    tables=tables,
    picture="plan.png",
  )
  report.main()


def main(only: str = "", listed: bool = False, rendered: bool = False) -> None:
  jax.config.update("jax_platforms", "cpu")
  logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
  if record.trial():
    row = run_job(SHORT)
    print(show.table([row], key(SHORT)), flush=True)
    return
  begun, done = time.perf_counter(), kept()
  for job in JOBS:
    if listed:
      print(key(job), "done" if key(job) in done else "")
    if listed or rendered or only not in key(job) or key(job) in done:
      continue
    start, spent = time.perf_counter(), time.process_time()
    row = run_job(job)
    row |= {
      "job": key(job),
      "commit": record.commit(),
      "seconds here": round(time.perf_counter() - start, 1),
      "CPU seconds here": round(time.process_time() - spent, 1),
      "peak GiB here": round(record.peak_memory(), 2),
    }
    with KEEP.open("a") as file:
      print(json.dumps(row), file=file, flush=True)
    print(show.table([row], key(job)), flush=True)
  if not listed:
    render(time.perf_counter() - begun)


if __name__ == "__main__":
  flags = dict(x.removeprefix("--").partition("=")[::2] for x in sys.argv[1:])
  main(flags.get("only", ""), "list" in flags, "render" in flags)
