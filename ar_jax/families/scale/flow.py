"""The transformer of FlowAR: one map of continuous units per step, in two
stacks that both see all steps so far.

Shapes: B batch, L slots, T slots of one map, C latent channels, D width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding.steps import fold
from ar_jax.core.plans.plan import Plan
from ar_jax.nn.heads.flow import Flow
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.norms import RMSNorm
from ar_jax.nn.layers.positions import rope_scales
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array
Condition = tuple[tuple, tuple]  # what the two stacks need of the label


class ScaleFlow(nn.Module):
  """The transformer over the maps of one image.

  Attributes:
    plan: the maps.
    sides: of the maps.
    labels: rows of the class table; the last is null.
    width: D.
    encoder: the first stack.
    decoder: the second.
    head: the law of the units of one map.
  """

  plan: Plan
  sides: tuple[int, ...]
  labels: int
  width: int
  encoder: Backbone
  decoder: Backbone
  head: Flow

  def setup(self):
    init = nn.initializers.normal(0.02)
    xavier = nn.initializers.xavier_uniform()
    slots = lambda name: self.param(name, init, (len(self.plan), self.width))
    self.label = nn.Embed(self.labels, self.width, embedding_init=init)
    self.latent = nn.Dense(self.width, kernel_init=xavier)
    self.latent_norm = RMSNorm(1e-6)
    self.encoder_slots = slots("encoder_slots")
    self.bridge = nn.Dense(self.width, kernel_init=xavier)
    self.decoder_slots = slots("decoder_slots")
    self.head_slots = slots("head_slots")

  def places(self, span: slice = slice(None), *, head: bool = False) -> Array:
    """Turns f32[T, K / 2, 2] of slots, for the stacks or for the head."""
    if head:
      net = self.head.net
      features = net.width // (net.heads or net.width // 64)
    else:
      features = self.encoder.head_width(self.width)
    # The published grid is 16 cells wide, whatever the finest map.
    return np.asarray(rope_scales(self.sides, features)[span])

  def begin(self, label: Array) -> tuple[Array, Condition]:
    """The first slot [B, 1, D] and what the stacks need of label i32[B]."""
    cond = self.label(label)
    both = self.encoder.condition(cond), self.decoder.condition(cond)
    return cond[:, None], both

  def __call__(
    self, label: Array, inputs: Array, keys: Array | None = None
  ) -> Array:
    """Hidden states f32[B, L, D] of all slots, for training.

    Args:
      label: i32[B]. inputs: f32[B, L - 1, C]: the input of each map but the
      first, made of the one
        before.
      keys: Key[B] for dropout, or None.
    """
    first, cond = self.begin(label)
    x = jnp.concatenate([first, self.latent(inputs)], axis=1)
    return self._run(x, cond, slice(None), self.plan, (None, None), keys)[0]

  def step(
    self, s: int, x: Array, cond: Condition, cache: tuple[Cache, Cache]
  ) -> tuple[Array, tuple[Cache, Cache]]:
    """Hidden states [B, T, D] of map s for its input [B, T, D]."""
    return self._run(x, cond, self.plan.span(s), None, cache, None)

  def cache(self, batch: int) -> tuple[Cache, Cache]:
    """Empty caches of both stacks for all slots."""
    make = lambda stack: stack.cache(batch, len(self.plan), self.width)
    return make(self.encoder), make(self.decoder)

  def _run(self, x, cond, span, mask, cache, keys):
    own = [None if keys is None else fold(keys, i) for i in range(2)]
    pos = self.places(span)
    x = self.latent_norm(x + self.encoder_slots[None, span])
    x, first = self.encoder(
      x, mask, pos=pos, cond=cond[0], cache=cache[0], keys=own[0]
    )
    x = self.bridge(x) + self.decoder_slots[None, span]
    x, second = self.decoder(
      x, mask, pos=pos, cond=cond[1], cache=cache[1], keys=own[1]
    )
    return x + self.head_slots[None, span], (first, second)
