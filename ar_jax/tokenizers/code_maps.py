"""What tokenizers share: latents that decode, the codes of one map, and
residual maps of growing size.

Shapes: B batch, H W image sides, c image channels, h w latent sides, C latent
channels, K scales of side p_k, L units, V codes.
"""

from __future__ import annotations

import abc

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.signals.resize import resize
from ar_jax.core.system import UserError
from ar_jax.tokenizers.autoencoder import Reconstruction

Array = jax.Array


class Latents(nn.Module):
  """A tokenizer with a latent that decodes; it has `size`, the side of an image
  in pixels, `in_channels`, c, and `stride`, the pixels per side of a
  latent."""

  field = "image"  # of a batch, which it reads

  def example(self) -> Array:
    """Zeros f32[1, H, H, c], an image as it reads one."""
    return jnp.zeros((1, self.size, self.size, self.in_channels))

  @abc.abstractmethod
  def decoded(self, latent: Array) -> tuple[Array, Array]:
    """Images f32[B, H, W, c], not clipped, of latents f32[B, h, w, C], and
    what `to_image` makes them of."""

  @abc.abstractmethod
  def to_image(self, feature: Array) -> Array:
    """Images, not clipped, of what `decoded` gives second."""

  def decode_latent(self, latent: Array) -> Array:
    """Images f32[B, H, W, c] in [-1, 1] of latents f32[B, h, w, C]."""
    return jnp.clip(self.decoded(latent)[0], -1.0, 1.0)


class OneGrid(Latents):
  """`Latents` whose units are their cells, row by row."""

  @property
  def grid(self) -> tuple[int, int]:
    """(h, h), the units of an image of `size`."""
    return (self.size // self.stride,) * 2

  @property
  def length(self) -> int:
    """L, units per image."""
    return self.grid[0] * self.grid[1]

  def checked(self) -> OneGrid:
    """Itself.

    Raises:
      UserError: the size is no multiple of the stride.
    """
    if self.size % self.stride:
      raise UserError(
        f"size={self.size} is not a multiple of the stride {self.stride}"
      )
    return self


class Coded(Latents):
  """`Latents` of codes; it has a `quantizer`."""

  @abc.abstractmethod
  def latent(self, x: Array) -> Array:
    """f32[B, h, w, C] of images f32[B, H, W, c] in [-1, 1]."""

  def codebook(self) -> Array:
    """f32[V, C]."""
    return self.quantizer.codebook()

  def __call__(self, x: Array, keys: Array | None = None) -> Reconstruction:
    """What training needs of images f32[B, H, W, c] in [-1, 1]."""
    del keys  # nothing random in here
    codes, losses, units = self.quantizer(self.latent(x))
    image, feature = self.decoded(codes)
    return Reconstruction(image, feature, units.reshape(len(x), -1), losses)


class CodeMap(OneGrid, Coded):
  """What a tokenizer is whose units are the codes of one map of latents.

  A subclass has `size`, `in_channels`, and a `quantizer`, which is a
  `VectorQuantizer`.
  """

  def encode(
    self,
    x: Array,
    allowed: Array | None = None,
    slack: float | None = None,
  ) -> Array:
    """Units i32[B, L] of images f32[B, H, W, c] in [-1, 1], row by row; of
    codes that are allowed, see `nn.quantize.vq.nearest_allowed`."""
    given = {} if allowed is None else dict(allowed=allowed, slack=slack)
    return self.quantizer.encode(self.latent(x), **given).reshape(len(x), -1)

  def decode(self, units: Array, grid: tuple[int, int] | None = None) -> Array:
    """Images f32[B, H, W, c] in [-1, 1] of units i32[B, L], of a square if no
    grid (h, w) is given."""
    h, w = grid or (round(units.shape[1] ** 0.5),) * 2
    return self.decode_latent(self.embed(units).reshape(len(units), h, w, -1))

  def decode_part(
    self,
    units: Array,
    done: Array | int,
    grid: tuple[int, int] | None = None,
  ) -> Array:
    """As `decode`, of the first `done` units only; the rest is 0, grey. The
    grid is that of an image of `size` if none is given."""
    drawn = (jnp.arange(units.shape[1]) < done).astype(jnp.float32)
    lie = lambda x: x.reshape(len(x), *(grid or self.grid), -1)
    image = self.decode_latent(lie(self.embed(units) * drawn[None, :, None]))
    return image * resize(lie(drawn[None]), image.shape[1:3], "nearest")

  def embed(self, units: Array) -> Array:
    """The codes f32[..., C] of units i32[...]."""
    return self.codebook()[units]


class Pyramid(Coded):
  """What a tokenizer is whose units are residual maps of growing size.

  A subclass has `scales`, `in_channels`, and a `quantizer`, which is a
  `MultiScaleResidual`.
  """

  @property
  def size(self) -> int:
    """Side of the images that `scales` describes, in pixels."""
    return self.stride * self.scales[-1]

  @property
  def length(self) -> int:
    """L, units per image."""
    return sum(p * p for p in self.scales)

  def check(self, x: Array) -> None:
    """Raises UserError unless images [B, H, W, c] are of the size that `scales`
    describes."""
    if x.shape[1:] != (self.size, self.size, self.in_channels):
      height, width, channels = x.shape[1:]
      raise UserError(
        f"image {height}x{width}x{channels}: this tokenizer has stride "
        f"{self.stride} and last scale {self.scales[-1]}, so it takes "
        f"{self.size}x{self.size}x{self.in_channels}; resize the data or "
        "change scales"
      )

  def encode(
    self,
    x: Array,
    allowed: Array | None = None,
    slack: float | None = None,
  ) -> Array:
    """Units i32[B, L] of images f32[B, H, W, c] in [-1, 1], coarse first; of
    codes that are allowed, see `nn.quantize.vq.nearest_allowed`."""
    return self.quantizer.encode(self.latent(x), allowed, slack)[0]

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
