"""Memory of the host that a process keeps between programs.

On a CPU every call of a compiled program asks for its buffers anew. glibc takes
large ones from the system and gives them back at once, and each page that is
touched again is a fault: of updates of small nets that can be a third of the
time, see docs/measurements/heap.md.
"""

from __future__ import annotations

import ctypes
import glob
import os
import sys

# The numbers of mallopt(3), and what is asked of each: no buffer of its own
# mapping, nothing given back, 256 MiB at a time, one heap for all threads.
_ASKED = {-4: 0, -1: -1, -2: 1 << 28, -8: 1}
_BY_HAND = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
# Where Linux shows the GPUs of NVIDIA and AMD, and TPUs.
_ACCELERATORS = ("nvidia[0-9]*", "kfd", "accel*", "vfio/[0-9]*")


def _accelerated() -> bool:
  """Whether JAX will take another device than the CPU, asked before it looks
  for itself, which must wait for the other processes of a run."""
  return os.environ.get("JAX_PLATFORMS") != "cpu" and any(
    glob.glob(f"/dev/{name}") for name in _ACCELERATORS
  )


def keep() -> bool:
  """What is freed stays with the process, which holds from then on as much as
  it has needed at most.

  To be called before threads are started, each of which would have a heap of
  its own.

  Returns:
    Whether it was done: not beside an accelerator, whose buffers are its own
    and whose host has many threads; not where the C library is another one than
    glibc; nor where a person has chosen in the environment (`MALLOC_*`,
    `GLIBC_TUNABLES`, or an allocator by `LD_PRELOAD`).
  """
  if sys.platform != "linux" or any(k.startswith(_BY_HAND) for k in os.environ):
    return False
  if _accelerated():
    return False
  library = ctypes.CDLL(None)
  if not hasattr(library, "gnu_get_libc_version"):
    return False
  return all([library.mallopt(*pair) for pair in _ASKED.items()])
