"""What a process asks of a CPU before its first computation: memory that stays
with it, and convolutions by the library that is the faster one.

Where an accelerator computes neither is done: its buffers are its own, and its
compiler may not know the flags of a CPU.
"""

from __future__ import annotations

import ctypes
import glob
import os
import sys

import jax

# The numbers of mallopt(3), and what is asked of each: no buffer of its own
# mapping, nothing given back, 256 MiB at a time, one heap for all threads.
_ASKED = {-4: 0, -1: -1, -2: 1 << 28, -8: 1}
_BY_HAND = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
# Where Linux shows the GPUs of NVIDIA and AMD, and TPUs.
_ACCELERATORS = ("nvidia[0-9]*", "kfd", "accel*", "vfio/[0-9]*")
# What XLA hands to YNNPACK on a CPU. Of its own accord it does so with single
# products and single convolutions.
_LIBRARY = "--xla_cpu_experimental_ynn_fusion_type"
_PRODUCTS_ALONE = f"{_LIBRARY}=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
# Versions of jax that were seen to have that flag. XLA ends a process whose
# environment has one that it does not know.
_KNOWN = ((0, 10), (0, 13))


def _accelerated() -> bool:
  """Whether JAX will take another device than the CPU, asked before it looks
  for itself, which must wait for the other processes of a run."""
  return os.environ.get("JAX_PLATFORMS") != "cpu" and any(
    glob.glob(f"/dev/{name}") for name in _ACCELERATORS
  )


def keep_memory() -> bool:
  """What is freed stays with the process, which holds from then on as much as
  it has needed at most.

  On a CPU every call of a compiled program asks for its buffers anew. glibc
  takes large ones from the system and gives them back at once, and each page
  that is touched again is a fault: of updates of small nets that can be a third
  of the time, see docs/measurements/heap.md. To be called before threads are
  started, each of which would have a heap of its own.

  Returns:
    Whether it was done: not beside an accelerator, whose host has many threads;
    not where the C library is another one than glibc; nor where a person has
    chosen in the environment (`MALLOC_*`, `GLIBC_TUNABLES`, or an allocator by
    `LD_PRELOAD`).
  """
  if sys.platform != "linux" or any(k.startswith(_BY_HAND) for k in os.environ):
    return False
  if _accelerated():
    return False
  library = ctypes.CDLL(None)
  if not hasattr(library, "gnu_get_libc_version"):
    return False
  return all([library.mallopt(*pair) for pair in _ASKED.items()])


def quick_convolutions() -> bool:
  """Convolutions are Eigen's, which XLA takes where YNNPACK is not to.

  YNNPACK's need up to three times as long, with their gradients up to six, see
  docs/measurements/convolutions.md. To be called before the first compilation,
  when XLA reads its flags.

  Returns:
    Whether it was done: not beside an accelerator; not with a jax that may not
    know the flag; nor where `XLA_FLAGS` already has it.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  least, end = _KNOWN
  if _accelerated() or _LIBRARY in flags:
    return False
  if not least <= jax.__version_info__ < end:
    return False
  os.environ["XLA_FLAGS"] = f"{flags} {_PRODUCTS_ALONE}".strip()
  return True
