"""Autoregressive generation in JAX.

`build(name, **kwargs)` makes any system of the library; `main.run(config,
workdir, mode)`, `train.run`, `sample.run` and `evaluate.run` are the command
line as functions.
"""

from ar_jax.core.system import build

__all__ = ["build"]
