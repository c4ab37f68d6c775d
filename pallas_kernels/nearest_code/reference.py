"""Nearest row of a codebook, by the whole matrix of distances."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def check(z: Array, codebook: Array) -> tuple[Array, Array]:
  """Both in float32.

  Raises:
    ValueError: widths differ, or there is no code.
  """
  if codebook.ndim != 2 or not codebook.size:
    raise ValueError(f"codebook has shape {codebook.shape}; wanted [V, d]")
  if z.shape[-1:] != codebook.shape[1:]:
    raise ValueError(
      f"z has shape {z.shape}, codebook {codebook.shape}: widths differ"
    )
  return z.astype(jnp.float32), codebook.astype(jnp.float32)


def nearest_code(z: Array, codebook: Array) -> Array:
  """Index of the nearest row of a codebook, the lowest where codes tie.

  Nearest is by |e|^2 / 2 - z.e, which is (|z - e|^2 - |z|^2) / 2, with
  float32 products and sums. It writes [..., V] numbers.

  Args:
    z: [..., d].
    codebook: [V, d].

  Returns:
    i32[...].

  Raises:
    ValueError: widths differ, or there is no code.
  """
  z, codebook = check(z, codebook)
  dots = jnp.einsum(
    "...d,vd->...v", z, codebook, precision=jax.lax.Precision.HIGHEST
  )
  norms = 0.5 * jnp.square(codebook).sum(-1)
  score = jnp.expand_dims(norms, range(z.ndim - 1)) - dots
  return jnp.argmin(score, -1).astype(jnp.int32)
