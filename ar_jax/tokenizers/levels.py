"""Levels of pixels, or of small cells of them, as codes; see `given`.

Shapes: B batch, L units, V codes, H W image sides, c image channels, p side of
a cell.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError
from ar_jax.core.signals.patches import cut, join
from ar_jax.tokenizers.autoencoder import check_image

Array = jax.Array


class Levels(nn.Module):
  """Pixels as one of a few levels; a unit is a cell of p x p of them, row by
  row.

  Attributes:
    levels: of a pixel, at even distances from black to white; 256 lose
      nothing.
    size: H.
    in_channels: c.
    patch: p.
  """

  levels: int
  size: int
  in_channels: int = 1
  patch: int = 1
  field = "image"

  @property
  def vocab(self) -> int:
    """V, levels to the power of p p c."""
    return self.levels ** (self.patch**2 * self.in_channels)

  @property
  def grid(self) -> tuple[int, int]:
    """(H / p, H / p)."""
    return (self.size // self.patch,) * 2

  @property
  def length(self) -> int:
    """L."""
    return self.grid[0] * self.grid[1]

  def example(self) -> Array:
    return jnp.zeros((1, self.size, self.size, self.in_channels))

  def encode(self, x: Array) -> Array:
    """i32[B, L] of images f32[B, H, W, c] in [-1, 1]; the first pixel of a
    cell counts least.

    Raises:
      UserError: the images do not fit.
    """
    check_image(x, self.patch, self.in_channels)
    cells = cut(x, self.patch)
    cells = cells.reshape(len(x), -1, cells.shape[-1])
    level = jnp.round((cells + 1) / 2 * (self.levels - 1)).astype(jnp.int32)
    level = jnp.clip(level, 0, self.levels - 1)
    return jnp.sum(level * self._powers()[None, None], -1)

  def decode(self, units: Array) -> Array:
    """Images f32[B, H, W, c] in [-1, 1] of i32[B, L] of a square."""
    side = round(units.shape[1] ** 0.5)
    cells = self.embed(units).reshape(len(units), side, side, -1)
    return join(cells, self.patch)

  def decode_part(self, units: Array, done: Array | int) -> Array:
    """As `decode`, of the first `done` units only; the rest is 0, grey."""
    drawn = (jnp.arange(units.shape[1]) < done).astype(jnp.float32)
    cells = self.embed(units) * drawn[None, :, None]
    return join(cells.reshape(len(units), *self.grid, -1), self.patch)

  def embed(self, units: Array) -> Array:
    """The pixels f32[..., p p c] of units i32[...]."""
    powers = self._powers().reshape((1,) * units.ndim + (-1,))
    level = units[..., None] // powers % self.levels
    return level.astype(jnp.float32) / (self.levels - 1) * 2 - 1

  def codebook(self) -> Array:
    """f32[V, p p c]."""
    return self.embed(jnp.arange(self.vocab))

  def __call__(self, x: Array) -> Array:
    return self.decode(self.encode(x))

  def _powers(self) -> Array:
    return self.levels ** jnp.arange(self.patch**2 * self.in_channels)


class Pixels(nn.Module):
  """Pixels as the levels of their channels, row by row: a unit is c levels.

  Attributes:
    levels: V, at even distances from black to white; 256 lose nothing.
    size: H.
    in_channels: c.
  """

  levels: int
  size: int
  in_channels: int = 1
  field = "image"

  @property
  def vocab(self) -> int:
    """V, of a channel."""
    return self.levels

  @property
  def grid(self) -> tuple[int, int]:
    """(H, H)."""
    return (self.size, self.size)

  @property
  def length(self) -> int:
    """L."""
    return self.size**2

  def example(self) -> Array:
    return jnp.zeros((1, self.size, self.size, self.in_channels))

  def encode(self, x: Array) -> Array:
    """i32[B, L, c] of images f32[B, H, W, c] in [-1, 1].

    Raises:
      UserError: the images are of another size.
    """
    want = (self.size, self.size, self.in_channels)
    if x.shape[1:] != want:
      raise UserError(
        f"image {x.shape[1:]}: this model is of pixels {want}; change "
        "data.size and data.channels, or size and in_channels of its tokenizer"
      )
    level = jnp.round((x + 1) / 2 * (self.levels - 1)).astype(jnp.int32)
    level = jnp.clip(level, 0, self.levels - 1)
    return level.reshape(len(x), self.length, self.in_channels)

  def decode(self, units: Array) -> Array:
    """Images f32[B, H, W, c] in [-1, 1] of i32[B, L, c]."""
    return self.embed(units).reshape(-1, *self.grid, self.in_channels)

  def decode_part(self, units: Array, done: Array | int) -> Array:
    """As `decode`, of the first `done` units only; the rest is 0, grey."""
    drawn = (jnp.arange(self.length) < done).astype(jnp.float32)
    pixels = self.embed(units) * drawn[None, :, None]
    return pixels.reshape(-1, *self.grid, self.in_channels)

  def embed(self, units: Array) -> Array:
    """The values f32[...] in [-1, 1] of levels i32[...]."""
    return units.astype(jnp.float32) / (self.levels - 1) * 2 - 1

  def __call__(self, x: Array) -> Array:
    return self.decode(self.encode(x))
