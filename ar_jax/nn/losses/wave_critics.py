"""Discriminators of sounds at several rates.

Shapes: B batch, N samples, S rates.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.nn.layers.conv1d import Conv1d

Array = jax.Array


class WaveCritic(nn.Module):
  """Judges a sound at one rate: convolutions of 15 samples, then strided ones
  of 4 r + 1, each with LeakyReLU 0.2 (MelGAN, arXiv 1910.06711).

  Attributes:
    width: channels of the first layer; they double up to 8 times that.
    strides: of the layers behind it.
    dtype: of the convolutions.
  """

  width: int = 16
  strides: tuple[int, ...] = (4, 4, 4)
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, list[Array]]:
    """(logits f32[B, n], positive for real; what each layer sees) of sounds
    [B, N]."""
    conv = lambda n, k, r, name: Conv1d(n, k, 1, r, self.dtype, name=name)
    x, seen = x[..., None], []
    x = nn.leaky_relu(conv(self.width, 15, 1, "conv_0")(x), 0.2)
    for i, r in enumerate(self.strides, 1):
      seen.append(x)
      x = x[:, : x.shape[1] // r * r]
      width = self.width * min(2**i, 8)
      x = nn.leaky_relu(conv(width, 4 * r + 1, r, f"conv_{i}")(x), 0.2)
    seen.append(x)
    logits = conv(1, 3, 1, "logits")(x)[..., 0]
    return logits.astype(jnp.float32), seen


class WaveCritics(nn.Module):
  """A `WaveCritic` for each of S rates, each half of the one before.

  Attributes:
    rates: S.
    width, strides, dtype: see `WaveCritic`.
  """

  rates: int = 3
  width: int = 16
  strides: tuple[int, ...] = (4, 4, 4)
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> list[tuple[Array, list[Array]]]:
    """What each says of sounds [B, N]."""
    said = []
    for i in range(self.rates):
      critic = WaveCritic(
        self.width, self.strides, self.dtype, name=f"critic_{i}"
      )
      said.append(critic(x))
      x = x[:, : x.shape[1] // 2 * 2].reshape(len(x), -1, 2).mean(-1)
    return said


def matching(
  real: list[tuple[Array, list[Array]]], fake: list[tuple[Array, list[Array]]]
) -> Array:
  """f32[B]: the mean distance of what the layers see of real and of made
  sounds; of the real ones nothing is learned (arXiv 1910.06711)."""
  total, count = 0.0, 0
  for (_, a), (_, b) in zip(real, fake, strict=True):
    for x, y in zip(a, b, strict=True):
      distance = jnp.abs(jax.lax.stop_gradient(x) - y).astype(jnp.float32)
      total, count = total + distance.mean((1, 2)), count + 1
  return total / count
