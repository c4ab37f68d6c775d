"""`jit` of programs whose time goes into running them.

`conftest` has all others compiled the quickest way, which makes code that is
several times slower.
"""

import functools

import jax

jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 1}
)
