"""Orders of the patches of a square image that differ from image to image, and
what each patch then sees (SemAIM, arXiv 2312.10457).

An order is a rank f32[B, L], a number for each patch: smaller is earlier. It is
no permutation but induces one; masks compare the ranks themselves, so of two
patches with one rank neither sees the other. Where ranks could be equal they
have a little noise.

Shapes: B batch, n side of the grid, L = n^2 patches, row by row.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import check_choice

Array = jax.Array

ORDERS = {
  "raster": "row by row",
  "snake": "row by row, every other one backwards",
  "stochastic": "at random",
  "rings": "from the middle outwards, at random within a ring",
  "stochastic_rings": "the same around a random patch",
  "similarity": "the most similar patch first",
  "semantic_rings": "rings around the most similar patch",
  "semantic": "by the distance from the most similar patch",
}
OF_FEATURES = ("similarity", "semantic_rings", "semantic")
JITTER = 1e-3  # of distances


def ranks(
  order: str,
  side: int,
  noise: Array,
  place: Array,
  similarity: Array | None = None,
) -> Array:
  """f32[B, L].

  Args:
    order: of ORDERS.
    side: n.
    noise: f32[B, L], uniform in [0, 1).
    place: f32[B, 2], the same, of the random centre.
    similarity: f32[B, L], of each patch with the image as a whole; for those
      OF_FEATURES.

  Raises:
    UserError: there is no such order.
  """
  check_choice("order", order, ORDERS)
  row, col = np.indices((side, side)).reshape(2, -1)
  if order == "raster":
    return jnp.broadcast_to(jnp.arange(side**2, dtype=jnp.float32), noise.shape)
  if order == "snake":
    back = np.where(row % 2, side - 1 - col, col) + row * side
    return jnp.broadcast_to(jnp.asarray(back, jnp.float32), noise.shape)
  if order == "stochastic":
    return noise
  if order == "similarity":
    return 1 - similarity
  if order == "rings":
    lows = [(side // 2 - w // 2,) * 2 for w in _widths(side)]
    return noise - _inside(lows, side)
  if order == "stochastic_rings":
    centre = jnp.floor(place * (side - 1)).astype(jnp.int32)
    return noise - _inside(_around(centre, side), side)
  best = jnp.argmax(similarity, axis=-1)
  centre = jnp.stack([best // side, best % side], axis=-1)
  if order == "semantic_rings":
    return noise - _inside(_around(centre, side), side)
  down = row[None] - centre[:, :1]
  right = col[None] - centre[:, 1:]
  distance = jnp.sqrt((down**2 + right**2).astype(jnp.float32))
  return distance + JITTER * noise


def _widths(side: int) -> range:
  """Of the squares that bound the rings: 2, 6, 10, ... patches."""
  return range(2, side, 4)


def _around(centre: Array, side: int) -> list[tuple[Array, Array]]:
  """(first row, first column), i32[B, 1] each, of the square of every width
  around centres i32[B, 2]. They leave out the last row and column of the grid,
  and near a border the smallest lies in its corner: so the table of the
  release, of 14 patches a side, which this continues to others."""
  found = []
  for width in _widths(side):
    last = side - 1 - width
    low = jnp.clip(centre - width // 2, 0, last)
    if width == 2:
      edge = side // 7
      low = jnp.where(centre >= side - 1 - edge, last, low)
      low = jnp.where(centre <= edge, 0, low)
    found.append((low[:, :1], low[:, 1:]))
  return found


def _inside(lows, side: int) -> Array:
  """f32[B | 1, L]: in how many of the squares a patch lies."""
  row, col = np.indices((side, side)).reshape(2, 1, -1)
  count = jnp.zeros((1, side**2), jnp.float32)
  for (top, left), width in zip(lows, _widths(side), strict=True):
    rows = (row >= top) & (row < top + width)
    count += rows & (col >= left) & (col < left + width)
  return count


def masks(rank: Array) -> tuple[Array, Array]:
  """What the two streams see, bool[B, 1 + L, 1 + L] of [query, key] each, the
  class token first: it is seen by all and sees itself alone.

  Returns:
    Of the content stream, in which a patch sees itself and those before it;
    and of the query stream, in which it sees those before it.
  """
  later, earlier = rank[:, :, None], rank[:, None, :]

  def whole(sees):
    first = jnp.zeros((len(rank), 1, rank.shape[1]), bool)
    token = jnp.ones((len(rank), rank.shape[1] + 1, 1), bool)
    return jnp.concatenate([token, jnp.concatenate([first, sees], 1)], 2)

  return whole(earlier <= later), whole(earlier < later)


def places(rank: Array) -> Array:
  """i32[B, L]: which patch of the order each is, from 0; the lower index first
  where ranks are equal."""
  return jnp.argsort(jnp.argsort(rank, axis=-1, stable=True), axis=-1)
