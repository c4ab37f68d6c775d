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
from ar_jax.core.system import passes_on
from ar_jax.nn.quantize.residual import MultiScaleResidual
from ar_jax.tokenizers.autoencoder import Autoencoder, autoencoder
from ar_jax.tokenizers.code_maps import Pyramid
from ar_jax.tokenizers.convolutional import Convolutional

Array = jax.Array

# Sides of the token maps at stride 16; the same weights serve all three.
SCALES = {
  256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
  512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
  1024: (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
}


class MultiScaleVQ(Convolutional, Pyramid):
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

  def latent(self, x: Array) -> Array:
    """f = quant_conv(E(x)), f32[B, h, h, C], of images in [-1, 1].

    Raises:
      UserError: the images are not of the size that `scales` describes.
    """
    self.check(x)
    return self.quant_conv(self.encoder(x))


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
