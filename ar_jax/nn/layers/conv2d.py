"""The convolutional encoder and decoder of the VQGAN family.

One body serves VAR, LlamaGen, taming and LDM/MAR; they differ in widths,
number of blocks and where attention sits. Images and latents are NHWC.
GroupNorm runs in float32, convolutions in `dtype`.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


def norm(channels: int, name: str) -> nn.GroupNorm:
  """GroupNorm with 32 groups, or the most below that which divide C."""
  # Not the fast variance: it cancels, and the published nets do not use it.
  return nn.GroupNorm(
    num_groups=math.gcd(32, channels),
    epsilon=1e-6,
    dtype=jnp.float32,
    use_fast_variance=False,
    name=name,
  )


def conv3(
  channels: int, dtype: jnp.dtype, name: str | None = None, **kwargs
) -> nn.Conv:
  """3x3 convolution, by default padded by one pixel of zeros."""
  kwargs = {"padding": ((1, 1), (1, 1))} | kwargs
  return nn.Conv(channels, (3, 3), dtype=dtype, name=name, **kwargs)


class ResBlock(nn.Module):
  """x + conv(act(norm(conv(act(norm(x)))))), act = SiLU."""

  channels: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    h = nn.silu(norm(x.shape[-1], "norm1")(x))
    h = conv3(self.channels, self.dtype, "conv1")(h)
    h = nn.silu(norm(self.channels, "norm2")(h))
    h = conv3(self.channels, self.dtype, "conv2")(h)
    if x.shape[-1] != self.channels:
      x = nn.Conv(self.channels, (1, 1), dtype=self.dtype, name="shortcut")(x)
    return x + h


class AttnBlock(nn.Module):
  """One-head self-attention over all positions, as a residual."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    channels = x.shape[-1]
    h = norm(channels, "norm")(x)
    qkv = nn.Conv(3 * channels, (1, 1), dtype=self.dtype, name="qkv")(h)
    q, k, v = jnp.split(qkv.reshape(len(x), -1, 3 * channels), 3, axis=-1)
    scores = jnp.einsum(
      "bqc,bkc->bqk", q, k, preferred_element_type=jnp.float32
    )
    weights = jax.nn.softmax(scores * channels**-0.5, axis=-1)
    h = jnp.einsum("bqk,bkc->bqc", weights.astype(self.dtype), v)
    h = nn.Conv(channels, (1, 1), dtype=self.dtype, name="proj")(
      h.reshape(x.shape)
    )
    return x + h


class Middle(nn.Module):
  """Residual block, attention, residual block."""

  channels: int
  attention: bool = True
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = ResBlock(self.channels, self.dtype, name="block_1")(x)
    if self.attention:
      x = AttnBlock(self.dtype, name="attn_1")(x)
    return ResBlock(self.channels, self.dtype, name="block_2")(x)


class Downsample(nn.Module):
  """Halves the sides: one row and column of zeros at the end, then stride 2.

  Written out because SAME padding means another thing to each framework.
  """

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    return conv3(
      x.shape[-1],
      self.dtype,
      "conv",
      strides=(2, 2),
      padding=((0, 1), (0, 1)),
    )(x)


class Upsample(nn.Module):
  """Doubles the sides: nearest neighbour, then a 3x3 convolution."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = x.repeat(2, axis=1).repeat(2, axis=2)
    return conv3(x.shape[-1], self.dtype, "conv")(x)


class DepthUpsample(nn.Module):
  """Doubles the sides: a 3x3 convolution to four times the channels, which
  become the four pixels of a cell, row by row (GigaTok)."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    return depth_to_space(conv3(4 * x.shape[-1], self.dtype, "conv")(x))


def depth_to_space(x: Array) -> Array:
  """[B, 2 h, 2 w, C] of [B, h, w, 4 C], whose channels count pixels first."""
  b, h, w, c = x.shape
  x = x.reshape(b, h, w, 2, 2, c // 4).swapaxes(2, 3)
  return x.reshape(b, 2 * h, 2 * w, c // 4)


class AdaptiveNorm(nn.Module):
  """GroupNorm whose scale and bias are linear in the deviation and in the mean
  of the channels of a latent (AdaGN of GigaTok, arXiv 2504.08736)."""

  @nn.compact
  def __call__(self, x: Array, z: Array) -> Array:
    """[B, H, W, C] of x [B, H, W, C] and a latent z [B, h, w, z]."""
    channels, z = x.shape[-1], z.astype(jnp.float32)
    dense = lambda name: nn.Dense(channels, name=name)
    # The unbiased variance, as PyTorch's.
    spread = jnp.sqrt(jnp.var(z, (1, 2), ddof=1) + 1e-6)
    scale, bias = dense("scale")(spread), dense("bias")(z.mean((1, 2)))
    plain = nn.GroupNorm(
      num_groups=math.gcd(32, channels),
      epsilon=1e-6,
      use_bias=False,
      use_scale=False,
      dtype=jnp.float32,
      use_fast_variance=False,
    )
    return scale[:, None, None] * plain(x) + bias[:, None, None]


class Encoder(nn.Module):
  """Image [B, H, W, c] to latents f32[B, H/s, W/s, z], s = 2^(levels - 1).

  Attributes:
    ch: width of the first level.
    mult: width of each level, in multiples of ch.
    blocks: residual blocks a level.
    z: output channels.
    attention: levels (0 = full resolution) with attention after each block.
    mid_attention: attention in the middle.
    dtype: of the convolutions.
    act_out: a SiLU between the last norm and the last convolution.
  """

  ch: int
  mult: tuple[int, ...]
  blocks: int
  z: int
  attention: tuple[int, ...] = ()
  mid_attention: bool = True
  dtype: jnp.dtype = jnp.float32
  act_out: bool = True

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = conv3(self.ch, self.dtype, "conv_in")(x)
    for level, mult in enumerate(self.mult):
      at = f"down_{level}"
      for i in range(self.blocks):
        x = ResBlock(self.ch * mult, self.dtype, name=f"{at}_block_{i}")(x)
        if level in self.attention:
          x = AttnBlock(self.dtype, name=f"{at}_attn_{i}")(x)
      if level + 1 < len(self.mult):
        x = Downsample(self.dtype, name=f"{at}_downsample")(x)
    x = Middle(x.shape[-1], self.mid_attention, self.dtype, name="mid")(x)
    x = norm(x.shape[-1], "norm_out")(x)
    x = nn.silu(x) if self.act_out else x
    x = conv3(self.z, self.dtype, "conv_out")(x)
    return x.astype(jnp.float32)


class Decoder(nn.Module):
  """Latents [B, h, w, z] to an image [B, s h, s w, c]; mirrors `Encoder`.

  It has blocks + `more` residual blocks a level, the levels counted as in the
  encoder (0 = full resolution) and run from the last to the first. `head`
  is the last convolution by itself: adaptive GAN weights differentiate it.

  Attributes: as `Encoder`, with `channels` those of the image, and `adaptive`:
  whether an `AdaptiveNorm` stands before each level and a `DepthUpsample`
  behind it.
  """

  ch: int
  mult: tuple[int, ...]
  blocks: int
  channels: int = 3
  attention: tuple[int, ...] = ()
  mid_attention: bool = True
  dtype: jnp.dtype = jnp.float32
  act_out: bool = True
  more: int = 1
  adaptive: bool = False

  def setup(self):
    self.conv_out = conv3(self.channels, self.dtype)

  def head(self, feature: Array) -> Array:
    return self.conv_out(feature).astype(jnp.float32)

  @nn.compact
  def __call__(self, z: Array) -> tuple[Array, Array]:
    """Returns the image, f32, and the feature that `head` turns into it."""
    top = self.ch * self.mult[-1]
    x = conv3(top, self.dtype, "conv_in")(z)
    x = Middle(top, self.mid_attention, self.dtype, name="mid")(x)
    for level, mult in reversed(list(enumerate(self.mult))):
      at = f"up_{level}"
      if self.adaptive:
        x = AdaptiveNorm(name=f"{at}_adaptive")(x, z)
      for i in range(self.blocks + self.more):
        x = ResBlock(self.ch * mult, self.dtype, name=f"{at}_block_{i}")(x)
        if level in self.attention:
          x = AttnBlock(self.dtype, name=f"{at}_attn_{i}")(x)
      if level:
        doubled = DepthUpsample if self.adaptive else Upsample
        x = doubled(self.dtype, name=f"{at}_upsample")(x)
    feature = norm(x.shape[-1], "norm_out")(x)
    feature = nn.silu(feature) if self.act_out else feature
    feature = feature.astype(self.dtype)
    return self.head(feature), feature
