"""VAR's tokenizer: an image as token maps from 1 x 1 up to H x H.

Visual Autoregressive Modeling: Scalable Image Generation via Next-Scale
Prediction (arXiv 2404.02905), section 3.2. New in it: the residual of the
latent is quantised at growing resolutions with one codebook, so a generator
can predict a whole map at a time, given the coarser ones.

Shapes: B batch, H W image sides, c image channels, h = H / stride latent
side, C latent channels, K scales of side p_k, L = sum p_k^2 units, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ar_jax.core.signals.bands import low
from ar_jax.core.system import UserError, passes_on
from ar_jax.nn.quantize.residual import MultiScaleResidual
from ar_jax.tokenizers.autoencoder import Autoencoder, autoencoder
from ar_jax.tokenizers.convolutional import Convolutional

Array = jax.Array

# Sides of the token maps at stride 16; the same weights serve all three.
SCALES = {
  256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
  512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
  1024: (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
}


class MultiScaleVQ(Convolutional):
  """The multi-scale residual VQ autoencoder. Defaults: the published sizes.

  Attributes:
    vocab: V.
    channels: C.
    ch: width of the first level of the convolutional nets.
    mult: width of each level in multiples of ch; stride 2^(levels - 1).
    blocks: residual blocks a level in the encoder, one more in the decoder.
    scales: p_1 < ... < p_K = h.
    in_channels: c.
    beta: weight of the loss that moves the encoder to its codes.
    spread: of the initial codebook; see `quantize.codebook_init`.
    bands: see `quantize.MultiScaleResidual`.
    dtype: of the convolutions; the quantiser is float32 always.
  """

  vocab: int = 4096
  channels: int = 32
  ch: int = 160
  mult: tuple[int, ...] = (1, 1, 2, 2, 4)
  blocks: int = 2
  scales: tuple[int, ...] = SCALES[256]
  in_channels: int = 3
  beta: float = 0.25
  spread: float | None = 0.3
  bands: str | None = None
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    c = self.channels
    # 3x3, not the usual 1x1.
    self.convolutions(encoded=c, latent=c, decoded=c, kernel=3)
    self.quantizer = MultiScaleResidual(
      self.vocab,
      self.channels,
      self.scales,
      beta=self.beta,
      spread=self.spread,
      bands=self.bands,
    )

  @property
  def size(self) -> int:
    """Side of the images that `scales` describes, in pixels."""
    return self.stride * self.scales[-1]

  @property
  def length(self) -> int:
    """L, units per image."""
    return sum(p * p for p in self.scales)

  def latent(self, x: Array) -> Array:
    """f = quant_conv(E(x)), f32[B, h, h, C], of images in [-1, 1].

    Raises:
      UserError: the images are not of the size that `scales` describes.
    """
    if x.shape[1:] != (self.size, self.size, self.in_channels):
      height, width, channels = x.shape[1:]
      raise UserError(
        f"image {height}x{width}x{channels}: this tokenizer has stride "
        f"{self.stride} and last scale {self.scales[-1]}, so it takes "
        f"{self.size}x{self.size}x{self.in_channels}; resize the data or "
        "change scales"
      )
    return self.quant_conv(self.encoder(x))

  def encode(self, x: Array) -> Array:
    """Units i32[B, L] of images f32[B, H, W, c] in [-1, 1], coarse first."""
    return self.quantizer.encode(self.latent(x))[0]

  def decode(self, units: Array) -> Array:
    """Images f32[B, H, W, c] in [-1, 1] of units i32[B, L]."""
    return self.decode_latent(self.quantizer.walk(units)[-1])

  def embed(self, units: Array) -> Array:
    """The generator's input f32[B, L, C] for known units i32[B, L].

    Slots of scale k >= 2 hold area_down(f_{k-1}, p_k); those of scale 1, 0.
    """
    return self.quantizer.embed(units)

  def seen(self, fhat: Array, k: int) -> Array:
    """The input of scale k, [B, p_k^2, C], for f_{k-1}, f32[B, h, h, C]."""
    return self.quantizer.down(fhat, k)

  def part(self, k: int, units: Array) -> Array:
    """What the units i32[B, p_k^2] of scale k alone bring, as that scale sees
    it, f32[B, p_k^2, C]."""
    return self.quantizer.part(k, units)

  def parts(self, units: Array) -> Array:
    """`part` of every scale, f32[B, L, C], of units i32[B, L]."""
    each = enumerate(self.quantizer.split(units))
    return jnp.concatenate([self.part(k, ids) for k, ids in each], axis=1)

  def start(self, batch: int) -> Array:
    """f_0 = 0, f32[B, h, h, C], where `advance` begins."""
    return self.quantizer.start(batch)

  def advance(
    self, fhat: Array, k: int, units: Array
  ) -> tuple[Array, Array | None]:
    """Adds the units of one scale to the running latent.

    Args:
      fhat: f_{k-1}, f32[B, h, h, C].
      k: the scale, static, from 0.
      units: i32[B, p_k^2].

    Returns:
      f_k and the input of the next scale, [B, p_{k+1}^2, C]; None after the
      last.
    """
    return self.advance_soft(fhat, k, self.codebook()[units])

  def advance_soft(
    self, fhat: Array, k: int, embedding: Array
  ) -> tuple[Array, Array | None]:
    """`advance` for mixtures of codes, f32[B, p_k^2, C] (smooth sampling)."""
    fhat = self.quantizer.add(fhat, k, embedding)
    if k + 1 == len(self.scales):
      return fhat, None
    return fhat, self.quantizer.down(fhat, k + 1)


@passes_on(autoencoder)
def build(
  *,
  vocab: int = 4096,
  channels: int = 32,
  ch: int = 160,
  mult: Sequence[int] = (1, 1, 2, 2, 4),
  blocks: int = 2,
  scales: Sequence[int] = SCALES[256],
  in_channels: int = 3,
  beta: float = 0.25,
  spread: float | None = 0.3,
  bands: str | None = None,
  dtype: str = "float32",
  **training,
) -> Autoencoder:
  """The tokenizer in training; `training` as `autoencoder.autoencoder`.

  Raises:
    UserError: there is no such rule of `bands`.
  """
  if bands is not None:
    low(tuple(scales), bands)
  tokenizer = MultiScaleVQ(
    vocab=vocab,
    channels=channels,
    ch=ch,
    mult=tuple(mult),
    blocks=blocks,
    scales=tuple(scales),
    in_channels=in_channels,
    beta=beta,
    spread=spread,
    bands=bands,
    dtype=jnp.dtype(dtype),
  )
  return autoencoder(tokenizer, **training)
