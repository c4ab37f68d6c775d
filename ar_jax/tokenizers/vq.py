"""LlamaGen's tokenizer: a VQGAN whose codes lie on a small sphere.

Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation
(arXiv 2406.06525), section 2.1, in the line of VQGAN (arXiv 2012.09841) and
ViT-VQGAN (arXiv 2110.04627): few code channels, latents and codes of unit
length, which is what keeps a codebook of 16,384 in use.

Shapes: B batch, H W image sides, c image channels, h = H / stride latent
side, C code channels, L = h^2 units, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ar_jax.core.system import passes_on
from ar_jax.nn.quantize.vq import VectorQuantizer
from ar_jax.tokenizers.autoencoder import (
  Autoencoder,
  autoencoder,
)
from ar_jax.tokenizers.code_maps import CodeMap
from ar_jax.tokenizers.convolutional import Convolutional

Array = jax.Array

# Levels of the published nets: VQ-16 and VQ-8 by stride.
MULT = {16: (1, 1, 2, 2, 4), 8: (1, 2, 2, 4)}


class VQ(Convolutional, CodeMap):
  """The single-scale VQ autoencoder. Defaults: the published VQ-16.

  Attributes:
    vocab: V.
    channels: C.
    z: channels of the convolutional nets at the latent.
    ch: width of the first level of the convolutional nets.
    mult: width of each level in multiples of ch; stride 2^(levels - 1).
    blocks: residual blocks a level in the encoder, one more in the decoder.
    size: H, for generators; the tokenizer itself takes any multiple of the
      stride.
    in_channels: c.
    sphere: codes of unit length.
    beta: weight of the loss that moves the encoder to its codes.
    entropy: weight of the entropy loss; see `VectorQuantizer`.
    spread: of the initial codebook; see `quantize.codebook_init`.
    dtype: of the convolutions; the quantiser is float32 always.
  """

  vocab: int = 16384
  channels: int = 8
  z: int = 256
  ch: int = 128
  mult: tuple[int, ...] = MULT[16]
  blocks: int = 2
  size: int = 256
  in_channels: int = 3
  sphere: bool = True
  beta: float = 0.25
  entropy: float = 0.0
  spread: float | None = None
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    self.convolutions(encoded=self.z, latent=self.channels, decoded=self.z)
    self.quantizer = VectorQuantizer(
      self.vocab,
      self.channels,
      sphere=self.sphere,
      beta=self.beta,
      entropy=self.entropy,
      spread=self.spread,
    )


@passes_on(autoencoder)
def build(
  *,
  vocab: int = 16384,
  channels: int = 8,
  z: int = 256,
  ch: int = 128,
  mult: Sequence[int] = MULT[16],
  blocks: int = 2,
  size: int = 256,
  in_channels: int = 3,
  sphere: bool = True,
  beta: float = 0.25,
  entropy: float = 0.0,
  spread: float | None = None,
  dtype: str = "float32",
  **training,
) -> Autoencoder:
  """The tokenizer in training; `training` as `autoencoder.autoencoder`.

  Raises:
    UserError: the size is no multiple of the stride.
  """
  tokenizer = VQ(
    vocab=vocab,
    channels=channels,
    z=z,
    ch=ch,
    mult=tuple(mult),
    blocks=blocks,
    size=size,
    in_channels=in_channels,
    sphere=sphere,
    beta=beta,
    entropy=entropy,
    spread=spread,
    dtype=jnp.dtype(dtype),
  )
  return autoencoder(tokenizer.checked(), **training)
