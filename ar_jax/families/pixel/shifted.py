"""The network of PixelCNN++ (arXiv 1701.05517): two streams of shifted
convolutions, down through resolutions and up again, and a mixture of logistic
laws for all channels of a pixel.

The weights begin at a scale of 1 (0.1 behind a gate); the published ones are
first scaled by the outputs of one batch.

Shapes: B batch, H W sides, c channels, L = H W pixels, V levels, D width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.families.pixel.net import PixelNet
from ar_jax.nn.heads.density import Logistics
from ar_jax.nn.layers.masked_conv import Shifted, down, right
from ar_jax.nn.stacks.blocks import dropout

Array = jax.Array

DOWN, ASIDE = (2, 3), (2, 2)  # kernels of the two streams


def concat_elu(x: Array) -> Array:
  """ELU of x and of -x, twice as many features."""
  return nn.elu(jnp.concatenate([x, -x], -1))


class Shift(PixelNet):
  """The net.

  Attributes:
    width: D.
    depth: blocks of each resolution.
    resolutions: each half of the one before.
    components: of the mixture.
    dropout: share of features in each block that training drops.
  """

  width: int = 32
  depth: int = 2
  resolutions: int = 2
  components: int = 10
  dropout: float = 0.5
  passes = 1  # the head draws the channels

  def setup(self):
    self.law = Logistics(self.channels, self.components, levels=self.levels)

  @nn.compact
  def __call__(
    self, label: Array | None, units: Array, keys: Array | None = None
  ) -> Array:
    """States f32[B, L, D].

    Args:
      label: i32[B], where there are classes.
      units: i32[B, L, c], the levels; those of a pixel and all behind it do not
        count for it.
      keys: Key[B] for dropout, or None.
    """
    made, d = [], self.width

    def block(x, aside, more=None):
      name = f"block_{len(made)}"
      made.append(name)
      kernel = ASIDE if aside else DOWN
      h = Shifted(d, kernel, aside, name=f"{name}_in")(concat_elu(x))
      if more is not None:
        h += Shifted(d, (1, 1), name=f"{name}_more")(concat_elu(more))
      h = dropout(concat_elu(h), keys, self.dropout, len(made))
      h = Shifted(2 * d, kernel, aside, scale=0.1, name=f"{name}_out")(h)
      h = h + self.of_class(label, 2 * d, f"{name}_label")
      a, b = jnp.split(h, 2, -1)
      return x + a * nn.sigmoid(b)

    def moved(x, change, i, aside):
      kernel, way = ASIDE if aside else DOWN, "up" if change > 0 else "down"
      name = f"{way}_{i}_{'aside' if aside else 'above'}"
      return Shifted(d, kernel, aside, change, name=name)(x)

    # A channel of ones tells zeros of the image from those around it.
    x = self.image(units)
    x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], -1)
    above = [down(Shifted(d, DOWN, name="first_above")(x))]
    aside = [
      down(Shifted(d, (1, 3), name="first_row")(x))
      + right(Shifted(d, (2, 1), True, name="first_aside")(x))
    ]
    last = self.resolutions - 1
    for i in range(self.resolutions):
      for _ in range(self.depth):
        above.append(block(above[-1], False))
        aside.append(block(aside[-1], True, above[-1]))
      if i < last:
        above.append(moved(above[-1], -2, i, False))
        aside.append(moved(aside[-1], -2, i, True))
    u, v = above.pop(), aside.pop()
    for i in range(self.resolutions):
      for _ in range(self.depth + (i > 0)):
        u = block(u, False, above.pop())
        v = block(v, True, jnp.concatenate([u, aside.pop()], -1))
      if i < last:
        u, v = moved(u, 2, i, False), moved(v, 2, i, True)
    return nn.elu(v).reshape(len(v), -1, d)

  def logits(self, h: Array, units: Array) -> Array:
    """f32[..., c, V], log-probabilities of states [..., D]; of the pixels whose
    earlier channels are those of i32[..., c]."""
    return self.law.law(h).by_channel(self._values(units))

  def nll(self, h: Array, units: Array) -> Array:
    """-log p of pixels, f32[B, L]."""
    return self.law.nll(h, self._values(units))

  def _values(self, units: Array) -> Array:
    return 2 * units.astype(jnp.float32) / (self.levels - 1) - 1
