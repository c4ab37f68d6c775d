"""What tokenizers made of two convolutional nets share.

Shapes: B batch, H W image sides, c image channels, h w latent sides, C latent
channels, L units, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.system import UserError
from ar_jax.nn.layers.conv2d import Decoder, Encoder
from ar_jax.tokenizers.autoencoder import Reconstruction

Array = jax.Array


class Convolutional(nn.Module):
  """An encoder, a bottleneck and a decoder.

  A subclass has the fields `ch`, `mult`, `blocks`, `in_channels` and `dtype`,
  calls `convolutions` in `setup`, where it also makes its `quantizer`, and has
  `latent`.
  """

  def convolutions(
    self,
    *,
    encoded: int,
    latent: int,
    decoded: int,
    kernel: int = 1,
    attention: Sequence[int] | None = None,
    decoder_attention: Sequence[int] | None = None,
  ) -> None:
    """Makes the nets, and the convolutions between them and the latent.

    Args:
      encoded: channels that the encoder makes.
      latent: channels of the bottleneck.
      decoded: channels that the decoder reads.
      kernel: side of the convolutions at the bottleneck.
      attention: levels of the encoder with attention, 0 the first; the last
        if None.
      decoder_attention: the same of the decoder.
    """
    last = (len(self.mult) - 1,)
    levels = lambda given: last if given is None else tuple(given)
    body = dict(
      ch=self.ch, mult=self.mult, blocks=self.blocks, dtype=self.dtype
    )
    self.encoder = Encoder(z=encoded, attention=levels(attention), **body)
    self.decoder = Decoder(
      channels=self.in_channels, attention=levels(decoder_attention), **body
    )
    self.quant_conv = nn.Conv(latent, (kernel, kernel))
    self.post_quant_conv = nn.Conv(decoded, (kernel, kernel))

  @property
  def stride(self) -> int:
    """Pixels per side of a latent."""
    return 2 ** (len(self.mult) - 1)

  def decode_latent(self, latent: Array) -> Array:
    """Images f32[B, H, W, c] in [-1, 1] of latents f32[B, h, w, C]."""
    image, _ = self.decoder(self.post_quant_conv(latent))
    return jnp.clip(image, -1.0, 1.0)

  def codebook(self) -> Array:
    """f32[V, C]."""
    return self.quantizer.codebook()

  def to_image(self, feature: Array) -> Array:
    """The decoder's last convolution alone, unclipped."""
    return self.decoder.head(feature)

  def __call__(self, x: Array, keys: Array | None = None) -> Reconstruction:
    """What training needs of images f32[B, H, W, c] in [-1, 1]."""
    del keys  # nothing random in here
    codes, losses, units = self.quantizer(self.latent(x))
    image, feature = self.decoder(self.post_quant_conv(codes))
    return Reconstruction(image, feature, units.reshape(len(x), -1), losses)


class OneGrid(Convolutional):
  """A `Convolutional` whose units are the cells of its latent, row by row; it
  has the field `size`, the side of an image in pixels."""

  @property
  def grid(self) -> tuple[int, int]:
    """(h, h), the units of an image of `size`."""
    return (self.size // self.stride,) * 2

  @property
  def length(self) -> int:
    """L, units per image."""
    return self.grid[0] * self.grid[1]

  def checked(self) -> OneGrid:
    """Itself.

    Raises:
      UserError: the size is no multiple of the stride.
    """
    if self.size % self.stride:
      raise UserError(
        f"size={self.size} is not a multiple of the stride {self.stride}"
      )
    return self
