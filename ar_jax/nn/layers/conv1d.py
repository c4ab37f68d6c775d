"""Convolutions over time: the parts of autoencoders of sounds.

What a causal stack has to remember of the samples before is a list with an
entry for each of its convolutions, in the order in which they are called; see
`Carry`. So a sound that is made in pieces is the sound that is made at once.

Shapes: B batch, N samples, C channels, r stride.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError

Array = jax.Array


class Carry:
  """What the convolutions of a causal stack carry from piece to piece.

  Attributes:
    before: [B, rows, C] for each convolution, the last rows that it has read;
      None at the beginning of a sound, where these are zeros.
    after: the same behind the piece that is being read, as far as it is read.
  """

  def __init__(self, before: Sequence[Array] | None = None):
    self.before, self.after = before, []

  def behind(self, x: Array, rows: int) -> Array:
    """[B, rows + N, C]: a piece behind what was read before."""
    if self.before is None:
      x = jnp.pad(x, ((0, 0), (rows, 0), (0, 0)))
    else:
      x = jnp.concatenate([self.before[len(self.after)].astype(x.dtype), x], 1)
    self.after.append(x[:, x.shape[1] - rows :])
    return x


class Snake(nn.Module):
  """x + sin(a x)^2 / a with an a for each channel, 1 at first (arXiv
  2006.08195)."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    a = self.param("alpha", nn.initializers.ones, x.shape[-1:])
    a = a.astype(x.dtype).reshape(*(1,) * (x.ndim - 1), -1)
    return x + jnp.square(jnp.sin(a * x)) / (a + 1e-9)


class Conv1d(nn.Module):
  """A convolution that keeps the length, or divides it by its stride.

  Attributes:
    features: channels that come out.
    kernel: K.
    dilation: between the samples that it reads.
    stride: r.
    dtype: of the products.
  """

  features: int
  kernel: int
  dilation: int = 1
  stride: int = 1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, carry: Carry | None = None) -> Array:
    """[B, N / r, features] of [B, N, C].

    Args:
      x: N is a multiple of r.
      carry: what was before; then no sample sees a later one. None for a
        convolution that looks as far ahead as back.
    """
    reach = (self.kernel - 1) * self.dilation + 1 - self.stride
    if carry is not None:
      x = carry.behind(x, reach)
    else:
      x = jnp.pad(x, ((0, 0), (reach // 2, reach - reach // 2), (0, 0)))
    return nn.Conv(
      self.features,
      (self.kernel,),
      strides=(self.stride,),
      kernel_dilation=(self.dilation,),
      padding="VALID",
      dtype=self.dtype,
      name="conv",
    )(x)


class ResidualUnit(nn.Module):
  """x + conv 1 (snake (conv 7 (snake x))), the first of them dilated.

  Attributes:
    dilation: of the first convolution.
    kernel: its samples.
    dtype: of the products.
  """

  dilation: int = 1
  kernel: int = 7
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, carry: Carry | None = None) -> Array:
    width = x.shape[-1]
    y = Snake(name="snake_0")(x)
    y = Conv1d(width, self.kernel, self.dilation, 1, self.dtype, name="wide")(
      y, carry
    )
    y = Snake(name="snake_1")(y)
    return x + Conv1d(width, 1, dtype=self.dtype, name="point")(y)


class Down(nn.Module):
  """Snake, a convolution of stride r and, beside it, `averaged`.

  Attributes:
    features: channels that come out.
    stride: r.
    dtype: of the products.
  """

  features: int
  stride: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, N / r, features] of [B, N, C]."""
    y = Snake(name="snake")(x)
    r = self.stride
    y = Conv1d(self.features, 2 * r, 1, r, self.dtype, name="conv")(y)
    return y + averaged(x, r, self.features)


class Up(nn.Module):
  """Snake, a causal transposed convolution of stride r and 2 r samples, which
  is one over two samples with r times as many channels, and beside it
  `repeated`.

  Attributes:
    features: channels that come out.
    stride: r.
    dtype: of the products.
  """

  features: int
  stride: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, carry: Carry) -> Array:
    """[B, r N, features] of [B, N, C]."""
    y, r = Snake(name="snake")(x), self.stride
    y = Conv1d(r * self.features, 2, dtype=self.dtype, name="conv")(y, carry)
    return to_time(y, r) + repeated(x, r, self.features)


def to_channels(x: Array, stride: int) -> Array:
  """[B, N / r, C r] of [B, N, C]: r samples in a row become channels, those of
  one channel side by side."""
  b, n, c = x.shape
  x = x.reshape(b, n // stride, stride, c)
  return jnp.swapaxes(x, 2, 3).reshape(b, n // stride, c * stride)


def to_time(x: Array, stride: int) -> Array:
  """[B, r N, C] of [B, N, C r]: `to_channels` undone."""
  b, n, c = x.shape
  x = x.reshape(b, n, c // stride, stride)
  return jnp.swapaxes(x, 2, 3).reshape(b, n * stride, c // stride)


def averaged(x: Array, stride: int, features: int) -> Array:
  """[B, N / r, features] of [B, N, C] without a parameter: r samples as
  channels, then the means of r C / features of them that lie side by side
  (CLEAR, arXiv 2508.19098)."""
  x = to_channels(x, stride)
  return x.reshape(*x.shape[:2], features, -1).mean(-1)


def repeated(x: Array, stride: int, features: int) -> Array:
  """[B, r N, features] of [B, N, C] without a parameter: each channel as often
  as it takes, side by side, then r of them as samples. `averaged` undoes it."""
  times = stride * features // x.shape[-1]
  return to_time(jnp.repeat(x, times, axis=-1), stride)


def check_shortcut(stride: int, wide: int, narrow: int) -> None:
  """Raises UserError unless `averaged` leads from `wide` channels, of the
  longer sound, to `narrow`, and `repeated` back."""
  if wide * stride % narrow:
    raise UserError(
      f"a stride of {stride} from {wide} to {narrow} channels: {stride * wide} "
      f"must be a multiple of {narrow}; change widths or strides"
    )
