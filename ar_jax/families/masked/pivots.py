"""Hi-MAR's encoder and decoder (arXiv 2505.20288): one net for two phases, the
units of a small image first and then those of the whole one.

Both phases have the slots of both images, small ones first, with tables of
their own; in the first none of the whole image is visible, in the second all
of the small one are, as pivots. What is visible is gathered and masked as in
`families.masked.net`.

Shapes: B batch, Ls and Ld units of the small and of the whole image, L = Ls +
Ld, S gathered rows, P rows of the prefix, C channels, D width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding.steps import fold
from ar_jax.nn.layers.norms import LayerNorm
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class Pivoted(nn.Module):
  """The net of both phases.

  Attributes:
    small: Ls.
    dense: Ld.
    channels: C.
    labels: rows of the class table; the last is null.
    width: D.
    prefix: P, how many copies of the class vector come first.
    encoder: the first stack; see `phased.phased_vit`.
    decoder: the second.
    head: the law of a unit of the small image.
    map_head: the law of the whole image; see `map_diffusion`.
  """

  small: int
  dense: int
  channels: int
  labels: int
  width: int
  prefix: int
  encoder: Backbone
  decoder: Backbone
  head: nn.Module
  map_head: nn.Module

  def setup(self):
    init = nn.initializers.normal(0.02)
    xavier = nn.initializers.xavier_uniform()
    dense = lambda: nn.Dense(self.width, kernel_init=xavier)
    slots = self.small + self.dense
    every = 2 * (self.prefix + slots), self.width  # those of phase 0 first
    self.label = nn.Embed(self.labels, self.width, embedding_init=init)
    self.small_latent, self.latent, self.pivot = dense(), dense(), dense()
    self.blank = self.param("blank", init, (self.small, self.channels))
    self.latent_norm = LayerNorm(1e-6)
    self.encoder_slots = self.param("encoder_slots", init, every)
    self.bridge = dense()
    self.hidden = self.param("hidden", init, (2 * slots, self.width))
    self.decoder_slots = self.param("decoder_slots", init, every)
    self.head_slots = self.param("head_slots", init, (slots, self.width))

  def first(
    self,
    label: Array,
    units: Array,
    order: Array,
    known: Array | int,
    *,
    rows: int,
    keys: Array | None = None,
  ) -> Array:
    """Phase 0: hidden states f32[B, Ls, D] of the small image.

    Args:
      label: i32[B].
      units: f32[B, Ls, C]; those that are hidden are not read.
      order: i32[B, Ls], which of them comes when.
      known: how many are visible, i32[].
      rows: S, static; at least `known`.
      keys: Key[B] for dropout, or None.
    """
    at = order[:, :rows]
    x = self.small_latent(jnp.take_along_axis(units, at[..., None], 1))
    return self._states(0, label, x, at, known, keys)[:, : self.small]

  def second(
    self,
    label: Array,
    pivots: Array,
    units: Array,
    order: Array,
    known: Array | int,
    *,
    rows: int,
    keys: Array | None = None,
  ) -> Array:
    """Phase 1: hidden states f32[B, Ld, D] of the whole image.

    Args:
      pivots: f32[B, Ls, D], as `hidden_pivots` and its kin make them.
      label, units, order, known, rows, keys: as in `first`, of the whole
        image.
    """
    b, at = len(order), order[:, :rows]
    x = self.latent(jnp.take_along_axis(units, at[..., None], 1))
    own = jnp.broadcast_to(jnp.arange(self.small)[None], (b, self.small))
    x = jnp.concatenate([pivots, x], 1)
    at = jnp.concatenate([own, self.small + at], 1)
    h = self._states(1, label, x, at, self.small + known, keys)
    return h[:, self.small :]

  def hidden_pivots(self, h: Array) -> Array:
    """f32[B, Ls, D] of the hidden states of phase 0."""
    return self.pivot(h)

  def token_pivots(self, units: Array) -> Array:
    """f32[B, Ls, D] of the units themselves, f32[B, Ls, C]."""
    return self.small_latent(units)

  def blank_pivots(self) -> Array:
    """f32[1, Ls, D], which say nothing."""
    return self.small_latent(self.blank)[None]

  def _states(self, phase, label, x, at, known, keys):
    """f32[B, L, D] by rows [B, S, D] that lie at i32[B, S] of L, of which the
    first `known` are visible."""
    late = None
    if keys is not None:
      keys, late = (fold(keys, i) for i in range(2))
    h = self.encode(phase, label, x, at, known, keys)
    return self.decode(phase, h, at, known, late)

  def encode(self, phase, label, x, at, known, keys=None) -> Array:
    """f32[B, P + S, D]: the prefix and the rows; arguments as in `_states`."""
    (b, rows), p = at.shape, self.prefix
    cond = jnp.broadcast_to(self.label(label)[:, None], (b, p, self.width))
    x = jnp.concatenate([cond, x], 1)
    prefix = jnp.broadcast_to(jnp.arange(p)[None], (b, p))
    slots = jnp.concatenate([prefix, p + at], 1)
    slots = slots + phase * (len(self.encoder_slots) // 2)
    x = self.latent_norm(x + jnp.take(self.encoder_slots, slots, axis=0))
    visible = jnp.arange(p + rows)[None, None, None] < p + known
    mask = jnp.broadcast_to(visible, (1, 1, p + rows, p + rows))
    cond = self.encoder.condition(phase)
    return self.encoder(x, mask, cond=cond, keys=keys)[0]

  def decode(self, phase, h, at, known, keys=None) -> Array:
    """f32[B, L, D] of what `encode` returned."""
    (b, rows), p = at.shape, self.prefix
    h, slots = self.bridge(h), self.small + self.dense
    hidden = self.hidden[phase * slots :][:slots].astype(h.dtype)
    x = jnp.broadcast_to(hidden[None], (b, slots, self.width))
    # A row that is not visible goes nowhere.
    place = jnp.where((jnp.arange(rows) < known)[None], at, slots)
    x = x.at[jnp.arange(b)[:, None], place].set(h[:, p:], mode="drop")
    x = jnp.concatenate([h[:, :p], x], 1)
    own = self.decoder_slots[phase * (p + slots) :][: p + slots]
    cond = self.decoder.condition(phase)
    x, _ = self.decoder(x + own[None], cond=cond, keys=keys)
    return x[:, p:] + self.head_slots[None]
