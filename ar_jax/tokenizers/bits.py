"""BAE: a binary autoencoder, whose units are bits that are drawn.

Elucidating the design space of language models for image generation (arXiv
2410.16257), section 3, in the line of "binary latent diffusion" (arXiv
2304.04820). The encoder says a probability for each of K bits of a cell; the
bits are drawn, the gradient passes straight through, and every code is in use
from the first step. The published nets see images in [0, 1] and have no SiLU
between their last norm and their last convolution; ours take and give images
in [-1, 1], as all tokenizers here.

Shapes: B batch, H W image sides, c image channels, h = H / stride latent side,
C channels, L = h^2 units, K bits of a unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ar_jax.core.signals.resize import resize
from ar_jax.core.system import passes_on
from ar_jax.nn.layers.conv2d import Decoder, Encoder, norm
from ar_jax.nn.quantize.bits import Bernoulli
from ar_jax.tokenizers.autoencoder import (
  Autoencoder,
  Reconstruction,
  autoencoder,
  check_image,
)
from ar_jax.tokenizers.code_maps import OneGrid

Array = jax.Array


class BAE(OneGrid):
  """The binary autoencoder. Defaults: the published one of 20 bits.

  Attributes:
    bits: K.
    z: C, channels of the encoder's latent and of the table of bits.
    ch: width of the first level of the convolutional nets.
    mult: width of each level in multiples of ch; stride 2^(levels - 1).
    blocks: residual blocks a level in both nets.
    attention: levels with attention, 0 the first; the last if None.
    size: H, for generators; the tokenizer itself takes any multiple of the
      stride.
    in_channels: c.
    drawn: whether bits are drawn where there is a key to do so; else they are
      the likelier ones always.
    norm_first: a norm of what the decoder reads.
    uncertainty: weight of the mean of p (1 - p) in training; 0 as published.
    dtype: of the convolutions; the bits are float32 always.
  """

  bits: int = 20
  z: int = 256
  ch: int = 128
  mult: tuple[int, ...] = (1, 1, 2, 2, 4)
  blocks: int = 2
  attention: tuple[int, ...] | None = None
  size: int = 256
  in_channels: int = 3
  drawn: bool = True
  norm_first: bool = True
  uncertainty: float = 0.0
  dtype: jnp.dtype = jnp.float32

  field = "image"
  # Units are bits.
  vocab = 2

  def setup(self):
    last = (len(self.mult) - 1,)
    body = dict(
      ch=self.ch,
      mult=self.mult,
      blocks=self.blocks,
      attention=last if self.attention is None else self.attention,
      act_out=False,
      dtype=self.dtype,
    )
    self.encoder = Encoder(z=self.z, **body)
    self.decoder = Decoder(channels=self.in_channels, more=0, **body)
    self.quantizer = Bernoulli(self.bits, self.z)
    if self.norm_first:
      self.norm_in = norm(self.z, None)

  @property
  def stride(self) -> int:
    """Pixels per side of a latent."""
    return 2 ** (len(self.mult) - 1)

  def example(self) -> Array:
    """Zeros of one image, as the encoder reads it."""
    return jnp.zeros((1, self.size, self.size, self.in_channels))

  def latent(self, x: Array) -> Array:
    """E(x), f32[B, h, w, C], of images in [-1, 1].

    Raises:
      UserError: the sides are no multiples of the stride, or the channels
        are not those of this tokenizer.
    """
    check_image(x, self.stride, self.in_channels)
    return self.encoder((x + 1) / 2)

  def probability(self, x: Array) -> Array:
    """Of a 1, f32[B, h, w, K], by images f32[B, H, W, c] in [-1, 1]."""
    return self.quantizer.probability(self.latent(x))

  def decoded(self, latent: Array) -> tuple[Array, Array]:
    """See `code_maps.Latents`; of embedded bits f32[B, h, w, C]."""
    latent = self.norm_in(latent) if self.norm_first else latent
    image, feature = self.decoder(latent)
    return 2 * image - 1, feature

  def to_image(self, feature: Array) -> Array:
    """The decoder's last convolution alone, unclipped."""
    return 2 * self.decoder.head(feature) - 1

  def encode(self, x: Array, keys: Array | None = None) -> Array:
    """Bits i32[B, L, K] of images f32[B, H, W, c] in [-1, 1], row by row;
    drawn with keys Key[B], if bits are drawn at all, else the likelier."""
    keys = keys if self.drawn else None
    bits = self.quantizer.bits_of(self.probability(x), keys)
    return bits.reshape(len(x), -1, self.bits)

  def decode(self, units: Array) -> Array:
    """Images f32[B, H, W, c] in [-1, 1] of bits i32[B, L, K] of a square."""
    return self.decode_latent(self._map(self.embed(units)))

  def decode_part(self, units: Array, done: Array | int) -> Array:
    """As `decode`, of the first `done` units only; the rest is 0, grey."""
    drawn = (jnp.arange(units.shape[1]) < done).astype(jnp.float32)[None]
    image = self.decode_latent(self._map(self.embed(units) * drawn[..., None]))
    shown = resize(self._map(drawn[..., None]), image.shape[1:3], "nearest")
    return image * shown

  def embed(self, units: Array) -> Array:
    """The sum of the table's rows, f32[..., C], of bits i32[..., K]."""
    return self.quantizer.embed(units)

  def __call__(self, x: Array, keys: Array | None = None) -> Reconstruction:
    """What training needs of images f32[B, H, W, c] in [-1, 1]; keys Key[B]
    draw the bits."""
    keys = keys if self.drawn else None
    code, losses, bits = self.quantizer(self.latent(x), keys)
    image, feature = self.decoded(code)
    units = bits.reshape(len(x), -1, self.bits)
    weighted = {k: self.uncertainty * v for k, v in losses.items()}
    if not self.uncertainty:
      weighted = {}
    return Reconstruction(image, feature, units, weighted, metrics=losses)

  def _map(self, x: Array) -> Array:
    """[B, h, h, ...] of [B, L, ...]."""
    side = round(x.shape[1] ** 0.5)
    return x.reshape(len(x), side, side, *x.shape[2:])


@passes_on(autoencoder)
def build(
  *,
  bits: int = 20,
  z: int = 256,
  ch: int = 128,
  mult: Sequence[int] = (1, 1, 2, 2, 4),
  blocks: int = 2,
  attention: Sequence[int] | None = None,
  size: int = 256,
  in_channels: int = 3,
  drawn: bool = True,
  norm_first: bool = True,
  uncertainty: float = 0.0,
  dtype: str = "float32",
  **training,
) -> Autoencoder:
  """The tokenizer in training; `training` as `autoencoder.autoencoder`, whose
  weight of pixels is 1/2 for the published loss, as images here are twice as
  far apart.

  Raises:
    UserError: the size is no multiple of the stride.
  """
  tokenizer = BAE(
    bits=bits,
    z=z,
    ch=ch,
    mult=tuple(mult),
    blocks=blocks,
    attention=None if attention is None else tuple(attention),
    size=size,
    in_channels=in_channels,
    drawn=drawn,
    norm_first=norm_first,
    uncertainty=uncertainty,
    dtype=jnp.dtype(dtype),
  )
  return autoencoder(tokenizer.checked(), **training)
