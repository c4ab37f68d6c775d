"""The command line: flags, devices, dispatch.

python -m ar_jax.main --config=configs/foo.py[:preset] [--workdir=DIR]
  [--mode=train|sample|eval|compile] [--config.train.steps=100 ...]
  [--coordinator=HOST:PORT --num_processes=N --process_id=I]
  compile: --topology=v5e:4x4|v5p:4x4x4|v6e:8x8|h100:8|h200:16|cpu:8
    [--sweep] [--nolimit]
"""

from __future__ import annotations

import logging
import os
import pathlib
import shutil
import sys
import time
from typing import NoReturn

import jax
import ml_collections
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from ar_jax import aot, evaluate, launch, metrics, sample, train
from ar_jax.core import processes
from ar_jax.core.system import UserError

log = logging.getLogger("ar_jax")

MODES = {
  "train": train.run,
  "sample": sample.run,
  "eval": evaluate.run,
  "compile": aot.run,
}

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "What to run: configs/NAME.py[:PRESET]."
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Where the run lives; default runs/<name of the config>."
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  "",
  "HOST:PORT of process 0, where a run has several; auto: ask the cluster.",
)
_PROCESSES = flags.DEFINE_integer(
  "num_processes", 0, "How many processes there are; 1: alone."
)
_PROCESS = flags.DEFINE_integer(
  "process_id", -1, "Which of them this one is, from 0."
)
_TIMEOUT = flags.DEFINE_integer(
  "join_timeout", 300, "Seconds to wait for the other processes."
)
_HEARTBEAT = flags.DEFINE_integer(
  "heartbeat", 100, "After how many silent seconds a process counts as dead."
)
_MODE = flags.DEFINE_enum("mode", "train", list(MODES), "What to do.")
_TOPOLOGY = flags.DEFINE_string(
  "topology", None, "What to compile for: v5e:4x4, v5p:4x4x4, h100:8, cpu:8 ..."
)
_SWEEP = flags.DEFINE_bool(
  "sweep", False, "Compile on several meshes and batches, and name the best."
)
_LIMIT = flags.DEFINE_bool(
  "limit", True, "Compile on other batches, too, to find the largest that fits."
)


def run(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  mode: str = "train",
  **options,
) -> dict:
  """Runs one mode of a config, or all its stages in order.

  A config with `stages` (names, in order) holds a config under each of these
  names. A stage that trains lives in `workdir/name`; one with `of = "name"`
  samples or evaluates that stage. Where `weights` names an earlier stage it
  means that stage's folder. Afterwards `workdir/report.json` holds every
  result, and the pictures lie beside it.

  Args:
    config: what to run.
    workdir: where.
    mode: one of `MODES`.
    **options: of mode compile, see `aot.run`; it compiles every stage that
      trains.

  Returns:
    The results; with stages, the contents of `report.json`.
  """
  workdir = pathlib.Path(workdir)
  if not config.get("stages"):
    return MODES[mode](config, workdir, **options)
  metrics.make_folder(workdir)
  started = time.perf_counter()
  report: dict = {"stages": {}}
  for name in config.stages:
    of, does = config[name].get("of"), config[name].get("mode", "train")
    if mode not in ("train", does) and (mode, does) != ("compile", "train"):
      continue
    stage = config[of or name].copy_and_resolve_references()
    for collection, source in stage.weights.items():
      if source in config.stages:
        stage.weights[collection] = str(workdir / source)
    log.info("stage %s: %s", name, does)
    if mode == "compile":
      result = aot.run(stage, workdir / name, **options)
    elif does == "train":
      result = train.run(stage, workdir / name)
    else:
      result = MODES[does](stage, workdir / of, workdir / name)
      if not processes.leads():
        continue
      for file in (workdir / name).glob("samples.*"):
        shutil.copyfile(file, workdir / file.name)
    report["stages"][name] = result
    if does == "eval":
      report |= {k: v for k, v in result.items() if k != "weights"}
  report["seconds"] = round(time.perf_counter() - started, 2)
  if mode != "compile":  # nothing was run
    metrics.write_json(workdir / "report.json", report)
  return report


def cache_folder() -> pathlib.Path:
  """Where compiled programs and judges are kept between runs."""
  default = pathlib.Path.home() / ".cache" / "ar_jax"
  return pathlib.Path(os.environ.get("AR_JAX_CACHE", default))


def set_up_log() -> None:
  """Our lines go to stderr; those of the libraries only from warnings up."""
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
  log.addHandler(handler)
  log.setLevel(logging.INFO if jax.process_index() == 0 else logging.WARNING)
  log.propagate = False
  absl_logging.set_verbosity(absl_logging.WARNING)


def set_up_devices() -> None:
  """The persistent compilation cache."""
  jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def join_processes() -> None:
  """The other processes of the run, where the flags or a cluster say so."""
  launch.join(
    _COORDINATOR.value,
    _PROCESSES.value,
    _PROCESS.value,
    timeout=_TIMEOUT.value,
    heartbeat=_HEARTBEAT.value,
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
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]}; options begin with --")
  named = _CONFIG.value is not None
  file = flags.FLAGS["config"].config_filename.split(":")[0] if named else None
  if not file or not pathlib.Path(file).is_file():
    sys.exit(
      f"ar_jax: --config={file or ''}: no such file; in the repository's root "
      "say --config=configs/quickstart.py, for example"
    )
  set_up_devices()
  options = {}
  try:
    if _MODE.value == "compile":
      options = {
        "topology": _TOPOLOGY.value,
        "sweep": _SWEEP.value,
        "limit": _LIMIT.value,
      }
      aot.set_up(_TOPOLOGY.value or "")
    else:
      join_processes()
  except UserError as e:
    fail(str(e))
  set_up_log()
  default = pathlib.Path("runs") / pathlib.Path(file).stem
  workdir = pathlib.Path(_WORKDIR.value or default)
  try:
    run(_CONFIG.value, workdir, _MODE.value, **options)
  except UserError as e:
    fail(str(e))
  except OSError as e:
    fail(
      f"{e.filename or workdir}: {e.strerror or e}; free space or mend the "
      "disk and run the same command again: it resumes"
    )
  except KeyboardInterrupt:
    fail("interrupted; the same command continues the run")
  except jax.errors.JaxRuntimeError as e:
    if jax.process_count() == 1:
      raise
    fail(
      f"process {jax.process_index()} of {jax.process_count()}: "
      f"{str(e).splitlines()[0][:200]}; another one may be gone: start all of "
      "them again, and the run resumes"
    )


def parse(argv: list[str]) -> list[str]:
  """Flags, with one line in place of a traceback for what is misspelt."""
  try:
    return flags.FLAGS(argv)
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
    text = str(e.args[0] if e.args else e).replace("\\n", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # A config that raises is quoted with its traceback: the end says it.
    shown = lines[-1:] if "Traceback" in text else lines
    sys.exit("ar_jax: " + " ".join(shown).replace("\\'", "'").strip("'"))


if __name__ == "__main__":
  app.run(main, flags_parser=parse)
