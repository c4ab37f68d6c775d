"""Several processes as one run, from flags, the environment or the cluster.

On a machine with several hosts the same command is started on each. They meet
at the coordinator, which is the first of them, and see the devices of all.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

import jax

from ar_jax.core.system import UserError

# What the launchers that JAX knows say of the number of processes.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def join(
  coordinator: str = "",
  num_processes: int = 0,
  process_id: int = -1,
  *,
  timeout: int = 300,
  heartbeat: int = 100,
) -> None:
  """Makes this process one of several, where several were started.

  What is not given is taken from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES
  and JAX_PROCESS_ID, and else, under SLURM, Open MPI and on TPU slices that
  name their hosts in the environment, from there.

  Args:
    coordinator: host:port of process 0, or "auto": everything from the cluster.
    num_processes: how many there are; 1 is alone, whatever the cluster says.
    process_id: which this one is, from 0.
    timeout: seconds to wait for the others.
    heartbeat: after how many seconds without a sign a process counts as dead.

  Raises:
    UserError: they do not fit together, or do not come together in time.
  """
  given = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS", "")
  count = num_processes or _number("JAX_NUM_PROCESSES", 0)
  which = process_id if process_id >= 0 else _number("JAX_PROCESS_ID", -1)
  if count == 1:
    return
  if not given and (count or which >= 0):
    raise UserError(
      f"num_processes={count}, process_id={which}: no coordinator; say "
      "--coordinator=HOST:PORT, the address of process 0, or =auto in a cluster"
    )
  if not given and not _several():
    return
  if given in ("", "auto"):
    _initialize("coordinator=auto", {}, timeout, heartbeat)
  else:
    _check(given, count, which)
    if which:
      _reach(given, timeout)
    found = dict(
      coordinator_address=given, num_processes=count, process_id=which
    )
    name = f"coordinator={given}, process {which} of {count}"
    _initialize(name, found, timeout, heartbeat)
  if count and jax.process_count() != count:
    raise UserError(
      f"num_processes={count}: the accelerator has {jax.process_count()}; say "
      "the same or leave it out"
    )


def _number(name: str, default: int) -> int:
  text = os.environ.get(name, "")
  if text and not text.isdigit():
    raise UserError(f"{name}={text}: is not a number")
  return int(text or default)


def _several() -> bool:
  """Whether the environment says that more than one process was started."""
  hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
  return "," in hosts or any(_number(name, 1) > 1 for name in _COUNTS)


def _check(coordinator: str, count: int, which: int) -> None:
  port = coordinator.rpartition(":")[2]
  if ":" not in coordinator or not port.isdigit():
    raise UserError(f"coordinator={coordinator}: is not HOST:PORT")
  if count < 1 or not 0 <= which < count:
    raise UserError(
      f"num_processes={count}, process_id={which}: with a coordinator both are "
      "needed, and ids go from 0 to num_processes - 1"
    )


def _reach(coordinator: str, timeout: int) -> None:
  """Waits until the coordinator listens; XLA would end us without a word."""
  host, _, port = coordinator.rpartition(":")
  end = time.monotonic() + timeout
  while True:
    try:
      socket.create_connection((host.strip("[]"), int(port)), 5).close()
      return
    except OSError as e:
      why = e.strerror or e
    if time.monotonic() > end:
      raise UserError(
        f"coordinator={coordinator}: cannot be reached in {timeout} s ({why}); "
        "is process 0 running there, and the port open?"
      )
    time.sleep(0.2)


def _initialize(name: str, found: dict, timeout: int, heartbeat: int) -> None:
  advice = (
    "start every one with the same coordinator and number, each with its own id"
  )

  def give_up():  # before XLA does, which aborts with a stack of its own
    print(
      f"ar_jax: {name}: the others did not come together with this one in "
      f"{timeout} s; {advice}",
      file=sys.stderr,
      flush=True,
    )
    os._exit(1)

  late = threading.Timer(timeout, give_up)
  late.daemon = True
  late.start()
  try:
    jax.distributed.initialize(
      initialization_timeout=timeout + 60,
      heartbeat_timeout_seconds=heartbeat,
      **found,
    )
  except (RuntimeError, ValueError, TypeError, OSError) as e:
    text = str(e).strip().splitlines()
    if not found and isinstance(e, ValueError):
      text = ["no SLURM, Open MPI, TPU or Kubernetes is found here"]
    raise UserError(
      f"{name}: the processes did not come together "
      f"({text[0][:200] if text else type(e).__name__}); {advice}"
    ) from e
  finally:
    late.cancel()
