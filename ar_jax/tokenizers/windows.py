"""Sounds as vectors without a network: windows of their samples.

Shapes: B batch, N samples, r samples of a window, L = N / r.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.system import UserError
from ar_jax.tokenizers.given import Given

Array = jax.Array


class Windows(nn.Module):
  """The samples of a window, times `scale`.

  Attributes:
    samples: N of an example.
    stride: r.
    scale: 1 / the standard deviation of the data.
    rate: of the samples, in Hz.
    field: of a batch.
  """

  samples: int
  stride: int
  scale: float = 1.0
  rate: int = 16_000
  field: str = "audio"
  vocab = None

  @property
  def length(self) -> int:
    """L."""
    return self.samples // self.stride

  @property
  def channels(self) -> int:
    """The numbers of a unit, r."""
    return self.stride

  def example(self) -> Array:
    return jnp.zeros((1, self.samples))

  def encode(self, x: Array) -> Array:
    """f32[B, N / r, r] of sounds f32[B, N]; what is left over is not read."""
    whole = x.shape[1] // self.stride * self.stride
    return self.scale * x[:, :whole].reshape(len(x), -1, self.stride)

  def moments(self, x: Array) -> Array:
    """f32[B, L, 2 r]: the units, and log-variances that leave them alone."""
    units = self.encode(x)
    return jnp.concatenate([units, jnp.full_like(units, -30.0)], -1)

  def draw(self, moments: Array, keys: Array | None = None) -> Array:
    """Units f32[B, L, r] of moments; keys change nothing."""
    del keys
    return jnp.split(moments, 2, -1)[0]

  def decode(self, units: Array) -> Array:
    """Sounds f32[B, L r] in [-1, 1]."""
    x = units.reshape(len(units), -1) / self.scale
    return jnp.clip(x, -1.0, 1.0)

  def begin(self, batch: int) -> list[Array]:
    """What `go_on` carries at the beginning: nothing."""
    del batch
    return []

  def go_on(
    self, units: Array, before: list[Array]
  ) -> tuple[Array, list[Array]]:
    """As `decode`, of further units."""
    return self.decode(units), before

  def __call__(self, x: Array) -> Array:
    return self.decode(self.encode(x))


def build(
  *,
  samples: int,
  stride: int,
  scale: float = 1.0,
  rate: int = 16_000,
) -> Given:
  """Windows of samples as units; arguments as those of `Windows`.

  Raises:
    UserError: the samples are no multiple of the stride.
  """
  if stride < 1 or samples < stride or samples % stride:
    raise UserError(f"samples={samples}: must be a multiple of stride={stride}")
  return Given(Windows(samples, stride, scale, rate))
