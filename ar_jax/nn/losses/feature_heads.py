"""Heads of a discriminator that judges by the features of a frozen encoder.

Projected discriminators (arXiv 2111.01007), with the heads of StyleGAN-T (arXiv
2301.09515) that VAR and GigaTok train their tokenizers with.

Shapes: B batch, N places, C channels of a feature, L levels of features.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import check_choice

Array = jax.Array
ROUNDS = 8  # of the power iteration
VIRTUAL = 8  # examples whose statistics a norm takes together


def spectral(kernel: Array) -> Array:
  """A kernel [..., out] over its largest singular value, as a matrix of `out`
  columns (arXiv 1802.05957).

  The value is found from the same start in every call, and kept nowhere.
  """
  matrix = jax.lax.stop_gradient(kernel.reshape(-1, kernel.shape[-1]))
  unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x), 1e-12)

  def round_(_, v):
    return unit(matrix.T @ unit(matrix @ v))

  start = np.random.default_rng(0).normal(size=matrix.shape[1])
  v = unit(jnp.asarray(start, jnp.float32))
  v = jax.lax.fori_loop(0, ROUNDS, round_, v)
  u = unit(matrix @ v)
  sigma = u @ kernel.reshape(-1, kernel.shape[-1]) @ v
  return kernel / sigma


class RingConv(nn.Module):
  """A convolution along a ring of places, its kernel of spectral norm 1.

  Attributes:
    features: channels out.
    reach: places that it sees, an odd number.
    dtype: of the products.
  """

  features: int
  reach: int = 1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, N, features] of x [B, N, C]."""
    shape = self.reach, x.shape[-1], self.features
    init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    kernel = spectral(self.param("kernel", init, shape))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    half = self.reach // 2
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    shifted = [jnp.roll(x, half - i, 1) for i in range(self.reach)]
    x = jnp.concatenate(shifted, -1) if half else x
    y = x @ kernel.reshape(-1, self.features)
    return y.astype(jnp.float32) + bias[None, None]


class VirtualNorm(nn.Module):
  """Batch normalisation by the statistics of `VIRTUAL` examples at a time.

  Attributes:
    kind: "batch"; or "group", each example by itself, 32 groups of channels or
      as many as divide them.
    eps: added to the variance.
  """

  kind: str = "group"
  eps: float = 1e-6

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, N, C]."""
    b, n, c = x.shape
    scale = self.param("scale", nn.initializers.ones, (c,))
    bias = self.param("bias", nn.initializers.zeros, (c,))
    if self.kind == "batch":
      parts = -(-b // VIRTUAL)
      parts = parts if b % parts == 0 else 1
      shape, axes = (parts, b // parts * n, c), (1,)
    else:
      groups = np.gcd(32, c)
      shape, axes = (b, n, groups, c // groups), (1, 3)
    y = x.reshape(shape)
    mean, variance = y.mean(axes, keepdims=True), y.var(axes, keepdims=True)
    y = ((y - mean) * jax.lax.rsqrt(variance + self.eps)).reshape(b, n, c)
    return y * scale[None, None] + bias[None, None]


class FeatureHeads(nn.Module):
  """For each level: a map, a residual one of a wider reach, and a logit.

  Attributes:
    norm: see `VirtualNorm`.
    reach: of the second map.
    dtype: of the products.
  """

  norm: str = "group"
  reach: int = 9
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, levels: list[Array]) -> Array:
    """Logits f32[B, L, N], positive for real, of features [B, N, C] each.

    Raises:
      UserError: there is no such norm.
    """
    check_choice("gan norm", self.norm, ("group", "batch"))
    found = []
    for level, x in enumerate(levels):
      c, name = x.shape[-1], f"level_{level}"

      def block(x, reach, place, c=c, name=name):
        x = RingConv(c, reach, self.dtype, name=f"{name}_conv_{place}")(x)
        x = VirtualNorm(self.norm, name=f"{name}_norm_{place}")(x)
        return nn.leaky_relu(x, 0.2)

      x = block(x, 1, 0)
      x = (x + block(x, self.reach, 1)) / np.sqrt(2)
      out = RingConv(1, 1, self.dtype, name=f"{name}_out")(x)
      found.append(out[..., 0])
    return jnp.stack(found, 1)
