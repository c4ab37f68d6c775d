"""The command line: flags, devices, dispatch.

python -m ar_jax.main --config=NAME[:PRESET] [--workdir=DIR]
  [--mode=train|sample|eval|compile] [--config.train.steps=100 ...]
  [--coordinator=HOST:PORT --num_processes=N --process_id=I]
  compile: --topology=v5e:4x4|v5p:4x4x4|v6e:8x8|h100:8|h200:16|cpu:8
    [--sweep] [--nolimit]

--help and --list say more; see cli.py.
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

import jax
import ml_collections
from absl import app
from absl import logging as absl_logging

from ar_jax import (
  aot,
  cpu,
  evaluate,
  launch,
  metrics,
  run_files,
  sample,
  train,
)
from ar_jax.command import checks, cli
from ar_jax.command.cli import parse
from ar_jax.core import processes
from ar_jax.core.system import UserError

log = logging.getLogger("ar_jax")

MODES = {
  "train": train.run,
  "sample": sample.run,
  "eval": evaluate.run,
  "compile": aot.run,
}
assert tuple(MODES) == cli.MODES


def run(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  mode: str = "train",
  notes: Sequence[str] = (),
  **options,
) -> dict:
  """Runs one mode of a config, or all its stages in order.

  A config with `stages` (names, in order) holds a config under each of these
  names. A stage that trains lives in `workdir/name`; one with `of = "name"`
  samples or evaluates that stage. Where `weights` names an earlier stage it
  means that stage's folder. Afterwards `workdir/report.json` holds every
  result, those of earlier calls among them, and the pictures lie beside it.

  All that can be checked is checked before the first stage begins.

  Args:
    config: what to run.
    workdir: where.
    mode: one of `MODES`.
    notes: lines on how the config came about, said once it is found good.
    **options: of mode compile, see `aot.run`; it compiles every stage that
      trains.

  Returns:
    The results; with stages, the contents of `report.json`.

  Raises:
    UserError: something is wrong that a person can mend.
  """
  workdir = pathlib.Path(workdir).expanduser()
  stages = stages_of(config, workdir, mode)
  checks.ahead(stages)
  for note in notes:
    log.info("%s", note)
  if mode == "train":
    metrics.make_folder(workdir)
    run_files.write_config(workdir, config)
  if not config.get("stages"):
    return MODES[mode](stages[0].config, workdir, **options)
  metrics.make_folder(workdir)
  started = time.perf_counter()
  report = earlier(workdir / "report.json")
  for stage in stages:
    log.info("stage %s: %s", stage.name, stage.does)
    if stage.does in ("train", "compile"):
      result = MODES[stage.does](stage.config, stage.workdir, **options)
    else:
      result = MODES[stage.does](stage.config, stage.workdir, stage.out)
      if not processes.leads():
        continue
      for file in stage.out.glob("samples.*"):
        shutil.copyfile(file, workdir / file.name)
    report["stages"][stage.name] = result
    if stage.does == "eval":
      report |= {k: v for k, v in result.items() if k != "weights"}
  if mode == "train":
    report["seconds"] = round(time.perf_counter() - started, 2)
  if mode != "compile":  # nothing was run
    metrics.write_json(workdir / "report.json", report)
  return report


def stages_of(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, mode: str
) -> list[checks.Stage]:
  """The stages that a mode goes through, each with a config of its own.

  Raises:
    UserError: there is none.
  """
  own = lambda c: c.copy_and_resolve_references()
  if not config.get("stages"):
    return [checks.Stage("", mode, own(config), workdir, workdir)]
  found = []
  for name in config.stages:
    of, does = config[name].get("of"), config[name].get("mode", "train")
    if mode not in ("train", does) and (mode, does) != ("compile", "train"):
      continue
    stage = own(config[of or name])
    for collection, source in stage.weights.items():
      if source in config.stages:
        stage.weights[collection] = str(workdir / source)
    does = "compile" if mode == "compile" else does
    found.append(
      checks.Stage(name, does, stage, workdir / (of or name), workdir / name)
    )
  if not found:
    raise UserError(
      f"--mode={mode}: this config has no such stage, only "
      f"{', '.join(config.stages)}"
    )
  return found


def earlier(path: pathlib.Path) -> dict:
  """The report of earlier calls, to which results are added."""
  try:
    report = json.loads(path.read_text())
  except (OSError, ValueError):
    report = {}
  return {"stages": {}} | report


def cache_folder() -> pathlib.Path:
  """Where compiled programs and judges are kept between runs."""
  default = pathlib.Path.home() / ".cache" / "ar_jax"
  return pathlib.Path(os.environ.get("AR_JAX_CACHE", default))


def set_up_log() -> None:
  """Our lines go to stderr; those of the libraries only from warnings up."""
  for earlier_one in log.handlers[:]:
    log.removeHandler(earlier_one)
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
  log.addHandler(handler)
  log.setLevel(logging.INFO if jax.process_index() == 0 else logging.WARNING)
  log.propagate = False
  absl_logging.set_verbosity(absl_logging.WARNING)


def _of_a_missing_backend(record: logging.LogRecord) -> bool:
  return "Unable to initialize backend" not in record.getMessage()


def set_up_devices() -> None:
  """The persistent compilation cache; no line for every accelerator that this
  machine does not have; and what is asked of a CPU, see `cpu`."""
  cpu.keep_memory()
  cpu.quick_convolutions()
  backends = logging.getLogger("jax._src.xla_bridge")
  backends.addFilter(_of_a_missing_backend)
  jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
  least = "jax_persistent_cache_min_compile_time_secs"
  if least.upper() not in os.environ:  # where JAX has read it itself
    jax.config.update(least, 0.1)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def join_processes() -> None:
  """The other processes of the run, where the flags or a cluster say so."""
  launch.join(
    cli.COORDINATOR.value,
    cli.PROCESSES.value,
    cli.PROCESS.value,
    timeout=cli.TIMEOUT.value,
    heartbeat=cli.HEARTBEAT.value,
  )


def fail(text: str) -> NoReturn:
  """Ends the process with one line and exit code 1."""
  line = f"ar_jax: {text}"
  if jax.distributed.is_initialized():
    # An orderly exit would wait for the others, who may wait for us.
    sys.stdout.flush()
    print(line, file=sys.stderr, flush=True)
    os._exit(1)
  sys.exit(line)


def main(argv: list[str]) -> None:
  del argv  # `cli.parse` has seen it
  options, mode, workdir = {}, cli.MODE.value, pathlib.Path("runs")
  try:
    config, name, notes = cli.config()
    workdir = cli.workdir(name)
    set_up_devices()
    if mode == "compile":
      options = {
        "topology": cli.TOPOLOGY.value,
        "sweep": cli.SWEEP.value,
        "limit": cli.LIMIT.value,
      }
      aot.set_up(cli.TOPOLOGY.value or "")
    else:
      join_processes()
    set_up_log()
    result = run(config, workdir, mode, notes, **options)
  except UserError as e:
    fail(" ".join(str(e).split()))
  except OSError as e:
    fail(
      f"{e.filename or workdir}: {e.strerror or e}; free space or mend the "
      "disk and run the same command again: it resumes"
    )
  except KeyboardInterrupt:
    fail("interrupted; the same command continues the run")
  except jax.errors.JaxRuntimeError as e:
    first = str(e).splitlines()[0][:200]
    if "RESOURCE_EXHAUSTED" in first:
      fail(
        f"the memory of the device is too small ({first}); lower batch or "
        "sample.batch, set model.remat=full or spread it by mesh.fsdp; "
        "--mode=compile tells what fits"
      )
    if jax.process_count() == 1:
      raise
    fail(
      f"process {jax.process_index()} of {jax.process_count()}: {first}; "
      "another one may be gone: start all of them again, and the run resumes"
    )
  if mode == "train" and processes.leads():
    print(closing(config, workdir, result), flush=True)


def closing(config, workdir: pathlib.Path, result: dict) -> str:
  """The last line of a training run: what there is now, and where."""
  if config.get("stages"):
    line = f"done: {workdir}/report.json"
    return line + (
      f", {workdir}/samples.png" if (workdir / "samples.png").exists() else ""
    )
  loss = result.get("loss")
  said = f", loss {loss:.4g}" if isinstance(loss, float) else ""
  return f"done: step {result.get('step', 0)}{said}: {workdir}"


if __name__ == "__main__":
  app.run(main, flags_parser=parse)
