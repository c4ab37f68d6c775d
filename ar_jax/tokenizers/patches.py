"""Square patches of pixels as continuous units: nothing is learned or lost.

For pictures small enough to be generated as they are. It answers as `kl_vae`
does, so that generators of continuous units take either.

Shapes: B batch, H W image sides, c image channels, p side of a patch,
L = (H / p)^2 units in raster order, C = p p c.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.signals.patches import cut, join
from ar_jax.core.system import UserError
from ar_jax.tokenizers.autoencoder import (
  Autoencoder,
  Reconstruction,
  autoencoder,
)

Array = jax.Array


class Patches(nn.Module):
  """Patches of pixels, (x - shift) * scale for x in [-1, 1].

  Attributes:
    patch: p.
    size: H.
    in_channels: c.
    shift: mean of the pixels.
    scale: 1 / their standard deviation.
  """

  patch: int = 1
  size: int = 8
  in_channels: int = 1
  shift: float = 0.0
  scale: float = 1.0

  field = "image"  # of a batch, which it reads

  def example(self) -> Array:
    """Zeros f32[1, H, H, c], an image as it reads one."""
    return jnp.zeros((1, self.size, self.size, self.in_channels))

  @property
  def vocab(self) -> None:
    """There are no codes."""
    return None

  @property
  def channels(self) -> int:
    """C."""
    return self.patch**2 * self.in_channels

  @property
  def grid(self) -> tuple[int, int]:
    """(H / p, H / p)."""
    return (self.size // self.patch,) * 2

  @property
  def length(self) -> int:
    """L."""
    return self.grid[0] * self.grid[1]

  def encode(self, x: Array) -> Array:
    """Units f32[B, L, C] of images f32[B, H, W, c] in [-1, 1].

    Raises:
      UserError: the images are of another size.
    """
    want = (self.size, self.size, self.in_channels)
    if x.shape[1:] != want:
      raise UserError(
        f"image {x.shape[1:]}: these patches are of images {want}; resize the "
        "data or change size and in_channels"
      )
    x = cut(x, self.patch).reshape(-1, self.length, self.channels)
    return (x - self.shift) * self.scale

  def decode(self, units: Array) -> Array:
    """Images f32[B, H, W, c] in [-1, 1] of units f32[B, L, C]."""
    x = units / self.scale + self.shift
    x = join(x.reshape(-1, *self.grid, self.channels), self.patch)
    return jnp.clip(x, -1.0, 1.0)

  def moments(self, x: Array) -> Array:
    """f32[B, L, 2 C]: the units, and log-variances that leave them alone."""
    units = self.encode(x)
    return jnp.concatenate([units, jnp.full_like(units, -30.0)], -1)

  def draw(self, moments: Array, keys: Array | None = None) -> Array:
    """Units f32[B, L, C] of moments f32[B, L, 2 C]; keys change nothing."""
    del keys
    return jnp.split(moments, 2, -1)[0]

  def __call__(self, x: Array, keys: Array | None = None) -> Reconstruction:
    """Images again, exactly; there is nothing to train."""
    units = self.encode(x)
    return Reconstruction(self.decode(units), x, units, {})


def build(
  *,
  patch: int = 1,
  size: int = 8,
  in_channels: int = 1,
  shift: float = 0.0,
  scale: float = 1.0,
) -> Autoencoder:
  """The patches as the tokenizer of a generator; arguments as `Patches`.

  Raises:
    UserError: the size is no multiple of the patch.
  """
  if size % patch:
    raise UserError(f"size={size} is not a multiple of patch={patch}")
  return autoencoder(Patches(patch, size, in_channels, shift, scale))
