"""The units of a video by a tokenizer of images; see `given`.

Shapes: B batch, L units, T frames, H W image sides, c image channels, C
channels of a unit.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.system import UserError

Array = jax.Array


class Frames(nn.Module):
  """The units of every frame of a video, one frame behind the other. Its
  parameters are those of the tokenizer of images.

  Attributes:
    body: the tokenizer of images, whose units lie on one grid.
    frames: T.
  """

  body: nn.Module
  frames: int
  field = "video"

  def setup(self):
    nn.share_scope(self, self.body)

  @property
  def vocab(self) -> int | None:
    return self.body.vocab

  @property
  def channels(self) -> int:
    """Numbers of a unit, where units are vectors."""
    return self.body.channels

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of all frames, one below the other."""
    rows, cols = self.body.grid
    return self.frames * rows, cols

  @property
  def length(self) -> int:
    """L."""
    return self.grid[0] * self.grid[1]

  @property
  def volume(self) -> tuple[int, int, int]:
    """Units along time, rows and columns."""
    return self.frames, *self.body.grid

  def maps(self, frames: int) -> int:
    """How many maps of units the first frames of a video have: one each."""
    return frames

  def example(self) -> Array:
    body = self.body
    side = (body.size, body.size, body.in_channels)
    return jnp.zeros((1, self.frames, *side))

  def encode(self, x: Array) -> Array:
    """[B, L, ...] of videos f32[B, T, H, W, c] in [-1, 1].

    Raises:
      UserError: they have another number of frames, or the frames do not fit.
    """
    return self._each(self.body.encode, x)

  def moments(self, x: Array) -> Array:
    """As `encode`, of tokenizers with vectors as units."""
    return self._each(self.body.moments, x)

  def draw(self, moments: Array, keys: Array | None = None) -> Array:
    """Units of moments [B, L, 2 C], see the tokenizer of images."""
    return self.body.draw(moments, keys)

  def decode(self, units: Array) -> Array:
    """Videos f32[B, T, H, W, c] in [-1, 1] of units [B, L, ...]."""
    flat = units.reshape(len(units) * self.frames, -1, *units.shape[2:])
    image = self.body.decode(flat)
    return image.reshape(len(units), self.frames, *image.shape[1:])

  def codebook(self) -> Array:
    return self.body.codebook()

  def __call__(self, x: Array) -> Array:
    # In training a tokenizer may make parameters that coding never reads.
    return self.body(x.reshape(-1, *x.shape[2:]))

  def _each(self, code: Callable, x: Array) -> Array:
    if x.ndim != 5 or x.shape[1] != self.frames:
      raise UserError(
        f"video of shape {x.shape[1:]}: this tokenizer takes {self.frames} "
        "frames; change frames or those of the data"
      )
    units = code(x.reshape(-1, *x.shape[2:]))
    return units.reshape(len(x), -1, *units.shape[2:])
