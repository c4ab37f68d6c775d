"""Runs that start in a moment: forks of a process that has imported all.

Importing JAX and the rest takes seconds of work, more than the runs do that
the tests of faults kill. So one process imports them, starts no backend, and
forks a child for every run. A child is what `python -m ar_jax.main` is.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import mmap
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
PHASES = ("compile", "step", "save", "evaluate")


class Forks:
  """The parent of the runs, to be used in a `with`."""

  def __enter__(self) -> Forks:
    self._server = subprocess.Popen(
      [sys.executable, "-m", "tests.forks"],
      cwd=ROOT,
      env={**os.environ, "JAX_PLATFORMS": "cpu"},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    return self

  def __exit__(self, *_):
    self._server.stdin.close()
    self._server.wait()

  def ask(self, **request):
    self._server.stdin.write(json.dumps(request) + "\n")
    self._server.stdin.flush()
    return json.loads(self._server.stdout.readline())

  def start(self, log: pathlib.Path, call: str, *args, **options) -> Child:
    """Calls "module:function" of args in a child.

    Args:
      log: a file for stdout and stderr.
      call: what to call.
      *args: its arguments, JSON.
      **options: `devices`, how many the CPU is to have; `file_size`, the
        limit of a file in bytes; `phases`, a file to tell phases in; `env`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    pid = self.ask(log=str(log), call=call, args=args, **options)
    return Child(self, pid, log)

  def command(self, log: pathlib.Path, *argv: str, **options) -> Child:
    """`python -m ar_jax.main` with these arguments."""
    return self.start(log, "tests.forks:command", argv, **options)


@dataclasses.dataclass(frozen=True)
class Child:
  forks: Forks
  pid: int
  log: pathlib.Path

  def send(self, what: signal.Signals) -> None:
    os.kill(self.pid, what)

  def poll(self) -> int | None:
    """The exit code, negative after a signal; None while it runs."""
    return self.forks.ask(poll=self.pid)

  def wait(self, seconds: float = 300) -> int:
    end = time.monotonic() + seconds
    while (code := self.poll()) is None:
      if time.monotonic() > end:
        self.send(signal.SIGKILL)
        raise AssertionError(f"{self.text()[-3000:]}\nstill runs")
      time.sleep(0.03)
    return code

  def kill(self) -> None:
    self.send(signal.SIGKILL)
    self.wait()

  def text(self) -> str:
    return self.log.read_text()


class Phases:
  """How often each phase was entered, in a file shared with the child."""

  def __init__(self, path: pathlib.Path):
    if not path.exists():
      path.write_bytes(bytes(len(PHASES)))
    with path.open("r+b") as file:
      self._counts = mmap.mmap(file.fileno(), len(PHASES))

  def enter(self, phase: str) -> None:
    i = PHASES.index(phase)
    self._counts[i] = (self._counts[i] + 1) % 256

  def count(self, phase: str) -> int:
    return self._counts[PHASES.index(phase)]


def free_port() -> int:
  with socket.socket() as s:
    s.bind(("localhost", 0))
    return s.getsockname()[1]


def _mark(path: str) -> None:
  """Has the functions of the phases tell when they are entered."""
  from ar_jax import checkpoint, evaluate, metrics, train

  phases = Phases(pathlib.Path(path))

  def marked(place, name, phase):
    function = getattr(place, name)

    def call(*args, **kwargs):
      phases.enter(phase)
      return function(*args, **kwargs)

    setattr(place, name, call)

  marked(train, "build", "compile")
  marked(metrics.Writer, "advance", "step")
  marked(checkpoint.Checkpoints, "save", "save")
  marked(evaluate, "evaluate", "evaluate")


def command(argv: list[str]) -> None:
  """The command line."""
  from absl import app

  from ar_jax import main

  sys.argv = ["ar_jax", *argv]  # where overrides are looked for
  app.run(main.main, flags_parser=main.parse)


def _become(request: dict) -> None:
  """What a child does."""
  import ctypes

  import jax

  die_with_parent = 1  # PR_SET_PDEATHSIG
  ctypes.CDLL(None).prctl(die_with_parent, signal.SIGKILL)
  log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
  if "file_size" in request:  # which is not for the log
    writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log)
    log = writer.stdin.fileno()
  for stream in (1, 2):
    os.dup2(log, stream)
  os.environ.update(request.get("env", {}))
  if devices := request.get("devices"):
    jax.config.update("jax_num_cpu_devices", devices)
  if size := request.get("file_size"):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
  if path := request.get("phases"):
    _mark(path)
  module, function = request["call"].split(":")
  getattr(importlib.import_module(module), function)(*request["args"])


def serve() -> None:
  import gc
  import logging
  import warnings

  for name in ("grain", "orbax.checkpoint", "tensorboardX", "ar_jax.main"):
    importlib.import_module(name)
  for name in ("likelihood", "images.frechet", "images.reconstruction"):
    importlib.import_module(f"ar_jax.evals.{name}")
  importlib.import_module("configs.var")
  importlib.import_module("ar_jax.systems.var")
  sys.modules["ar_jax.systems.toy"] = importlib.import_module("tests.toy")
  warnings.filterwarnings("ignore", "os.fork")  # no backend has started yet
  logging.getLogger().handlers.clear()
  gc.freeze()
  gc.set_threshold(100_000, 20, 20)  # as conftest has it
  codes: dict[int, int] = {}
  out = sys.stdout
  for line in sys.stdin:
    request = json.loads(line)
    if "poll" in request:
      pid = request["poll"]
      if pid not in codes:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
          codes[pid] = os.waitstatus_to_exitcode(status)
      print(json.dumps(codes.get(pid)), file=out, flush=True)
      continue
    pid = os.fork()
    if not pid:
      return _become(request)
    print(pid, file=out, flush=True)


if __name__ == "__main__":
  serve()
