"""Mode compile: what a config needs on machines that need not be attached.

  python -m ar_jax.main --config=configs/var.py:d30 --mode=compile
    --topology=v5e:16x16 [--sweep]

`train_step` and `sample` are compiled by the compiler of the machine, so that
memory, work and collectives are those of the program that would run there;
`planning` reads them off, and holds them against the machine's data sheet.
"""

from __future__ import annotations

import functools
import logging
import os
import pathlib
import resource
import time
from typing import Any

import jax
import ml_collections

from ar_jax import metrics, parallel
from ar_jax.core.system import UserError
from ar_jax.planning import machines, search
from ar_jax.planning.chart import draw
from ar_jax.planning.figures import figures
from ar_jax.planning.programs import programs
from ar_jax.planning.show import sweep_table, table

Config = ml_collections.ConfigDict
log = logging.getLogger("ar_jax")


def set_up(topology: str) -> None:
  """Keeps this process off the accelerators: they are compiled for only.

  To be called before JAX has looked for devices.

  Raises:
    UserError: there is no such topology.
  """
  machine, sides = machines.parse(topology)
  jax.config.update("jax_platforms", "cpu")
  if machine.name == "cpu" and "JAX_NUM_CPU_DEVICES" not in os.environ:
    jax.config.update("jax_num_cpu_devices", sides[0])


def run(
  config: Config,
  workdir: str | pathlib.Path,
  topology: str | None = None,
  sweep: bool = False,
  only: tuple[str, ...] = ("train_step", "sample"),
  limit: bool = True,
) -> dict[str, Any]:
  """Compiles the programs of a config for a topology.

  Prints a table, and writes `compile.json` and, where matplotlib is installed,
  `compile.png` into the workdir.

  Args:
    config: of a system, not of stages.
    workdir: of the run; nothing in it is read.
    topology: KIND:SHAPE, see `planning.machines.parse`.
    sweep: also compile the training step on other meshes and with other
      batches, and say which of them is best.
    only: the kinds of programs to compile.
    limit: whether to look for the largest batch that fits; of a CPU, which
      only tries the plan itself out, it would mean nothing.

  Returns:
    What `compile.json` holds.

  Raises:
    UserError: an unknown topology, or what it takes is not installed.
  """
  if not topology:
    raise UserError(
      "--mode=compile: say for what, for example --topology=v5e:4x4, h100:8 "
      "or cpu:8"
    )
  start = time.perf_counter()
  machine, _ = machines.parse(topology)
  devices = machines.devices(topology)
  workdir = metrics.make_folder(workdir)
  sizes = config.mesh.to_dict()
  batches = {"train_step": config.batch, "sample": config.sample.batch}
  known = programs(config, parallel.make_mesh(sizes, devices))
  rows = []
  for name in [k for kind in only for k in known if k.split()[0] == kind]:
    kind = name.split()[0]
    compile_at = functools.partial(
      compile_row, config, machine, devices, sizes, name
    )
    row = compile_at(batches[kind])
    if limit and machine.name != "cpu":  # whose memory no program fills
      mesh = parallel.make_mesh(sizes, devices)
      unit = parallel.ways(mesh)
      if kind == "train_step":
        unit *= config.train.accumulate
      row["largest batch"] = search.largest(compile_at, row, unit)
    rows.append(row)
  report = {
    "topology": topology,
    "devices": len(devices),
    "system": config.system,
    "programs": rows,
    "machine": {
      "memory": machine.memory,
      "FLOP/s": machine.rates,
      "memory bytes/s": machine.memory_rate,
      "link bytes/s": machine.link,
      "between nodes bytes/s": machine.node_link,
      "source": machine.source,
    },
    "jax": jax.__version__,
  }
  print(table(rows, topology))
  if sweep:
    report["sweep"] = search.sweep(
      lambda sizes, batch: compile_row(
        config, machine, devices, sizes, "train_step", batch
      ),
      parallel.meshes(len(devices), machine.node or len(devices)),
      [config.batch // 2, config.batch, 2 * config.batch],
    )
    print(sweep_table(report["sweep"]))
  report["seconds"] = round(time.perf_counter() - start, 1)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  report["peak memory here"] = peak * 1024
  metrics.write_json(workdir / "compile.json", report)
  draw(report, workdir / "compile.png")
  print(
    f"{report['seconds']} s and {peak / 2**20:.1f} GiB here; "
    f"written to {workdir}/compile.json"
  )
  return report


def compile_row(config, machine, devices, sizes, name, batch) -> dict:
  """One row; see `planning.figures`."""
  mesh = parallel.make_mesh(sizes, devices)
  program = programs(config, mesh)[name](batch)
  log.info(
    "%s, batch %d on %s %s", name, program.batch, machine.name,
    "x".join(f"{axis}={n}" for axis, n in mesh.shape.items()),
  )  # fmt: skip
  row = figures(program, machine, mesh)
  log.info(
    "  %s, %.1f s", "fits" if row["fits"] else "does not fit",
    row["compile seconds"],
  )  # fmt: skip
  return row
