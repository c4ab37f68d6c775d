"""Networks of masked convolutions over the pixels of an image.

Every net maps a condition and the levels of all channels of all pixels to a
state of each pixel (`__call__`), and states to the law of the channels
(`logits`, `nll`), each given all earlier pixels and the channels before it.

  passes    of the net for one pixel: c, if a state depends on earlier channels
            of its own pixel, as in PixelCNN; 1 if the head does that

Shapes: B batch, H W sides, c channels, L = H W pixels in raster order, V levels
of a channel, D width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.nn.heads.categorical import cross_entropy
from ar_jax.nn.layers.masked_conv import Masked, down

Array = jax.Array


class PixelNet(nn.Module):
  """What the nets of this family share. Abstract.

  Attributes:
    size: H and W.
    channels: c.
    levels: V.
    labels: rows of the table of classes, 0 for no condition.
  """

  size: int
  channels: int
  levels: int
  labels: int

  def image(self, units: Array) -> Array:
    """f32[B, H, W, c] in [-1, 1] of levels i32[B, L, c]."""
    x = 2 * units.astype(jnp.float32) / (self.levels - 1) - 1
    return x.reshape(-1, self.size, self.size, self.channels)

  def of_class(
    self, label: Array | None, features: int, name: str
  ) -> Array | int:
    """What a class adds to features, f32[B, 1, 1, D]; 0 without classes."""
    if not self.labels:
      return 0
    init = nn.initializers.normal(0.02)
    table = nn.Embed(self.labels, features, embedding_init=init, name=name)
    return table(label)[:, None, None]


class Softmax(PixelNet):
  """A net with V logits for each channel.

  Attributes:
    out: width of the layer before the logits.
  """

  out: int = 64

  @property
  def passes(self) -> int:
    """c."""
    return self.channels

  def head(self, x: Array) -> Array:
    """f32[B, L, c, V] of features [B, H, W, D]."""
    one = lambda n, name: Masked(n, groups=self.channels, name=name)
    x = one(self.out, "out1")(nn.relu(x))
    x = one(self.channels * self.levels, "out2")(nn.relu(x))
    return x.reshape(len(x), -1, self.channels, self.levels)

  def logits(self, h: Array, units: Array) -> Array:
    """f32[..., c, V]: the states are those already."""
    del units
    return h

  def nll(self, h: Array, units: Array) -> Array:
    """-log p of pixels, f32[B, L]."""
    return jnp.sum(cross_entropy(h, units), -1)


class PixelCNN(Softmax):
  """One stack of masked convolutions: mask A once, and residual blocks [ReLU,
  1 x 1 from 2 D to D, ReLU, n x n, ReLU, 1 x 1 from D to 2 D] with mask B.

  It does not see all earlier pixels: what lies to the upper right is a blind
  spot, which `Gated` has not.

  Attributes:
    width: D.
    depth: blocks.
    first: side of the first kernel.
    side: n.
  """

  width: int = 32
  depth: int = 5
  first: int = 7
  side: int = 3

  @nn.compact
  def __call__(
    self, label: Array | None, units: Array, keys: Array | None = None
  ) -> Array:
    """Logits f32[B, L, c, V].

    Args:
      label: i32[B], where there are classes.
      units: i32[B, L, c], the levels; those of a pixel and all behind it do not
        count for it, but those of earlier channels.
      keys: Key[B]; nothing is random here.
    """
    del keys
    c, d = self.channels, self.width
    x = Masked(2 * d, self.first, c, first=True, name="first")(
      self.image(units)
    )
    for i in range(self.depth):
      h = Masked(d, groups=c, name=f"in_{i}")(nn.relu(x))
      h = h + self.of_class(label, d, f"label_{i}")
      h = Masked(d, self.side, c, name=f"conv_{i}")(nn.relu(h))
      x = x + Masked(2 * d, groups=c, name=f"out_{i}")(nn.relu(h))
    return self.head(x)


class Gated(Softmax):
  """Two stacks (Gated PixelCNN, arXiv 1606.05328): the vertical one has all
  rows above, and tells the horizontal one, which has the row of the pixel up to
  it. Features are tanh(a) sigmoid(b).

  Attributes:
    width: D.
    depth: layers, the first among them.
    first: side of the kernels of the first layer.
    side: of the others.
  """

  width: int = 32
  depth: int = 5
  first: int = 7
  side: int = 3

  @nn.compact
  def __call__(
    self, label: Array | None, units: Array, keys: Array | None = None
  ) -> Array:
    """As `PixelCNN`."""
    del keys
    v = h = self.image(units)
    c, d = self.channels, self.width
    for i in range(self.depth):
      side, start = (self.side, False) if i else (self.first, True)
      half = side // 2
      # It has its own row too, and is moved down before it is told.
      v = nn.Conv(
        2 * d,
        (half + 1, side),
        padding=((half, 0), (half, half)),
        name=f"vertical_{i}",
      )(v)
      above = nn.Conv(2 * d, (1, 1), name=f"tell_{i}")(down(v))
      row = Masked(
        2 * d, side, c, first=start, parts=2, row=True, name=f"row_{i}"
      )(h)
      row = gate(row + above + self.of_class(label, 2 * d, f"row_label_{i}"))
      row = Masked(d, groups=c, name=f"out_{i}")(row)
      h = row if start else h + row
      if i + 1 < self.depth:
        v = gate(v + self.of_class(label, 2 * d, f"vertical_label_{i}"))
    return self.head(h)


def gate(x: Array) -> Array:
  """tanh of the first half of the features times sigmoid of the second."""
  a, b = jnp.split(x, 2, -1)
  return nn.tanh(a) * nn.sigmoid(b)
