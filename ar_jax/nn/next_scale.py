"""The transformer of VAR and its kin: one token map of an image per step.

Shapes: B batch, L slots, T slots of one map, C latent channels, D width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.plan import Plan
from ar_jax.nn.attention import Cache
from ar_jax.nn.heads import Categorical
from ar_jax.nn.positions import SlotEmbed
from ar_jax.nn.transformer import Backbone

Array = jax.Array


class NextScale(nn.Module):
  """The transformer over the maps of one image.

  Attributes:
    plan: the scales.
    labels: rows of the class table, the null class among them.
    width: D.
    stddev: initial standard deviation of the embeddings.
    backbone: the stack.
    head: the law of a unit.
  """

  plan: Plan
  labels: int
  width: int
  stddev: float
  backbone: Backbone
  head: Categorical

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    self.label = nn.Embed(self.labels, self.width, embedding_init=init)
    self.start = self.param("start", init, (self.width,))
    self.latent = nn.Dense(self.width, kernel_init=init)
    self.slots = SlotEmbed(self.plan, self.width, self.stddev)

  def begin(self, label: Array) -> tuple[Array, tuple[Array, Array]]:
    """The first slot [B, 1, D] and what the stack needs of label i32[B]."""
    cond = self.label(label)
    first = cond + self.start[None]
    return first[:, None], self.backbone.condition(cond)

  def __call__(
    self, label: Array, embedding: Array, keys: Array | None = None
  ) -> Array:
    """Hidden states f32[B, L, D] of all slots, for training.

    Args:
      label: i32[B].
      embedding: [B, L, C], the tokenizer's `embed`; the first slot is unused.
      keys: Key[B] for stochastic depth, or None.
    """
    first, cond = self.begin(label)
    x = jnp.concatenate([first, self.latent(embedding[:, 1:])], axis=1)
    x = x + self.slots()[None]
    return self.backbone(x, self.plan, cond=cond, keys=keys)[0]

  def step(
    self, s: int, x: Array, cond: tuple[Array, Array], cache: Cache
  ) -> tuple[Array, Cache]:
    """Hidden states [B, T, D] of scale s for its input [B, T, D]."""
    x = x + self.slots(self.plan.span(s))[None]
    return self.backbone(x, cond=cond, cache=cache)

  def cache(self, batch: int) -> Cache:
    """An empty cache for all slots."""
    return self.backbone.cache(batch, len(self.plan), self.width)
