"""What jax's releases call differently in Mosaic GPU."""

from __future__ import annotations

import inspect
from typing import Any

from jax.experimental.pallas import mosaic_gpu as plgpu

WHOLE = ((),) if "idx" in inspect.signature(plgpu.load).parameters else ()
"""The index of all of a reference: jax 0.10 demands it, 0.12 knows none."""


def interpreter() -> Any:
  """The argument `interpret` of plgpu.kernel that interprets on the CPU."""
  try:
    params = plgpu.InterpretGPUParams
  except AttributeError:  # jax 0.10 has it, but not in its public module
    from jax._src.pallas.mosaic_gpu.interpret import params as private

    params = private.InterpretGPUParams
  return params()
