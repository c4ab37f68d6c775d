"""SiT (arXiv 2401.08740), and ARFlow's chains of images: the velocity of every
image of a chain, each at its own time.

Shapes: B batch, E images of a chain, n units of each, C channels, D width.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.nn.layers.gated_attention import GatedAttention
from ar_jax.nn.layers.linear import initial
from ar_jax.nn.layers.positions import sine_grid
from ar_jax.nn.layers.times import TimeEmbed
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class Images(nn.Module):
  """Velocities through the whole of a stack.

  Attributes:
    grid: of the units, whose places are fixed sines, the same in every image.
    channels: C.
    width: D.
    backbone: modulated by class and time, see `dit.dit_zero`; its mixer may
      look at the images before.
    labels: rows of the table of classes, the null class among them.
    time_scale: what times in [0, 1] are multiplied by: 1 as published, which
      small networks see too late; see `times.TimeEmbed`.
    sigma: whether the last layer also makes C numbers that nobody reads, as
      the published one does.
  """

  grid: tuple[int, int]
  channels: int
  width: int
  backbone: Backbone
  labels: int
  time_scale: float = 1.0
  sigma: bool = True

  @property
  def chained(self) -> bool:
    """Whether an image sees those before it."""
    return isinstance(self.backbone.block.mixer, GatedAttention)

  @nn.compact
  def __call__(
    self,
    x: Array,
    label: Array,
    t: Array,
    cache: Any = None,
    keys: Array | None = None,
  ) -> tuple[Array, Any]:
    """(f32[B, E, n, C], the cache with these images).

    Args:
      x: f32[B, E, n, C].
      label: i32[B].
      t: f32[B, E].
      cache: of the images before; None for none.
      keys: Key[B] for dropout, or None.
    """
    b, images = x.shape[:2]
    rows = nn.initializers.normal(0.02)
    table = nn.Embed(self.labels, self.width, embedding_init=rows, name="label")
    cond = TimeEmbed(self.width, name="time")(self.time_scale * t)
    cond = cond + table(label)[:, None]
    h = nn.Dense(self.width, kernel_init=initial(None), name="latent")(x)
    h = h + sine_grid(*self.grid, self.width)[None, None]
    h = h.reshape(b, -1, self.width)
    if self.chained:
      h, cache = self.backbone(
        h, pos=cond, cond=self.backbone.condition(cond), cache=cache, keys=keys
      )
    else:  # every image alone
      own = self.backbone.condition(cond.reshape(-1, self.width))
      if keys is not None and images > 1:
        keys = jnp.repeat(keys, images)
      h = h.reshape(b * images, -1, self.width)
      h, _ = self.backbone(h, cond=own, keys=keys)
    outs = (1 + self.sigma) * self.channels
    out = nn.Dense(outs, kernel_init=nn.initializers.zeros, name="out")
    v = out(h)[..., : self.channels]
    return v.reshape(x.shape), cache

  def cache(self, batch: int) -> Any:
    """What is known before the first image; None where nothing ever is."""
    if not self.chained:
      return None
    return self.backbone.cache(batch, 0, self.width)
