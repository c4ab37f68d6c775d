"""The transformer of xAR: flow matching through the whole of it, over parts
of an image, the entities, that appear one after the other.

Shapes: B batch, L slots in the order of the plan, E entities, T slots of one
entity, C latent channels, D width. Times as in `core.flows.flow`: 0 is noise, 1
data.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding.steps import fold
from ar_jax.core.plans.makers import noisy_clean
from ar_jax.core.plans.plan import Plan
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.norms import RMSNorm
from ar_jax.nn.layers.positions import rope_grid
from ar_jax.nn.layers.times import TimeEmbed, thousandths
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array
Caches = tuple[Cache, Cache]


class NextEntity(nn.Module):
  """Two stacks, one behind the other, over the same slots with the same mask.

  Attributes:
    plan: the entities, with `row` and `col`.
    labels: rows of the class table, the null class among them.
    channels: C.
    width: D.
    encoder: the first stack, modulated by entities.
    decoder: the second.
  """

  plan: Plan
  labels: int
  channels: int
  width: int
  encoder: Backbone
  decoder: Backbone

  def setup(self):
    table = nn.initializers.normal(0.02)
    dense = lambda n: nn.Dense(
      n, kernel_init=nn.initializers.xavier_uniform(), dtype=jnp.float32
    )
    self.label = nn.Embed(self.labels, self.width, embedding_init=table)
    self.time = TimeEmbed(self.width, stddev=None)
    self.latent = dense(self.width)
    self.latent_norm = RMSNorm(1e-6)
    shape = (len(self.plan), self.width)
    self.encoder_slots = self.param("encoder_slots", table, shape)
    self.decoder_slots = self.param("decoder_slots", table, shape)
    self.bridge = dense(self.width)
    self.head = dense(self.channels)

  @property
  def even(self) -> bool:
    """Whether all entities have as many slots."""
    return len(set(self.plan.sizes)) == 1

  @property
  def rotations(self) -> np.ndarray:
    """f32[L, K / 2, 2]: rotations by the true place of every slot."""
    features = self.encoder.head_width(self.width)
    return rope_grid(self.plan, features, prefix=0, prefix_rope="identity")

  def condition(self, label: Array, t: Array) -> tuple:
    """What both stacks need of label i32[B] and times f32[B, E], of one
    entity or more: a modulation for each."""
    cond = self.label(label)[:, None] + self.time(thousandths(t))
    return self.encoder.condition(cond), self.decoder.condition(cond)

  def __call__(
    self,
    x: Array,
    label: Array,
    t: Array,
    keys: Array | None = None,
    *,
    context: Array | None = None,
  ) -> Array:
    """Velocities f32[B, L, C] of all entities in one pass, for training.

    Args:
      x: f32[B, L, C], every entity at its own time.
      label: i32[B].
      t: f32[B, E].
      keys: Key[B] for dropout, or None.
      context: f32[B, L, C], without noise: what later entities see in place
        of x, at the price of twice as many slots; None is x itself.
    """
    mask, at = self.plan, np.arange(len(self.plan))
    if context is not None:
      mask, at = noisy_clean(self.plan), np.tile(at, 2)
      x = jnp.concatenate([x, context], axis=1)
      t = jnp.concatenate([t, jnp.ones_like(t)], axis=1)
    if not self.even:  # the stacks know runs of equal length only
      t = t[:, np.repeat(np.arange(t.shape[1]), mask.sizes)]
    places = self.encoder_slots[at], self.decoder_slots[at], self.rotations[at]
    v, _ = self._run(
      x, self.condition(label, t), places, (None, None), mask, keys
    )
    return v[:, : len(self.plan)]

  def step(
    self, start: Array | int, x: Array, label: Array, t: Array, caches: Caches
  ) -> tuple[Array, Caches]:
    """Velocities f32[B, T, C] of one entity that sees itself and the cache.

    Args:
      start: its first slot.
      x: f32[B, T, C].
      label: i32[B].
      t: f32[].
      caches: of the entities before, without noise.

    Returns:
      The velocities, and the caches with this entity as it is: to be kept
      when t = 1, and to be dropped else.
    """
    size = x.shape[1]
    cut = lambda table: jax.lax.dynamic_slice_in_dim(
      jnp.asarray(table), start, size
    )
    places = tuple(
      map(cut, (self.encoder_slots, self.decoder_slots, self.rotations))
    )
    t = jnp.broadcast_to(t, (len(x), 1))
    return self._run(x, self.condition(label, t), places, caches)

  def _run(self, x, cond, places, caches, mask=None, keys=None):
    """(velocities, caches) of x [B, T, C]; `places` are the two tables and
    the rotations of its slots."""
    part = lambda i: None if keys is None else fold(keys, i)
    first, second, rotations = places
    h = self.latent_norm(self.latent(x) + first[None])
    h, one = self.encoder(
      h, mask, pos=rotations, cond=cond[0], cache=caches[0], keys=part(0)
    )
    h = self.bridge(h) + second[None]
    h, two = self.decoder(
      h, mask, pos=rotations, cond=cond[1], cache=caches[1], keys=part(1)
    )
    return self.head(h.astype(jnp.float32)), (one, two)

  def caches(self, batch: int, *, traced: bool) -> Caches:
    """Empty caches for all slots; `traced`: for a loop over entities."""
    index = jnp.zeros((), jnp.int32) if traced else 0
    make = lambda stack: stack.cache(batch, len(self.plan), self.width)
    empty = make(self.encoder), make(self.decoder)
    return tuple(dataclasses.replace(c, index=index) for c in empty)
