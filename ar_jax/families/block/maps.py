"""How maps of latents are shown in training: as a context with noise, and as a
target with some of its tokens hidden.

Shapes: B batch, C maps, n tokens of a map, p numbers of a token.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def blurred(units: Array, keys: Array, maps: int, most: float) -> Array:
  """Maps f32[B, C n, p] with normal noise, of each map of a size of its own,
  even from 0 to `most`: what is read, never what is predicted."""

  def one(key, x):
    size, draw = jax.random.split(key)
    sigma = most * jax.random.uniform(size, (maps, 1, 1))
    more = jax.random.normal(draw, (maps, x.shape[0] // maps, x.shape[1]))
    return x + (sigma * more).reshape(x.shape)

  return jax.vmap(one)(keys, units)


def shown(keys: Array, maps: int, tokens: int) -> Array:
  """bool[B, C, n]: the tokens of each map that training shows: in a random
  order a share cos(u pi / 2) of them, u even in [0, 1), but not all (MaskGIT,
  arXiv 2202.04200, as MAR's sampler reveals them)."""

  def one(key):
    order, share = jax.random.split(key)
    chance = jax.random.uniform(order, (maps, tokens))
    rank = jnp.argsort(jnp.argsort(chance, -1), -1)
    u = jax.random.uniform(share, (maps, 1))
    count = jnp.floor(tokens * jnp.cos(0.5 * jnp.pi * u))
    return rank < jnp.minimum(count, tokens - 1)

  return jax.vmap(one)(keys)
