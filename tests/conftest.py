"""The strict mode of the suite, set before JAX starts."""

import os
import pathlib

# The suite is written for the CPU; a device run names its platform itself.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiled programs are kept between runs and shared by the workers.
_CACHE = pathlib.Path(
  os.environ.setdefault(
    "AR_JAX_CACHE", str(pathlib.Path.home() / ".cache" / "ar_jax")
  )
)

import jax  # noqa: E402

jax.config.update("jax_compilation_cache_dir", str(_CACHE / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
jax.config.update("jax_numpy_rank_promotion", "raise")
