"""Convolutions over videos that do not look ahead: a frame is made of itself
and of earlier ones, so that the first frames of a video have a code of their
own (MAGVIT-2, arXiv 2310.05737).

Shapes: B batch, T frames, H W sides, c channels.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class CausalConv(nn.Module):
  """A convolution over [B, T, H, W, c]; the border is repeated on all sides,
  in time on the front alone.

  Attributes:
    channels: that it makes.
    kernel: odd sides in time, height and width.
    strides: the same.
    dtype: of the computation.
  """

  channels: int
  kernel: tuple[int, int, int] = (3, 3, 3)
  strides: tuple[int, int, int] = (1, 1, 1)
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, ceil(T / t), H / h, W / w, channels]."""
    shape = (*self.kernel, x.shape[-1], self.channels)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
    bias = self.param("bias", nn.initializers.zeros, (self.channels,))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    time, *sides = (k // 2 for k in self.kernel)
    room = ((0, 0), (2 * time, 0), *((n, n) for n in sides), (0, 0))
    x = jnp.pad(x, room, mode="edge")
    x = jax.lax.conv_general_dilated(
      x, kernel, self.strides, "VALID", dimension_numbers=_ORDER
    )
    return x + bias.reshape(1, 1, 1, 1, -1)


_ORDER = ("NDHWC", "DHWIO", "NDHWC")


class Swish(nn.Module):
  """x sigmoid(beta x), with a learned beta for each channel."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    beta = self.param("beta", nn.initializers.ones, (x.shape[-1],))
    beta = beta.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    return x * nn.sigmoid(beta * x)


class FrameNorm(nn.Module):
  """GroupNorm of every frame by itself, in float32: over all frames at once a
  frame would know of later ones. 32 groups, or the most below that which
  divide c."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    channels = x.shape[-1]
    groups = math.gcd(32, channels)
    scale = self.param("scale", nn.initializers.ones, (channels,))
    bias = self.param("bias", nn.initializers.zeros, (channels,))
    y = x.astype(jnp.float32).reshape(*x.shape[:-1], groups, -1)
    axes = (2, 3, 5)
    y = y - y.mean(axes, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(axes, keepdims=True) + 1e-5)
    wide = lambda p: p.reshape(1, 1, 1, 1, -1)
    return (y.reshape(x.shape) * wide(scale) + wide(bias)).astype(x.dtype)


class CausalResBlock(nn.Module):
  """x + conv(swish(norm(conv(swish(norm(x)))))), with a 1 x 1 x 1 convolution
  of x where the channels change."""

  channels: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    conv = lambda name, side=3: CausalConv(
      self.channels, (side,) * 3, dtype=self.dtype, name=name
    )
    h = Swish(name="act1")(FrameNorm(name="norm1")(x))
    h = conv("conv1")(h)
    h = Swish(name="act2")(FrameNorm(name="norm2")(h))
    h = conv("conv2")(h)
    if x.shape[-1] != self.channels:
      x = conv("shortcut", 1)(x)
    return x + h


class SpaceTimeUp(nn.Module):
  """More frames and larger sides: a convolution to as many channels more, which
  become the cells of a block, in time, height and width. Of the first frame
  only the last of the new ones stays, so that one frame stays one.

  Attributes:
    factors: in time, height and width.
    dtype: of the computation.
  """

  factors: tuple[int, int, int]
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    channels = x.shape[-1] * math.prod(self.factors)
    x = CausalConv(channels, dtype=self.dtype, name="conv")(x)
    return depth_to_space_time(x, self.factors)


def depth_to_space_time(x: Array, factors: tuple[int, int, int]) -> Array:
  """[B, t T - t + 1, h H, w W, c] of [B, T, H, W, t h w c], whose channels
  count the cells first."""
  b, *sides, channels = x.shape
  count = math.prod(factors)
  x = x.reshape(b, *sides, *factors, channels // count)
  x = x.transpose(0, 1, 4, 2, 5, 3, 6, 7)
  shape = [n * f for n, f in zip(sides, factors, strict=True)]
  return x.reshape(b, *shape, -1)[:, factors[0] - 1 :]
