"""The random numbers of speculation, which belong to a place.

The draft for place i is drawn with fold(keys, i), and accepted or not with
numbers folded from the same key. Whether place i is reached depends on what
happened before it alone, so drafting it again with the same numbers changes no
law.

Shapes: B examples, K drafts, S = K + 1 rows of one forward, V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick

Array = jax.Array


def draw_at(logp: Array, keys: Array, place: Array) -> Array:
  """Units i32[B, ...] of places i32[B, ...] from laws f32[B, ..., V]: what
  `pick.draw` draws from each law alone, with the key of its place."""
  at = keys_at(keys, place).reshape(-1)
  logp = logp.reshape(len(at), 1, -1)
  return pick.draw(logp, at).reshape(place.shape)


# Beyond any vocabulary: the bits that draw from a law are numbered by unit.
ACCEPT, RESAMPLE, FILL = 2**31, 2**31 + 1, 2**31 + 2


def keys_at(keys: Array, place: Array, use: int | None = None) -> Array:
  """Key[B, ...] of places i32[B, ...], for one use."""
  flat = place.reshape(len(place), -1)
  at = jax.vmap(
    lambda key, places: jax.vmap(lambda place: jax.random.fold_in(key, place))(
      places
    )
  )(keys, flat)
  if use is not None:
    use = jnp.uint32(use)
    at = jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, use)))(at)
  return at.reshape(place.shape)


def noise(
  mode: str, keys: Array, count: Array, rows: int, depth: Array | None
) -> Array:
  """The random numbers of `ops.verify`."""
  depth = jnp.arange(rows)[None] if depth is None else depth
  place = count[:, None] + depth
  if mode == "gumbel":
    return jax.random.key_data(keys_at(keys, place))
  uniform = lambda at: jax.vmap(jax.random.uniform)(at.reshape(-1))
  accept = uniform(keys_at(keys, place, ACCEPT)).reshape(place.shape)
  if mode == "point":
    return accept
  resample = uniform(keys_at(keys, count, RESAMPLE))
  return accept.at[:, -1].set(resample)
