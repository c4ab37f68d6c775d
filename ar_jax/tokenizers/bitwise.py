"""Infinity's bitwise tokenizer: an autoencoder without attention, whose latent
is coded as bits of residual maps of growing size.

Infinity (arXiv 2412.04431), section 3.2, after BSQ (arXiv 2406.07548); the maps
are those of `nn.quantize.scaled_bits`. Of stride 16 a cell of the latent is a
unit; of stride 8 (`fold`) 2 x 2 cells are one, with four times the bits.

Shapes: B batch, H W image sides, c image channels, h w sides of the latent in
cells, d bits of a cell, K bits of a unit, L units of all maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ar_jax.core.plans.makers import pair
from ar_jax.core.system import UserError, passes_on
from ar_jax.nn.layers.conv2d import Decoder, Encoder
from ar_jax.nn.quantize.scaled_bits import Coded, ScaledBits, check_inputs
from ar_jax.tokenizers.autoencoder import (
  Autoencoder,
  Reconstruction,
  autoencoder,
)
from ar_jax.tokenizers.code_maps import Latents

Array = jax.Array
Shape = int | tuple[int, int]

# Sides of the maps of square images, by their side in pixels.
SCALES = {
  256: (1, 2, 4, 6, 8, 12, 16),
  512: (1, 2, 4, 6, 8, 12, 16, 20, 24, 32),
  768: (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48),
  1024: (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64),
}


class BitMaps(Latents):
  """What a tokenizer is whose units are the bits of residual maps.

  A subclass has `latent`, and the fields `bits`, `scales`, `fold`, `inputs`,
  `in_channels`, `beta`, `entropy` and `group`; see `Bitwise`.
  """

  vocab = 2  # units are bits

  @property
  def maps(self) -> ScaledBits:
    """The quantiser, which has no parameters."""
    shapes = tuple(map(pair, self.scales))
    return ScaledBits(self.bits, shapes, self.fold, self.inputs)

  @property
  def unit_bits(self) -> int:
    """K."""
    return self.maps.width

  @property
  def channels(self) -> int:
    """K: what a generator reads of a unit."""
    return self.maps.width

  @property
  def length(self) -> int:
    """L."""
    return sum(self.maps.sizes)

  @property
  def sides(self) -> tuple[int, int]:
    """(H, W) of the images that `scales` describes."""
    h, w = pair(self.scales[-1])
    return self.stride * h, self.stride * w

  @property
  def size(self) -> int:
    """H."""
    return self.sides[0]

  def example(self) -> Array:
    """Zeros f32[1, H, W, c], an image as it reads one."""
    return jnp.zeros((1, *self.sides, self.in_channels))

  def of_grid(self, grid: tuple[int, int]) -> BitMaps:
    """The same tokenizer of images whose latents have these sides, in cells."""
    fold = 2 if self.fold else 1
    return self.clone(scales=(1, tuple(side // fold for side in grid)))

  def check(self, x: Array) -> None:
    """Raises UserError unless images [B, H, W, c] are of the size that `scales`
    describes."""
    if x.shape[1:] != (*self.sides, self.in_channels):
      have = "x".join(map(str, x.shape[1:]))
      want = "x".join(map(str, (*self.sides, self.in_channels)))
      raise UserError(
        f"image {have}: this tokenizer has stride {self.stride} and last map "
        f"{self.scales[-1]}, so it takes {want}; resize the data or change "
        "scales"
      )

  def encode(self, x: Array) -> Array:
    """Units i32[B, L, K] of images f32[B, H, W, c] in [-1, 1]."""
    return self.code(self.latent(x)).units

  def code(self, f: Array, **given) -> Coded:
    """See `ScaledBits.code`."""
    return self.maps.code(f, **given)

  def decode(self, units: Array) -> Array:
    """Images f32[B, H, W, c] in [-1, 1] of units i32[B, L, K]."""
    return self.decode_latent(self.maps.walk(units)[-1])

  def embed(self, units: Array) -> Array:
    """The generator's input f32[B, L, K] for known units i32[B, L, K]; zeros at
    the first map."""
    return self.maps.embed(units)

  def start(self, batch: int) -> Array:
    """S_0 = 0, f32[B, h, w, d], where `advance` begins."""
    return self.maps.start(batch)

  def advance(
    self, total: Array, k: int, units: Array
  ) -> tuple[Array, Array | None]:
    """Adds the units i32[B, h_k w_k, K] of map k, static, to the sum f32[B, h,
    w, d]; also the input f32[B, T, K] of the next map, None after the last."""
    total = self.maps.add(total, k, units)
    if k + 1 == len(self.scales):
      return total, None
    return total, self.maps.seen(total, k + 1)

  def __call__(self, x: Array, keys: Array | None = None) -> Reconstruction:
    """What training needs of images f32[B, H, W, c] in [-1, 1]."""
    del keys  # nothing random in here
    codes, losses, units = self.maps.quantized(
      self.latent(x), beta=self.beta, entropy=self.entropy, group=self.group
    )
    image, feature = self.decoded(codes)
    return Reconstruction(image, feature, units, losses)


class Bitwise(BitMaps):
  """The autoencoder. Defaults: the published one of 32 bits, for 256 pixels.

  Attributes:
    bits: d.
    ch: width of the first level of the convolutional nets.
    mult: width of each level in multiples of ch; 2^(levels - 1) pixels a cell.
    blocks: residual blocks a level in the encoder, one more in the decoder.
    scales: of the maps in units, each a side or (height, width), coarse first.
      Parameters do not depend on them.
    fold: whether 2 x 2 cells are one unit.
    inputs: see `ScaledBits`.
    in_channels: c.
    beta, entropy, group: see `ScaledBits.quantized`.
    dtype: of the convolutions; the quantiser is float32 always.
  """

  bits: int = 32
  ch: int = 128
  mult: tuple[int, ...] = (1, 2, 4, 4, 4)
  blocks: int = 2
  scales: tuple[Shape, ...] = SCALES[256]
  fold: bool = False
  inputs: str = "bilinear"
  in_channels: int = 3
  beta: float = 0.25
  entropy: float = 0.1
  group: int = 1
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    body = dict(
      ch=self.ch,
      mult=self.mult,
      blocks=self.blocks,
      mid_attention=False,
      dtype=self.dtype,
    )
    self.encoder = Encoder(z=self.bits, **body)
    self.decoder = Decoder(channels=self.in_channels, **body)

  @property
  def stride(self) -> int:
    """Pixels per side of a unit."""
    return 2 ** (len(self.mult) - 1 + self.fold)

  def latent(self, x: Array) -> Array:
    """F, f32[B, h, w, d], of images f32[B, H, W, c] in [-1, 1].

    Raises:
      UserError: the images are not of the size that `scales` describes.
    """
    self.check(x)
    return self.encoder(x)

  def decoded(self, latent: Array) -> tuple[Array, Array]:
    """See `Latents`; the feature is what the decoder's last convolution
    reads."""
    return self.decoder(latent)

  def to_image(self, feature: Array) -> Array:
    """The decoder's last convolution alone, unclipped."""
    return self.decoder.head(feature)


def frozen_scales(scales: Sequence[Shape]) -> tuple[Shape, ...]:
  """A list of maps as a value that hashes: sides, or pairs of them.

  Raises:
    UserError: it does not begin with one cell, or a map is lower or narrower
      than the one before.
  """
  found = tuple(
    int(s) if isinstance(s, int) else (int(s[0]), int(s[1])) for s in scales
  )
  shapes = list(map(pair, found))
  pairs = zip(shapes, shapes[1:], strict=False)
  shrinks = any(b[0] < a[0] or b[1] < a[1] for a, b in pairs)
  if not shapes or shapes[0] != (1, 1) or shrinks:
    raise UserError(
      f"scales={found}: must begin with 1, and no map may be lower or narrower "
      "than the one before"
    )
  return found


@passes_on(autoencoder)
def build(
  *,
  bits: int = 32,
  ch: int = 128,
  mult: Sequence[int] = (1, 2, 4, 4, 4),
  blocks: int = 2,
  scales: Sequence[Shape] = SCALES[256],
  fold: bool = False,
  inputs: str = "bilinear",
  in_channels: int = 3,
  beta: float = 0.25,
  entropy: float = 0.1,
  group: int = 1,
  dtype: str = "float32",
  **training,
) -> Autoencoder:
  """The tokenizer in training; `training` as `autoencoder.autoencoder`.

  Raises:
    UserError: `scales` are no list of maps, or there is no such `inputs`.
  """
  check_inputs(inputs)
  tokenizer = Bitwise(
    bits=bits,
    ch=ch,
    mult=tuple(mult),
    blocks=blocks,
    scales=frozen_scales(scales),
    fold=fold,
    inputs=inputs,
    in_channels=in_channels,
    beta=beta,
    entropy=entropy,
    group=group,
    dtype=jnp.dtype(dtype),
  )
  return autoencoder(tokenizer, **training)
