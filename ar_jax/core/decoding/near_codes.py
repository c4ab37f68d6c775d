"""Which units are alike: what relaxed rules of verification ask for.

Shapes: V units, d channels of what is known of each: codes or embeddings; B
batch, K drafts, S = K + 1 rows of their laws.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def distances(codes: Array, rows: Array | None = None) -> Array:
  """Squared distances f32[R, V] of rows f32[R, d] to codes f32[V, d]."""
  codes = codes.astype(jnp.float32)
  rows = codes if rows is None else rows.astype(jnp.float32)
  square = lambda x: jnp.sum(jnp.square(x), -1)
  dots = jnp.einsum(
    "rd,vd->rv", rows, codes, precision=jax.lax.Precision.HIGHEST
  )
  return jnp.maximum(square(rows)[:, None] + square(codes)[None] - 2 * dots, 0)


def order(codes: Array) -> Array:
  """i32[V, V]: every unit itself, then all others from near to far.

  Equal codes are ordered by their index.
  """
  own = jnp.eye(len(codes), dtype=bool)
  far = jnp.where(own, -1.0, distances(codes))
  return jnp.argsort(far, axis=1).astype(jnp.int32)


def ranks(codes: Array) -> Array:
  """i32[V, V]: at [x, v] which neighbour of x unit v is, 0 where v is x."""
  return jnp.argsort(order(codes), axis=1).astype(jnp.int32)


def counts(codes: Array, distance: Array | float) -> Array:
  """i32[V]: how many others lie within a squared distance of each unit."""
  near = jnp.sum(distances(codes) <= distance, 1, dtype=jnp.int32)
  return near - 1


def quantile(codes: Array, share: float, rows: int = 256) -> Array:
  """f32[]: the squared distance within which a share of all pairs lies, as
  about `rows` units spread over the vocabulary see it."""
  some = codes[:: max(1, len(codes) // rows)]
  return jnp.quantile(distances(codes, some), share)


def partition(codes: Array, size: int) -> Array:
  """i32[V]: groups of at most `size` units that are alike.

  Blocks are halved across the channel in which they are widest until they are
  small enough: groups of equal size, but for the last ones where V is no
  power of two times `size`.
  """
  vocab, channels = codes.shape
  levels = max(0, (-(-vocab // size) - 1).bit_length())
  room = size << levels
  units = jnp.arange(room).reshape(1, -1)
  # Places without a unit are sorted to the end.
  codes = jnp.pad(codes.astype(jnp.float32), ((0, room - vocab), (0, 0)))
  for _ in range(levels):
    block, real = codes[units], (units < vocab)[..., None]
    high = jnp.max(jnp.where(real, block, -jnp.inf), 1)
    low = jnp.min(jnp.where(real, block, jnp.inf), 1)
    widest = jnp.argmax(jnp.where(high >= low, high - low, 0), -1)
    along = jnp.take_along_axis(block, widest[:, None, None], 2)[..., 0]
    along = jnp.where(real[..., 0], along, jnp.inf)
    units = jnp.take_along_axis(units, jnp.argsort(along, 1), 1)
    units = units.reshape(2 * len(units), -1)
  group = jnp.zeros(room, jnp.int32)
  group = group.at[units].set(
    jnp.broadcast_to(
      jnp.arange(len(units), dtype=jnp.int32)[:, None], units.shape
    )
  )
  return group[:vocab]


def relaxed(
  logp: Array, drafts: Array, parents: Array, *, nearest: Array, delta: float
) -> Array:
  """The law that takes near codes for the drafted ones, for whole trees.

  Draft after draft, the mass of its nearest codes moves onto it, the nearest
  first and whole codes only, until the row has spent its budget. One draw
  from what results accepts as judging the children of a row one after the
  other does (LANTERN with the residual of the budget), and it is within a
  total variation of delta of the law for any number of children.

  Args:
    logp: f32[B, S, V], the law of every row.
    drafts: i32[B, K].
    parents: i32[B, K], their rows.
    nearest: i32[V, k], the nearest codes of each.
    delta: the budget.

  Returns:
    f32[B, S, V], log-probabilities.
  """
  batch, rows = jnp.arange(len(drafts)), logp.shape[1]

  def move(j, state):
    rest, held, spent = state
    row, unit = parents[:, j], drafts[:, j]
    near = nearest[unit]
    mass = rest[batch[:, None], row[:, None], near]
    fits = jnp.cumsum(mass, 1) <= (delta - spent[batch, row])[:, None]
    moved = jnp.sum(jnp.where(fits, mass, 0), 1)
    # Drafted codes are out of reach of those that come after them.
    own = rest[batch, row, unit] + moved
    rest = rest.at[batch[:, None], row[:, None], near].multiply(1.0 - fits)
    rest = rest.at[batch, row, unit].set(0.0)
    held = held.at[batch, row, unit].add(own)
    return rest, held, spent.at[batch, row].add(moved)

  p = jnp.exp(logp)
  start = p, jnp.zeros_like(p), jnp.zeros((len(drafts), rows))
  rest, held, _ = jax.lax.fori_loop(0, drafts.shape[1], move, start)
  return jnp.log(rest + held)
