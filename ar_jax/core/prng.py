"""Random keys for initial weights: hashed counters.

An init draws each array with a key of its own. JAX's generators spend dozens of
operations on a draw, which takes long to compile; this one spends twelve
(`experiments.benchmarks.init`). Its numbers are functions of key and index
alone, so that weights begin alike on every platform and mesh, which JAX does
not promise of those of `rbg`. It is good enough for weights, not meant for
sampling, where keys stay JAX's own.

The mixer is lowbias32, found by Wellons' hash prospector: a bijection of 32
bits in which a flipped bit of the input flips every bit of the output about
every other time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as extend

Array = jax.Array

_UINTS = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}
# What a key is xored with, so that its uses do not meet: the golden ratio and
# the square root of 2, in binary.
_SPLIT, _FOLD = np.uint32(0x9E3779B9), np.uint32(0x6A09E667)


def _mix(x: Array) -> Array:
  x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
  return x ^ (x >> np.uint32(16))


def _pair(key: Array, counter: Array) -> Array:
  """A new key, u32[..., 2], for each u32 counter; each word has its own.

  The counters are hashed first: those of Flax are constants, which XLA folds.
  """
  words = jnp.stack([2 * counter, 2 * counter + np.uint32(1)], axis=-1)
  return _mix(_mix(words) + key.reshape((1,) * counter.ndim + (2,)))


def _indices(shape: Sequence[int]) -> Array:
  """u32 of the shape, row-major indices, of parts that a mesh can split."""
  index = jnp.zeros(shape, jnp.uint32)
  for axis in range(len(shape)):
    stride = np.uint32(math.prod(shape[axis + 1 :]) % 2**32)
    index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
  return index


def _seed(seed: Array) -> Array:
  return _pair(np.zeros(2, np.uint32), seed.astype(jnp.uint32))


def _split(key: Array, shape: Sequence[int]) -> Array:
  return _pair(key ^ _SPLIT, _indices(shape))


def _fold_in(key: Array, data: Array) -> Array:
  return _pair(key ^ _FOLD, data.astype(jnp.uint32))


def _random_bits(key: Array, width: int, shape: Sequence[int]) -> Array:
  if width == 64:
    high, low = (
      _random_bits(k, 32, shape).astype(jnp.uint64) for k in _split(key, (2,))
    )
    return (high << np.uint64(32)) | low
  return _mix(_mix(_indices(shape) ^ key[0]) + key[1]).astype(_UINTS[width])


HASHED = extend.define_prng_impl(
  key_shape=(2,),
  seed=_seed,
  split=_split,
  random_bits=_random_bits,
  fold_in=_fold_in,
  name="hashed",
  tag="hsh",
)


def key(seed: int | Array) -> Array:
  """A typed key of this generator; all of `jax.random` takes it."""
  return jax.random.key(seed, impl=HASHED)
