"""Normalisation and its modulation by a condition.

Shapes: B batch, T positions, D width, N layers.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


def layer_norm(x: Array, eps: float = 1e-6) -> Array:
  """LayerNorm without parameters over the last axis, f32."""
  x = x.astype(jnp.float32)
  x = x - jnp.mean(x, -1, keepdims=True)
  variance = jnp.mean(jnp.square(x), -1, keepdims=True)
  return x * jax.lax.rsqrt(variance + eps)


def rms_norm(x: Array, eps: float = 1e-6) -> Array:
  """x / rms(x) over the last axis, without parameters, f32."""
  x = x.astype(jnp.float32)
  square = jnp.mean(jnp.square(x), -1, keepdims=True)
  return x * jax.lax.rsqrt(square + eps)


class LayerNorm(nn.Module):
  """LayerNorm with a learned scale and bias, taken in float32.

  Attributes:
    eps: added to the variance.
    axes: the last axes over which scale and bias differ; the mean and the
      variance are of the last one alone.
  """

  eps: float = 1e-6
  axes: int = 1

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., D] of x [..., D]."""
    width = x.shape[-self.axes :]
    shape = (1,) * (x.ndim - self.axes) + width
    scale = self.param("scale", nn.initializers.ones, width)
    bias = self.param("bias", nn.initializers.zeros, width)
    y = layer_norm(x, self.eps)
    return (y * scale.reshape(shape) + bias.reshape(shape)).astype(x.dtype)


class RMSNorm(nn.Module):
  """x / rms(x) times a learned scale (arXiv 1910.07467).

  The mean square is taken in float32; the result has the dtype of x before
  it is scaled, as in Llama.

  Attributes:
    eps: added to the mean square.
    axes: the last axes over which the scale differs; the mean is of the last
      one alone.
  """

  eps: float = 1e-5
  axes: int = 1

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., D] of x [..., D]."""
    width = x.shape[-self.axes :]
    scale = self.param("scale", nn.initializers.ones, width)
    y = rms_norm(x, self.eps).astype(x.dtype)
    shape = (1,) * (x.ndim - self.axes) + width
    return y * scale.astype(x.dtype).reshape(shape)


class LayerScale(nn.Module):
  """x times a learned row, which begins small: of a branch of a deep net
  (CaiT, arXiv 2103.17239).

  Attributes:
    start: what each number of the row begins with.
  """

  start: float

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., D] of x [..., D]."""
    init = nn.initializers.constant(self.start)
    scale = self.param("scale", init, x.shape[-1:])
    return x * scale.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class Identity(nn.Module):
  """No norm at the end of a stack that another one continues."""

  def __call__(self, x: Array) -> Array:
    return x


class AdaLN(nn.Module):
  """Modulations of every layer from one condition (DiT, arXiv 2212.09748).

  All layers at once, once per condition: the layers themselves only add and
  multiply. Every part of a layer is Linear(SiLU(cond)).

  Attributes:
    depth: N.
    stddevs: initial standard deviation of each part of a layer, as many as
      there are parts; or their number, then each layer is Xavier-uniform.
    dtype: of the computation.
  """

  depth: int
  stddevs: tuple[float, ...] | int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, cond: Array) -> Array:
    """[N, ..., parts, D] of cond [..., D]: one condition for each example,
    [B, D], or for each of several parts of it, [B, E, D]."""
    lead, width = cond.shape[:-1], cond.shape[-1]
    if isinstance(self.stddevs, int):
      parts = self.stddevs
      init = nn.initializers.xavier_uniform(batch_axis=(0,))
    else:
      parts, init = len(self.stddevs), normal(self.stddevs)
    kernel = self.param("kernel", init, (self.depth, width, parts * width))
    bias = self.param(
      "bias", nn.initializers.zeros, (self.depth, parts * width)
    )
    cond, kernel, bias = nn.dtypes.promote_dtype(
      nn.silu(cond), kernel, bias, dtype=self.dtype
    )
    # With layers as a batch axis of both: else the kernels are transposed,
    # which on a CPU takes ten times as long as the product.
    cond = cond.reshape(-1, width)
    cond = jnp.broadcast_to(cond, (self.depth, *cond.shape))
    mod = jnp.einsum("nbc,ncd->nbd", cond, kernel) + bias[:, None]
    return mod.reshape(self.depth, *lead, parts, width)


class SharedAdaLN(nn.Module):
  """One Linear(SiLU(cond)) for all layers, plus a learned table per layer.

  Attributes:
    depth: N.
    stddev: initial standard deviation of the shared linear.
    stddevs: the same of each part of the table.
    dtype: of the computation.
  """

  depth: int
  stddev: float
  stddevs: tuple[float, ...]
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, cond: Array) -> Array:
    """[N, B, parts, D] of cond [B, D]."""
    width, parts = cond.shape[-1], len(self.stddevs)
    shared = nn.Dense(
      parts * width,
      kernel_init=nn.initializers.normal(self.stddev),
      dtype=self.dtype,
      name="shared",
    )(nn.silu(cond))
    table = self.param(
      "table", normal(self.stddevs), (self.depth, parts * width)
    )
    mod = shared[None] + table[:, None].astype(self.dtype)
    return mod.reshape(self.depth, len(cond), parts, width)


def normal(stddevs: tuple[float, ...]) -> nn.initializers.Initializer:
  """A normal initialiser whose last axis falls into parts of equal width,
  each with its own standard deviation."""

  def init(key, shape, dtype=jnp.float32):
    parts = jnp.split(jax.random.normal(key, shape, dtype), len(stddevs), -1)
    scaled = [s * part for s, part in zip(stddevs, parts, strict=True)]
    return jnp.concatenate(scaled, -1)

  return init
