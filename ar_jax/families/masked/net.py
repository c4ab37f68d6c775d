"""MAR's encoder and decoder: what the visible units say about the hidden ones.

Any order of generation: each example has its own, and a unit is visible once
it is among the first `known` of it. The published code drops hidden units
from the encoder; here a fixed number of rows is gathered, in the order of
generation, and those that are not visible yet are masked as keys, which gives
the visible ones the same values at a shape that never changes.

Shapes: B batch, L units, S gathered rows, P rows of the prefix, C channels,
D width.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pairs
from ar_jax.core.decoding.steps import fold
from ar_jax.nn.layers.norms import LayerNorm
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class Masked(nn.Module):
  """An encoder over the visible units and a decoder over all.

  Attributes:
    length: L.
    labels: rows of the class table; the last is null.
    width: D.
    prefix: P, how many copies of the class vector come first.
    encoder: the first stack.
    decoder: the second.
    head: the law of a unit.
  """

  length: int
  labels: int
  width: int
  prefix: int
  encoder: Backbone
  decoder: Backbone
  head: nn.Module

  def setup(self):
    init = nn.initializers.normal(0.02)
    xavier = nn.initializers.xavier_uniform()
    total = self.prefix + self.length
    self.label = nn.Embed(self.labels, self.width, embedding_init=init)
    self.latent = nn.Dense(self.width, kernel_init=xavier)
    self.latent_norm = LayerNorm(1e-6)
    self.encoder_slots = self.param("encoder_slots", init, (total, self.width))
    self.bridge = nn.Dense(self.width, kernel_init=xavier)
    self.hidden = self.param("hidden", init, (self.width,))
    self.decoder_slots = self.param("decoder_slots", init, (total, self.width))
    self.head_slots = self.param("head_slots", init, (self.length, self.width))

  def __call__(
    self,
    label: Array,
    units: Array,
    order: Array,
    known: Array | int,
    *,
    rows: int,
    keys: Array | None = None,
  ) -> Array:
    """Hidden states f32[B, L, D] of all units, by the visible ones.

    Args:
      label: i32[B].
      units: f32[B, L, C]; those that are hidden are not read.
      order: i32[B, L], a permutation: which unit comes when.
      known: how many are visible, i32[].
      rows: S, static; at least `known`.
      keys: Key[B] for dropout, or None.
    """
    if keys is not None:
      keys, late = (fold(keys, i) for i in range(2))
    else:
      late = None
    at = order[:, :rows]
    h = self.encode(label, units, at, known, keys)
    return self.decode(h, at, known, late)

  def encode(
    self,
    label: Array,
    units: Array,
    at: Array,
    known: Array | int,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, P + S, D]: the prefix and the gathered units i32[B, S], of which
    the first `known` are visible; the other rows mean nothing."""
    b, rows = at.shape
    x = self.latent(jnp.take_along_axis(units, at[..., None], axis=1))
    cond = jnp.broadcast_to(
      self.label(label)[:, None], (b, self.prefix, self.width)
    )
    x = jnp.concatenate([cond, x], axis=1)
    prefix = jnp.broadcast_to(jnp.arange(self.prefix)[None], (b, self.prefix))
    slots = jnp.concatenate([prefix, self.prefix + at], axis=1)
    x = self.latent_norm(x + jnp.take(self.encoder_slots, slots, axis=0))
    total = self.prefix + rows
    visible = jnp.arange(total)[None, None, None] < self.prefix + known
    mask = jnp.broadcast_to(visible, (1, 1, total, total))
    return self.encoder(x, mask, keys=keys)[0]

  def decode(
    self, h: Array, at: Array, known: Array | int, keys: Array | None = None
  ) -> Array:
    """f32[B, L, D] of what `encode` returned; other arguments as there."""
    b, rows = at.shape
    h = self.bridge(h)
    total = self.prefix + self.length
    x = jnp.broadcast_to(
      self.hidden.astype(h.dtype)[None, None], (b, total, self.width)
    )
    # A row that is not visible goes nowhere.
    visible = (jnp.arange(rows) < known)[None]
    place = jnp.where(visible, self.prefix + at, total)
    x = x.at[jnp.arange(b)[:, None], place].set(
      h[:, self.prefix :], mode="drop"
    )
    x = x.at[:, : self.prefix].set(h[:, : self.prefix])
    x, _ = self.decoder(x + self.decoder_slots[None], keys=keys)
    return x[:, self.prefix :] + self.head_slots[None]


def states_at(
  net: Masked,
  params: Any,
  label: Array,
  canvas: Array,
  order: Array,
  known: Array | int,
  at: Array,
  rows: int,
) -> tuple[Array, Array | None]:
  """Hidden states f32[B, w, D] of some places, with the class and without.

  Args:
    net: not bound.
    params: of it.
    label: i32[B], or of `pairs` with the null label, i32[2 B].
    canvas: f32[B, L, C].
    order: i32[B, L].
    known: how many are visible, i32[].
    at: i32[B, w], the places.
    rows: S, static; at least `known`.

  Returns:
    Both; the second is None without pairs.
  """
  guided = len(label) > len(canvas)
  pair = lambda x: pairs.double(x, guided)
  h = net.apply(
    {"params": params},
    label,
    pair(canvas),
    pair(order),
    known,
    rows=max(1, rows),
  )
  h = jnp.take_along_axis(h, pair(at)[..., None], axis=1)
  return pairs.split(h) if guided else (h, None)
