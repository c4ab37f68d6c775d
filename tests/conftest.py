"""The strict mode of the suite, set before JAX starts."""

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

import jax  # noqa: E402
import pytest  # noqa: E402

from tests.cpu_report import (  # noqa: E402, F401
  pytest_runtest_logreport,
  pytest_runtest_makereport,
  pytest_terminal_summary,
)

# Nearly all of the time is spent in compiling programs that run for
# milliseconds, so they are compiled the quickest way.
_QUICK = (
  "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
if jax.__version_info__ < (0, 11):  # later ones do not know this flag
  _QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{_QUICK} {os.environ.get('XLA_FLAGS', '')}"

jax.config.update("jax_compilation_cache_dir", str(_CACHE / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
  """Every compiled program takes some of the 65530 memory maps that Linux
  grants a process; a worker that kept those of all modules would die."""
  yield
  jax.clear_caches()
  if "tests.smoke" in sys.modules:
    sys.modules["tests.smoke"].case.cache_clear()
