"""The KL autoencoder of latent diffusion: an image as continuous latents.

High-Resolution Image Synthesis with Latent Diffusion Models (arXiv
2112.10752), section 3.1; at 16 channels and stride 16 it is the KL-16 of MAR
(arXiv 2406.11838), FlowAR and xAR. Nothing is quantised: a unit is a vector
of C numbers, drawn from a normal law that a weak KL term keeps near N(0, 1).

What a generator needs, all of it scaled so that units have deviation near 1:

  moments(x) -> f32[B, L, 2 C]      means and log-variances; what a cache keeps
  draw(moments, keys) -> f32[B, L, C]   units of one draw, times `scale`
  encode(x) -> f32[B, L, C]         units of the mode, times `scale`
  decode(units) -> x                divides by `scale` first

Shapes: B batch, H W image sides, c image channels, h = H / stride latent
side, C latent channels, L = h^2 units in raster order.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ar_jax.core.system import UserError, passes_on
from ar_jax.tokenizers.autoencoder import (
  Autoencoder,
  Reconstruction,
  autoencoder,
  check_image,
)
from ar_jax.tokenizers.code_maps import OneGrid
from ar_jax.tokenizers.convolutional import Convolutional

Array = jax.Array

# Levels of the published nets by stride, and 1 / deviation of their latents
# by the number of channels.
MULT = {16: (1, 1, 2, 2, 4), 8: (1, 2, 4, 4)}
SCALE = {16: 0.2325, 4: 0.18215}


def draw(moments: Array, keys: Array | None) -> Array:
  """z = mean + sd * noise, f32[B, L, C], of moments f32[B, L, 2 C].

  Args:
    moments: means and log-variances; the latter are clipped to [-30, 20].
    keys: Key[B]; None takes the mode, which is the mean.
  """
  mean, logvar = split(moments)
  if keys is None:
    return mean
  noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
  return mean + jnp.exp(0.5 * logvar) * noise


def split(moments: Array) -> tuple[Array, Array]:
  """Means and clipped log-variances, f32[..., C] each, of f32[..., 2 C]."""
  mean, logvar = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
  return mean, jnp.clip(logvar, -30.0, 20.0)


def divergence(moments: Array) -> Array:
  """KL(N(mean, var) | N(0, 1)) in nats per image, f32[B]: summed, not
  averaged, over units and channels."""
  mean, logvar = split(moments)
  each = jnp.square(mean) + jnp.exp(logvar) - 1 - logvar
  return 0.5 * each.sum((1, 2))


class KLVAE(Convolutional, OneGrid):
  """The KL autoencoder. Defaults: the published KL-16.

  Attributes:
    channels: C.
    scale: what latents are multiplied by to become units; 1 / their standard
      deviation over the data (SCALE has the published ones).
    ch: width of the first level of the convolutional nets.
    mult: width of each level in multiples of ch; stride 2^(levels - 1).
    blocks: residual blocks a level in the encoder, one more in the decoder.
    attention: levels of the encoder with attention, 0 the first. The decoder
      has attention in the middle only.
    size: H, for generators; the tokenizer itself takes any multiple of the
      stride.
    in_channels: c.
    dtype: of the convolutions; the moments are float32 always.
  """

  channels: int = 16
  scale: float = SCALE[16]
  ch: int = 128
  mult: tuple[int, ...] = MULT[16]
  blocks: int = 2
  attention: tuple[int, ...] = (4,)
  size: int = 256
  in_channels: int = 3
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    self.convolutions(
      encoded=2 * self.channels,
      latent=2 * self.channels,
      decoded=self.channels,
      attention=self.attention,
      decoder_attention=(),
    )

  @property
  def vocab(self) -> None:
    """There are no codes."""
    return None

  def moments(self, x: Array) -> Array:
    """Means and log-variances f32[B, L, 2 C] of images f32[B, H, W, c] in
    [-1, 1], not scaled; what a cache of latents keeps.

    Raises:
      UserError: the sides are no multiples of the stride, or the channels
        are not those of this tokenizer.
    """
    check_image(x, self.stride, self.in_channels)
    moments = self.quant_conv(self.encoder(x))
    return moments.reshape(len(x), -1, 2 * self.channels)

  def draw(self, moments: Array, keys: Array | None = None) -> Array:
    """Units f32[B, L, C] of moments f32[B, L, 2 C]: one draw of the latents,
    or their mode without keys, times `scale`."""
    return self.scale * draw(moments, keys)

  def encode(self, x: Array) -> Array:
    """Units f32[B, L, C] of images f32[B, H, W, c] in [-1, 1], row by row:
    the mode of the latents, times `scale`."""
    return self.draw(self.moments(x))

  def decode(self, units: Array) -> Array:
    """Images f32[B, H, W, c] in [-1, 1] of units f32[B, L, C] of a square,
    scaled as `encode` and `draw` give them."""
    side = round(units.shape[1] ** 0.5)
    latent = units.astype(jnp.float32) / self.scale
    return self.decode_latent(latent.reshape(len(units), side, side, -1))

  def __call__(self, x: Array, keys: Array | None = None) -> Reconstruction:
    """What training needs of images f32[B, H, W, c] in [-1, 1]; the latents
    are drawn with keys Key[B], or are their mode without."""
    moments = self.moments(x)
    latent = draw(moments, keys)
    grid = (len(x), x.shape[1] // self.stride, x.shape[2] // self.stride, -1)
    image, feature = self.decoder(self.post_quant_conv(latent.reshape(grid)))
    units = self.scale * latent
    # Near 1 where `scale` is right.
    rms = jnp.sqrt(jnp.square(units).mean((1, 2)))
    losses = {"kl": divergence(moments)}
    return Reconstruction(image, feature, units, losses, {"units_rms": rms})


@passes_on(autoencoder)
def build(
  *,
  channels: int = 16,
  scale: float | None = None,
  ch: int = 128,
  mult: Sequence[int] = MULT[16],
  blocks: int = 2,
  attention: Sequence[int] = (4,),
  size: int = 256,
  in_channels: int = 3,
  dtype: str = "float32",
  **training,
) -> Autoencoder:
  """The tokenizer in training; arguments as `KLVAE`, whose `scale` is by
  default the published one of so many channels, else 1; `training` as
  `autoencoder.autoencoder`, where `bottleneck_weight` is the weight of the KL
  in nats per image.

  Raises:
    UserError: the size is no multiple of the stride, or there is no level
      that `attention` names.
  """
  if scale is None:
    scale = SCALE.get(channels, 1.0)
  if not scale > 0:
    raise UserError(f"scale={scale}: must be positive")
  tokenizer = KLVAE(
    channels=channels,
    scale=scale,
    ch=ch,
    mult=tuple(mult),
    blocks=blocks,
    attention=tuple(attention),
    size=size,
    in_channels=in_channels,
    dtype=jnp.dtype(dtype),
  )
  if not set(attention) <= set(range(len(mult))):
    raise UserError(
      f"attention={attention}: mult has levels 0..{len(mult) - 1}"
    )
  return autoencoder(tokenizer.checked(), **training)
