"""The codebooks that are really looked up, by name."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pallas_kernels.nearest_code import gpu, reference, tpu, xla

FORMS = {
  "reference": reference.nearest_code,
  "xla": xla.nearest_code,
  "tpu": tpu.nearest_code,
  "gpu": gpu.nearest_code,
}

# name -> (tokens, codes, features)
SHAPES = {
  "var_last_scale": (64 * 256, 4096, 32),
  "var_first_scale": (64, 4096, 32),
  "llamagen": (64 * 256, 16384, 8),
  "titok": (64 * 32, 4096, 12),
  "maskgit_vqgan": (16 * 256, 1024, 256),
  "odd": (1000, 16387, 8),
}


def cases(
  impl: str,
) -> dict[str, tuple[Callable, tuple[jax.ShapeDtypeStruct, ...]]]:
  """name -> (function, its abstract arguments), for a form of the lookup."""
  f32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  return {
    name: (FORMS[impl], (f32(tokens, width), f32(codes, width)))
    for name, (tokens, codes, width) in SHAPES.items()
    if impl in FORMS
    if impl != "gpu" or not gpu.refusal(width)
  }
