"""A transformer of one unit a step that looks at retrieved neighbours.

Shapes: B batch, L units, m of a chunk, c chunks that are complete, k neighbours
of one, r units of a neighbour, V codes, D width, P places.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.families.token.readers import Embed
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.stacks.retro import RetroStack

Array = jax.Array


class RetroNet(nn.Module):
  """The net. Units and neighbours have one table, and one of places; every
  neighbour begins at place 0.

  Attributes:
    length: L.
    units: the table of codes.
    width: D.
    stack: the decoder.
    places: P, at least L and r.
    head: of the codes; None for the table of codes, transposed.
    stddev: initial standard deviation of places and start.
  """

  length: int
  units: Embed
  width: int
  stack: RetroStack
  places: int
  head: Categorical | None = None
  stddev: float = 0.02

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    self.place = self.param("place", init, (self.places, self.width))
    self.start = self.param("start", init, (1, self.width))

  def logits(
    self,
    units: Array,
    neighbours: Array | None,
    seen: Array | None,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, L, V] of each unit behind those before it.

    Args:
      units: i32[B, L].
      neighbours: i32[B, c, k, r], of the complete ones of L - 1 units; None
        for none.
      seen: bool[B, c, k], which are there.
      keys: Key[B] for dropout, or None.
    """
    start = jnp.broadcast_to(self.start[None], (len(units), 1, self.width))
    x = jnp.concatenate([start, self.units(units[:, :-1])], 1)
    return self._logits(x, neighbours, seen, lead=1, keys=keys)

  def plain_logits(
    self,
    units: Array,
    neighbours: Array | None,
    seen: Array | None = None,
    first: int | None = None,
  ) -> Array:
    """f32[B, T, V] of what follows each of T units, with nothing before them:
    as published. See `RetroStack` for `first`."""
    return self._logits(self.units(units), neighbours, seen, first=first)

  def _logits(self, x, neighbours, seen, **options) -> Array:
    x = x + self.place[None, : x.shape[1]]
    e = None if neighbours is None else self.neighbour_states(neighbours)
    return self.read(self.stack(x, e, seen, **options))

  def neighbour_states(self, neighbours: Array) -> Array:
    """Embeddings [..., r, D] of neighbours i32[..., r]."""
    place = self.place[: neighbours.shape[-1]]
    e = self.units(neighbours)
    return e + place.reshape((1,) * (e.ndim - 2) + place.shape)

  def read(self, h: Array) -> Array:
    """Logits f32[B, T, V] of h [B, T, D]."""
    if self.head is not None:
      return self.head.logits(h)
    return h @ self.units.embedding.T

  # One unit after the other; see `RetroStack`.

  def ask(self, units: Array, row: Array, caches: tuple) -> tuple:
    """Row 0 is the start, row s behind unit s - 1, i32[B]."""
    x = jnp.where(row == 0, self.start, self.units(units))
    return self.stack.ask((x + self.place[row][None])[:, None], caches)

  def remember(self, neighbours: Array, chunk: Array) -> tuple:
    """Of neighbours i32[B, k, r]."""
    return self.stack.remember(self.neighbour_states(neighbours), chunk)

  def answer(self, *state) -> tuple:
    """(logits f32[B, V], caches)."""
    h, caches = self.stack.answer(*state)
    return self.read(h)[:, 0], caches
