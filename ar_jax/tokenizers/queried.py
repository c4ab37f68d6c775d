"""GigaTok's net: convolutions to a grid, queries that read it into a line of
codes, queries that draw a grid from these, convolutions to an image.

Shapes: B batch, H W image sides, c image channels, G = H / stride side of the
grid, z channels of the nets at the grid, L units, C numbers of a code, V codes,
D width of a transformer, F numbers of a feature of a teacher.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import check_choice
from ar_jax.core.system import UserError
from ar_jax.nn.layers.conv2d import Decoder, Encoder, conv3
from ar_jax.nn.layers.norms import LayerNorm
from ar_jax.nn.losses.alignment import Projector
from ar_jax.nn.quantize.vq import VectorQuantizer
from ar_jax.nn.stacks.queries import Queries
from ar_jax.tokenizers.autoencoder import Reconstruction, check_image

Array = jax.Array
MASKS = ("none", "token", "level")


def groups(length: int) -> list[tuple[int, int]]:
  """(rows, columns) of the parts of an image whose means are queries: one of
  all of it, and then 1, 2, 4, ... up to L / 2 parts; L queries in all.

  Raises:
    UserError: L is no power of two above 1.
  """
  levels = length.bit_length() - 1
  if length < 2 or length != 2**levels:
    raise UserError(f"length={length}: must be 2, 4, 8, ...")
  each = [0, *range(levels)]
  return [(2 ** (n // 2), 2 ** (n - n // 2)) for n in each]


def means(x: Array, length: int) -> Array:
  """f32[B, L, D] of a map [B, G, G, D]: the means of its parts, see `groups`,
  row by row."""
  b, g, _, width = x.shape
  found = []
  for h, w in groups(length):
    parts = x.reshape(b, h, g // h, w, g // w, width).mean((2, 4))
    found.append(parts.reshape(b, h * w, width))
  return jnp.concatenate(found, 1)


def visible(length: int, kind: str) -> np.ndarray | None:
  """bool[L, L], which query of the encoder sees which: all, those before it,
  or those of its group and before. The published models have all.

  Raises:
    UserError: there is no such mask.
  """
  check_choice("mask", kind, MASKS)
  if kind == "none":
    return None
  level = np.arange(length)
  if kind == "level":
    level = np.maximum(np.log2(np.maximum(level, 1)).astype(int), 0)
  return level[None] <= level[:, None]


class GigaTok(nn.Module):
  """The tokenizer.

  Attributes:
    vocab: V.
    channels: C.
    length: L, a power of two.
    encoder_sizes: width, layers and heads of the transformer that reads.
    decoder_sizes: of the one that draws.
    z: channels at the grid.
    ch, mult, blocks: of the convolutions; see `conv2d.Encoder`.
    size: H.
    in_channels: c.
    beta, entropy, spread, rotation: see `VectorQuantizer`.
    mask: of the queries that read; see `visible`.
    tap: layers of the decoder behind which states are aligned.
    aligned: F; 0 aligns nothing.
    direct: whether `__call__` also decodes the features of the convolutions,
      past transformers and codes.
    remat: whether transformers compute again what the backward pass needs.
    dtype: of the products; the quantiser is float32 always.
  """

  vocab: int = 16384
  channels: int = 8
  length: int = 256
  encoder_sizes: tuple[int, int, int] = (512, 6, 8)
  decoder_sizes: tuple[int, int, int] = (512, 6, 8)
  z: int = 256
  ch: int = 128
  mult: tuple[int, ...] = (1, 1, 2, 2, 4)
  blocks: int = 2
  size: int = 256
  in_channels: int = 3
  beta: float = 0.25
  entropy: float = 0.0
  spread: float | None = None
  rotation: bool = False
  mask: str = "none"
  tap: int = 3
  aligned: int = 0
  direct: bool = False
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  field = "image"  # of a batch, which it reads

  def setup(self):
    body = dict(
      ch=self.ch, mult=self.mult, blocks=self.blocks, mid_attention=False,
      dtype=self.dtype,
    )  # fmt: skip
    self.encoder = Encoder(z=self.z, **body)
    self.decoder = Decoder(channels=self.in_channels, adaptive=True, **body)
    (width, depth, heads), own = self.encoder_sizes, dict(dtype=self.dtype)
    more = dict(remat=self.remat, **own)
    init = nn.initializers.truncated_normal(0.02)
    dense = lambda n: nn.Dense(n, kernel_init=init, **own)
    self.reads_norm, self.reads_embed = LayerNorm(1e-5), dense(width)
    self.reads_query, self.reads_out = dense(width), dense(self.z)
    self.reads = Queries(depth, heads, **more)
    rows = lambda name, n, width: self.param(
      name, nn.initializers.normal(width**-0.5), (n, width)
    )
    cells = self.cells
    self.reads_units = rows("reads_units", self.length, width)
    self.reads_cells = rows("reads_cells", cells, width)
    width, depth, heads = self.decoder_sizes
    self.draws_norm, self.draws_embed = LayerNorm(1e-5), dense(width)
    self.draws = Queries(depth, heads, self.tap, **more)
    self.draws_out = conv3(self.z, self.dtype)
    self.draws_units = rows("draws_units", self.length, width)
    self.draws_cells = rows("draws_cells", cells, width)
    if self.aligned:
      hidden = (4 * width, 4 * width)
      self.projector = Projector(self.aligned, hidden, self.dtype, silu=True)
    # Made as PyTorch makes them: uniform, the bias as well.
    self.quant, self.post_quant = nn.Dense(self.channels), nn.Dense(self.z)
    self.quantizer = VectorQuantizer(
      self.vocab, self.channels, beta=self.beta, entropy=self.entropy,
      spread=self.spread, rotation=self.rotation,
    )  # fmt: skip

  @property
  def stride(self) -> int:
    """Pixels per side of a cell of the grid."""
    return 2 ** (len(self.mult) - 1)

  @property
  def cells(self) -> int:
    """G^2."""
    return (self.size // self.stride) ** 2

  def example(self) -> Array:
    """Zeros f32[1, H, H, c], an image as it reads one."""
    return jnp.zeros((1, self.size, self.size, self.in_channels))

  def checked(self) -> GigaTok:
    """Itself.

    Raises:
      UserError: sizes do not fit together.
    """
    side = self.size // self.stride
    if self.size % self.stride:
      raise UserError(
        f"size={self.size} is not a multiple of the stride {self.stride}"
      )
    if any(side % n for part in groups(self.length) for n in part):
      raise UserError(
        f"length={self.length}: a grid of {side}x{side} has no such parts"
      )
    visible(self.length, self.mask)
    if self.aligned and not 0 < self.tap <= self.decoder_sizes[1]:
      raise UserError(
        f"tap={self.tap}: the decoder has {self.decoder_sizes[1]} layers"
      )
    return self

  def codebook(self) -> Array:
    """f32[V, C], of unit length."""
    return self.quantizer.codebook()

  def embed(self, units: Array) -> Array:
    """The codes f32[..., C] of units i32[...]."""
    return self.codebook()[units]

  def features(self, x: Array) -> Array:
    """f32[B, G, G, z] of the convolutions alone, of images in [-1, 1].

    Raises:
      UserError: the images are of another size.
    """
    check_image(x, self.stride, self.in_channels)
    if x.shape[1:3] != (self.size, self.size):
      raise UserError(
        f"image {x.shape[1]}x{x.shape[2]}: this tokenizer takes "
        f"{self.size}x{self.size}; resize the data or change size"
      )
    return self.encoder(x)

  def read(self, features: Array) -> Array:
    """f32[B, L, z], what the queries read of a map f32[B, G, G, z]."""
    b, g = features.shape[:2]
    memory = features.reshape(b, g * g, -1)
    memory = self.reads_embed(self.reads_norm(memory))
    queries = means(memory.reshape(b, g, g, -1), self.length)
    x, _ = self.reads(
      self.reads_query(queries),
      self.reads_units,
      memory,
      self.reads_cells,
      visible(self.length, self.mask),
    )
    return self.reads_out(x).astype(jnp.float32)

  def latent(self, x: Array) -> Array:
    """f32[B, L, C] of images f32[B, H, H, c] in [-1, 1]."""
    return self.quant(self.read(self.features(x)))

  def drawn(self, codes: Array) -> tuple[Array, Array]:
    """The map f32[B, G, G, z] that codes f32[B, L, C] lead to, and states
    [B, G^2, D] behind layer `tap`."""
    b, side = len(codes), round(self.cells**0.5)
    memory = self.draws_embed(self.draws_norm(self.post_quant(codes)))
    # The first of the units, everywhere.
    first = jnp.broadcast_to(
      memory[:, :1], (b, self.cells, self.decoder_sizes[0])
    )
    x, tapped = self.draws(first, self.draws_cells, memory, self.draws_units)
    x = self.draws_out(x.reshape(b, side, side, -1))
    return x.astype(jnp.float32), tapped

  def encode(self, x: Array) -> Array:
    """Units i32[B, L] of images f32[B, H, H, c] in [-1, 1]."""
    return self.quantizer.encode(self.latent(x))

  def decode(self, units: Array) -> Array:
    """Images f32[B, H, H, c] in [-1, 1] of units i32[B, L]."""
    image, _ = self.decoder(self.drawn(self.embed(units))[0])
    return jnp.clip(image, -1.0, 1.0)

  def to_image(self, feature: Array) -> Array:
    """The decoder's last convolution alone, unclipped."""
    return self.decoder.head(feature)

  def __call__(self, x: Array, keys: Array | None = None) -> Reconstruction:
    """What training needs of images f32[B, H, H, c] in [-1, 1]. In `more` are
    `aligned` f32[B, G^2, F], and of `direct` the image and, `apart` f32[B],
    how far the two maps that the decoder reads lie apart."""
    del keys  # nothing random in here
    features = self.features(x)
    codes, losses, units = self.quantizer(self.quant(self.read(features)))
    drawn, tapped = self.drawn(codes)
    image, feature = self.decoder(drawn)
    more = {}
    if self.aligned:
      more["aligned"] = self.projector(tapped)
    if self.direct:
      held = jax.lax.stop_gradient(features)
      more["direct"] = self.decoder(features)[0]
      more["apart"] = jnp.square(held - drawn).mean((1, 2, 3))
    return Reconstruction(image, feature, units, losses, more=more)
