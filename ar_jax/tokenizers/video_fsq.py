"""The tokenizer of videos of NBP: causal convolutions in space and time, and
rounding in place of a table of codes.

In the line of MAGVIT-2 (arXiv 2310.05737), as "Next Block Prediction" has it
(arXiv 2502.07737): 17 frames of 128 pixels become 5 maps of 16 x 16 codes, of
8 x 8 x 8 x 5 x 5 x 5 = 64,000. The first map is of the first frame alone, and
no map knows of frames behind its own; so the first frames of a video have the
codes that they have in the whole of it.

The published nets see pixels in [0, 1]; ours take and give videos in [-1, 1],
as all tokenizers here.

Shapes: B batch, T frames, H W sides, c channels, t maps of h x w codes, K
numbers of a code, L = t h w, V codes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.system import UserError, passes_on
from ar_jax.nn.layers.conv3d import (
  CausalConv,
  CausalResBlock,
  FrameNorm,
  SpaceTimeUp,
  Swish,
)
from ar_jax.nn.quantize.bits import FSQ
from ar_jax.tokenizers.autoencoder import Reconstruction, autoencoder
from ar_jax.tokenizers.lookup_free import Rounded
from ar_jax.tokenizers.video_autoencoder import VideoAutoencoder, check_video

Array = jax.Array
Steps = tuple[tuple[int, int, int], ...]
LEVELS = (8, 8, 8, 5, 5, 5)
STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2))


class VideoEncoder(nn.Module):
  """Videos [B, T, H, W, c] to latents f32[B, t, h, w, K]; attributes as of
  `VideoFSQ`."""

  ch: int
  mult: tuple[int, ...]
  blocks: tuple[int, ...]
  strides: Steps
  latent: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = CausalConv(self.ch, dtype=self.dtype, name="conv_in")(x)
    for level, mult in enumerate(self.mult):
      at, width = f"down_{level}", self.ch * mult
      for i in range(self.blocks[level]):
        x = CausalResBlock(width, self.dtype, name=f"{at}_block_{i}")(x)
      if level < len(self.strides):
        steps = self.strides[level]
        down = CausalConv(width, strides=steps, dtype=self.dtype, name=at)
        x = down(x)
    x = Swish(name="act_out")(FrameNorm(name="norm_out")(x))
    point = (1, 1, 1)
    x = CausalConv(self.latent, point, dtype=self.dtype, name="conv_out")(x)
    return x.astype(jnp.float32)


class VideoDecoder(nn.Module):
  """Latents [B, t, h, w, K] to videos [B, T, H, W, c]; mirrors
  `VideoEncoder`."""

  ch: int
  mult: tuple[int, ...]
  blocks: tuple[int, ...]
  strides: Steps
  channels: int
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    self.conv_out = CausalConv(self.channels, dtype=self.dtype)

  def head(self, feature: Array) -> Array:
    return self.conv_out(feature).astype(jnp.float32)

  @nn.compact
  def __call__(self, z: Array) -> tuple[Array, Array]:
    """The video, f32, and the feature that `head` turns into it."""
    top = self.ch * self.mult[-1]
    x = CausalConv(top, dtype=self.dtype, name="conv_in")(z)
    for level, mult in reversed(list(enumerate(self.mult))):
      at = f"up_{level}"
      for i in range(self.blocks[level]):
        name = f"{at}_block_{i}"
        x = CausalResBlock(self.ch * mult, self.dtype, name=name)(x)
      if level:
        x = SpaceTimeUp(self.strides[level - 1], self.dtype, name=at)(x)
    feature = Swish(name="act_out")(FrameNorm(name="norm_out")(x))
    return self.head(feature), feature


class VideoFSQ(nn.Module):
  """The autoencoder. Defaults: the published one.

  Attributes:
    quantizer: of its latents.
    ch: width of the first level.
    mult: width of each level in multiples of ch.
    blocks: residual blocks of each level, in both nets.
    strides: in time, height and width, between a level and the next.
    size: H.
    frames: T.
    in_channels: c.
    dtype: of the convolutions; rounding is float32 always.
  """

  quantizer: Rounded = Rounded(FSQ(LEVELS, "tan"), len(LEVELS))
  ch: int = 128
  mult: tuple[int, ...] = (1, 2, 2, 4)
  blocks: tuple[int, ...] = (4, 4, 4, 8)
  strides: Steps = STRIDES
  size: int = 128
  frames: int = 17
  in_channels: int = 3
  dtype: jnp.dtype = jnp.float32
  field = "video"

  def setup(self):
    body = dict(
      ch=self.ch,
      mult=self.mult,
      blocks=self.blocks,
      strides=self.strides,
      dtype=self.dtype,
    )
    self.encoder = VideoEncoder(latent=self.channels, **body)
    self.decoder = VideoDecoder(channels=self.in_channels, **body)

  @property
  def vocab(self) -> int:
    """V."""
    return self.quantizer.vocab

  @property
  def channels(self) -> int:
    """K."""
    return self.quantizer.channels

  @property
  def period(self) -> int:
    """Frames of a map, of all but the first."""
    return math.prod(s[0] for s in self.strides)

  @property
  def stride(self) -> int:
    """Pixels per side of a code."""
    return math.prod(s[1] for s in self.strides)

  @property
  def volume(self) -> tuple[int, int, int]:
    """(t, h, w)."""
    side = self.size // self.stride
    return (self.frames - 1) // self.period + 1, side, side

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of all maps, one below the other."""
    t, h, w = self.volume
    return t * h, w

  @property
  def length(self) -> int:
    """L."""
    return math.prod(self.volume)

  def maps(self, frames: int) -> int:
    """How many maps the first frames of a video have.

    Raises:
      UserError: they end within one.
    """
    if frames < 1 or (frames - 1) % self.period:
      raise UserError(
        f"{frames} frames of a video: this tokenizer codes the first frame and "
        f"then {self.period} at a time; give 1, {1 + self.period}, "
        f"{1 + 2 * self.period}, ..."
      )
    return (frames - 1) // self.period + 1

  def example(self) -> Array:
    side = (self.size, self.size, self.in_channels)
    return jnp.zeros((1, self.frames, *side))

  def latent(self, x: Array) -> Array:
    """E(x), f32[B, t, h, w, K], of videos in [-1, 1].

    Raises:
      UserError: they have other frames, sides or channels.
    """
    check_video(x, self.frames, self.stride, self.in_channels)
    return self.encoder((x + 1) / 2)

  def decoded(self, latent: Array) -> tuple[Array, Array]:
    """Videos, not clipped, of latents f32[B, t, h, w, K], and what `to_image`
    makes them of."""
    video, feature = self.decoder(latent)
    return 2 * video - 1, feature

  def to_image(self, feature: Array) -> Array:
    """The decoder's last convolution alone, unclipped."""
    return 2 * self.decoder.head(feature) - 1

  def encode(self, x: Array) -> Array:
    """Codes i32[B, L] of videos f32[B, T, H, W, c] in [-1, 1], map by map."""
    return self.quantizer.encode(self.latent(x)).reshape(len(x), -1)

  def decode(self, units: Array) -> Array:
    """Videos f32[B, T, H, W, c] in [-1, 1] of codes i32[B, L]."""
    lie = self.embed(units).reshape(len(units), *self.volume, self.channels)
    return jnp.clip(self.decoded(lie)[0], -1.0, 1.0)

  def embed(self, units: Array) -> Array:
    """The codes f32[..., K] of units i32[...]."""
    return self.quantizer.embed(units)

  def codebook(self) -> Array:
    """f32[V, K]."""
    return self.quantizer.codebook()

  def __call__(self, x: Array, keys: Array | None = None) -> Reconstruction:
    """What training needs of videos f32[B, T, H, W, c] in [-1, 1]."""
    del keys  # nothing random in here
    code, losses, units = self.quantizer(self.latent(x))
    video, feature = self.decoded(code)
    return Reconstruction(video, feature, units.reshape(len(x), -1), losses)


@passes_on(autoencoder)
def build(
  *,
  levels: Sequence[int] = LEVELS,
  bound: str = "tan",
  ch: int = 128,
  mult: Sequence[int] = (1, 2, 2, 4),
  blocks: Sequence[int] = (4, 4, 4, 8),
  strides: Sequence[Sequence[int]] = STRIDES,
  size: int = 128,
  frames: int = 17,
  in_channels: int = 3,
  dtype: str = "float32",
  **training,
) -> VideoAutoencoder:
  """The tokenizer in training; `training` as `autoencoder.autoencoder`.

  Args:
    levels, bound: see `bits.FSQ`.
    ch, mult, blocks, strides, size, frames, in_channels, dtype: see `VideoFSQ`.

  Raises:
    UserError: sizes do not fit together.
  """
  steps = tuple(tuple(int(n) for n in s) for s in strides)
  if len(mult) != len(blocks) or len(steps) != len(mult) - 1:
    raise UserError(
      f"mult={tuple(mult)}, blocks={tuple(blocks)}, strides={steps}: a number "
      "of both for each level, and a stride between two"
    )
  if not all(len(s) == 3 and min(s) > 0 and s[1] == s[2] for s in steps):
    raise UserError(
      f"strides={steps}: each of three numbers, in time, height and width, the "
      "last two alike"
    )
  made = VideoFSQ(
    Rounded(FSQ(tuple(levels), bound), len(levels)),
    ch,
    tuple(mult),
    tuple(blocks),
    steps,
    size,
    frames,
    in_channels,
    jnp.dtype(dtype),
  )
  if size % made.stride:
    raise UserError(f"size={size} is not a multiple of stride {made.stride}")
  made.maps(frames)
  base = autoencoder(made, **training)
  fields = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}
  return VideoAutoencoder(**fields)
