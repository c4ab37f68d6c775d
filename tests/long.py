"""Programs that run for long. Most tests compile for longer than they run, so
`conftest` has XLA do the least; a test that trains asks for the most here."""

from __future__ import annotations

import jax

_MOST = {
  "xla_backend_optimization_level": "3",
  "xla_llvm_disable_expensive_passes": "False",
  "xla_cpu_prefer_vector_width": "256",
}
if jax.__version_info__ < (0, 11):  # later ones do not know this flag
  _MOST["xla_cpu_use_fusion_emitters"] = "True"


def jit(function, **options):
  """`jax.jit`, with all that XLA knows of making programs fast."""
  return jax.jit(function, compiler_options=_MOST, **options)
