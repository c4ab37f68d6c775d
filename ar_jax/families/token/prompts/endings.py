"""Texts that end with a code, behind which there is nothing else, and texts
that begin with given units.

Shapes: B batch, L units, M units of a prompt, V codes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ar_jax.core.system import Batch, UserError

Array = jax.Array


def real(units: Array, stop: int | None) -> Array:
  """bool[B, L]: the units up to the first `stop`, itself among them."""
  if stop is None:
    return jnp.ones(units.shape, bool)
  ends = units == stop
  return jnp.cumsum(ends, axis=1) - ends == 0


def closed(logits: Array, units: Array, stop: int | None) -> Array:
  """Logits f32[B, L, V] of units i32[B, L], by which behind a `stop` there is
  `stop` for certain: what fills a text up."""
  if stop is None:
    return logits
  alone = jnp.where(jnp.arange(logits.shape[-1]) == stop, 0.0, -1e9)
  return jnp.where(real(units, stop)[..., None], logits, alone[None, None])


def given(cond: Batch, batch: int, length: int) -> tuple[Array, Array]:
  """What `batch` texts of L units begin with: `prompt` i32[B, M] of a
  condition, and `known` i32[B], how many of these units; M is 0 without.

  Raises:
    UserError: it leaves nothing to draw.
  """
  if "prompt" not in cond:
    none = jnp.zeros((batch, 0), jnp.int32)
    return none, jnp.zeros(batch, jnp.int32)
  prompt, known = jnp.asarray(cond["prompt"]), jnp.asarray(cond["known"])
  if prompt.shape[1] >= length:
    raise UserError(
      f"a prompt of {prompt.shape[1]} units: an example has {length}, so "
      "nothing is left to draw"
    )
  return prompt, known
