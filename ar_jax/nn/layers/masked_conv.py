"""Convolutions that see only what comes before: pixels in raster order, and the
channels of a pixel one after the other.

  Masked   a mask of the kernel (PixelCNN, arXiv 1601.06759)
  Shifted  padding on one side, and weight normalisation (PixelCNN++, arXiv
           1701.05517)

Features are [B, H, W, D]. Where an image has c channels, the features are c
groups of equal size, but for rounding, of which group m belongs to channel m.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def group(features: int, count: int, parts: int = 1) -> np.ndarray:
  """i32[D], the group of each of D features; `parts` of them lie one behind the
  other, each with all groups."""
  own = features // parts
  return np.tile(np.arange(own) * count // own, parts)


def kernel_mask(
  kernel: tuple[int, int], ins: np.ndarray, outs: np.ndarray, first: bool
) -> np.ndarray:
  """f32[h, w, D_in, D_out], 1 where a kernel may read.

  Args:
    kernel: h, w; its last row lies on the row of what is computed, and there
      the column w // 2, or the last one of a kernel of one row, on itself.
    ins, outs: groups of the features.
    first: mask A: at itself it reads groups before its own only. Else mask B,
      its own as well.
  """
  height, width = kernel
  mask = np.ones((*kernel, len(ins), len(outs)), np.float32)
  own = width // 2 if height > 1 else width - 1
  mask[-1, own + 1 :] = 0
  before = ins[:, None] < outs[None] if first else ins[:, None] <= outs[None]
  mask[-1, own] = before
  return mask


class Masked(nn.Module):
  """A convolution of side n with mask A or B.

  What lies behind is not computed and masked but left out: n // 2 rows above
  and the own one, or of `row` kernels the own row up to the pixel itself.

  Attributes:
    features: D_out.
    side: n, odd.
    groups: c.
    first: mask A, of the first layer; else B.
    parts: of the features, see `group`.
    row: whether it reads the own row alone.
  """

  features: int
  side: int = 1
  groups: int = 1
  first: bool = False
  parts: int = 1
  row: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    half = self.side // 2
    above, right = (0, 0) if self.row else (half, half)
    kernel = above + 1, half + 1 + right
    if self.side == 1:
      kernel, above, right = (1, 1), 0, 0
    ins = group(x.shape[-1], self.groups)
    outs = group(self.features, self.groups, self.parts)
    return nn.Conv(
      self.features,
      kernel,
      padding=((above, 0), (half, right)),
      mask=kernel_mask(kernel, ins, outs, self.first),
      name="conv",
    )(x)


def down(x: Array) -> Array:
  """Every row at the place of the next one; the first is zeros."""
  return jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))


def right(x: Array) -> Array:
  """The same of columns."""
  return jnp.pad(x[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0)))


class Shifted(nn.Module):
  """A convolution that reads rows up to its own, and of these the columns
  around its own, or up to its own; as w = g v / |v|.

  Attributes:
    features: D_out.
    kernel: (h, w); w odd where it reads columns on both sides.
    aside: whether it reads columns up to its own only.
    change: 2 doubles the sides, -2 halves them, 1 leaves them as they are.
    scale: the initial g.
  """

  features: int
  kernel: tuple[int, int]
  aside: bool = False
  change: int = 1
  scale: float = 1.0

  @nn.compact
  def __call__(self, x: Array) -> Array:
    (h, w), d = self.kernel, self.features
    init = nn.initializers.normal(0.05)
    v = self.param("v", init, (h, w, x.shape[-1], d))
    g = self.param("g", nn.initializers.constant(self.scale), (d,))
    bias = self.param("bias", nn.initializers.zeros, (d,))
    norm = jnp.sqrt(jnp.sum(jnp.square(v), (0, 1, 2), keepdims=True))
    whole = lambda x: x[None, None, None]
    kernel = v / jnp.maximum(norm, 1e-12) * whole(g)
    numbers = "NHWC", "HWIO", "NHWC"
    before = w - 1 if self.aside else w // 2
    if self.change > 1:
      rows, columns = (2 * n for n in x.shape[1:3])
      y = jax.lax.conv_transpose(x, kernel, (2, 2), "VALID", None, numbers)
      first = 0 if self.aside else w // 2
      return y[:, :rows, first : first + columns] + whole(bias)
    y = jax.lax.conv_general_dilated(
      x,
      kernel,
      (-self.change, -self.change) if self.change < 0 else (1, 1),
      ((h - 1, 0), (before, w - 1 - before)),
      dimension_numbers=numbers,
    )
    return y + whole(bias)
