"""JAX's random numbers inside a kernel: threefry bits and Gumbel noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def random_bits(key0: Array, key1: Array, index: Array) -> Array:
  """jax.random.bits of threefry keys (i32[..., 1] twice) at i32[..., V].

  Threefry-2x32 of the counters (0, index), its two halves xor-ed, as JAX
  defines the bits of an array of at most 2^32 numbers.
  """
  keys = (key0, key1, key0 ^ key1 ^ 0x1BD11BDA)
  x, y = jnp.broadcast_to(key0, index.shape), index + key1
  for block in range(5):
    for turn in _ROTATIONS[block % 2]:
      x = x + y
      y = (y << turn) | jax.lax.shift_right_logical(
        y, jnp.full_like(y, 32 - turn)
      )
      y = x ^ y
    x = x + keys[(block + 1) % 3]
    y = y + keys[(block + 2) % 3] + (block + 1)
  return x ^ y


def gumbel(key0: Array, key1: Array, index: Array) -> Array:
  """jax.random.gumbel of threefry keys, from `random_bits`."""
  bits = random_bits(key0, key1, index)
  bits = jax.lax.shift_right_logical(bits, jnp.full_like(bits, 9))
  unit = jax.lax.bitcast_convert_type(bits | 0x3F800000, jnp.float32) - 1.0
  tiny = float(np.finfo(np.float32).tiny)
  return -jnp.log(-jnp.log(jnp.maximum(unit + tiny, tiny)))
