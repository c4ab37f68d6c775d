"""The two convolutional nets of a tokenizer.

Shapes: B batch, H W image sides, c image channels, h w latent sides, C latent
channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from ar_jax.nn.layers.conv2d import Decoder, Encoder
from ar_jax.tokenizers.autoencoder import check_image

Array = jax.Array


class Convolutional:
  """An encoder, a bottleneck and a decoder.

  A module that has it among its bases has the fields `ch`, `mult`, `blocks`,
  `in_channels` and `dtype`, and calls `convolutions` in `setup`, where it also
  makes its `quantizer`.
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

  def latent(self, x: Array) -> Array:
    """quant_conv(E(x)), f32[B, h, w, C], of images in [-1, 1].

    Raises:
      UserError: the sides are no multiples of the stride, or the channels
        are not those of this tokenizer.
    """
    check_image(x, self.stride, self.in_channels)
    return self.quant_conv(self.encoder(x))

  def decoded(self, latent: Array) -> tuple[Array, Array]:
    """See `code_maps.Latents`; the feature is what the decoder's last
    convolution reads."""
    return self.decoder(self.post_quant_conv(latent))

  def to_image(self, feature: Array) -> Array:
    """The decoder's last convolution alone, unclipped."""
    return self.decoder.head(feature)
