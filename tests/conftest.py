"""The strict mode of the suite, set before JAX starts."""

import ctypes
import gc
import os
import pathlib
import sys

# The suite is written for the CPU; a device run names its platform itself.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiled programs are kept between runs and shared by the workers.
_CACHE = pathlib.Path(
  os.environ.setdefault(
    "AR_JAX_CACHE", str(pathlib.Path.home() / ".cache" / "ar_jax")
  )
)
# The processes that tests start compile a hundred small programs each; those
# of one serve the next.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax  # noqa: E402
import pytest  # noqa: E402

from ar_jax import cpu  # noqa: E402
from tests.cpu_report import (  # noqa: E402, F401
  pytest_runtest_logreport,
  pytest_runtest_makereport,
  pytest_terminal_summary,
)

# Nearly all of the time is spent in compiling programs that run for
# milliseconds, so they are compiled the quickest way: without optimisation,
# each as one module (more of them are for more threads than a worker has), and
# with short vectors, whose code is shorter.
_QUICK = (
  "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
  " --xla_cpu_parallel_codegen_split_count=1"
  " --xla_cpu_prefer_vector_width=128"
)
if jax.__version_info__ < (0, 11):  # later ones do not know this flag
  _QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{_QUICK} {os.environ.get('XLA_FLAGS', '')}"

cpu.quick_convolutions()  # as every command does

jax.config.update("jax_compilation_cache_dir", str(_CACHE / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Where an operation was called from, frame by frame, is for those who read
# compiled programs; nobody does here.
jax.config.update("jax_include_full_tracebacks_in_locations", False)


# A Linux process may hold 65530 memory maps, and every compiled program takes
# some of them: a worker that kept those of all modules would die.
_MAPS, _MEGABYTES = 30_000, 2_000


def pytest_collection_finish():
  """Tracing makes millions of short-lived objects; with Python's own
  thresholds 7 % of a profile of the contract went into looking for cycles in
  what is imported and in what caches hold."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(100_000, 20, 20)


def _crowded() -> bool:
  try:
    # A command that ran in this process has made it keep what it frees.
    ctypes.CDLL(None).malloc_trim(0)
    maps = pathlib.Path("/proc/self/maps").read_bytes().count(b"\n")
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  except (OSError, AttributeError):  # not Linux with glibc
    return True
  return maps > _MAPS or pages * os.sysconf("SC_PAGE_SIZE") > _MEGABYTES << 20


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
  """Programs of earlier modules serve later ones, while there is room."""
  yield
  if _crowded():
    jax.clear_caches()
    if "tests.smoke" in sys.modules:
      sys.modules["tests.smoke"].case.cache_clear()
    gc.collect()
