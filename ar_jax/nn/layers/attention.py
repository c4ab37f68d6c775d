"""Self-attention.

Shapes: B batch, T new positions, S rows of the cache, D width, H heads, K
features per head, N layers.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax import ops
from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.plans.plan import Plan
from ar_jax.nn.layers import positions
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.linear import Linear, initial
from ar_jax.nn.layers.norms import LayerNorm, RMSNorm, layer_norm, rms_norm

Array = jax.Array


class CosineNorm(nn.Module):
  """Unit queries and keys, with a learned temperature per head.

  q is multiplied by exp(min(t_h, ln 100)) (arXiv 2010.04245, as in VAR); the
  scale of the scores is then 1.
  """

  heads: int

  def setup(self):
    init = nn.initializers.constant(math.log(4))
    self.log_scale = self.param("log_scale", init, (self.heads,))

  def __call__(self, q: Array, k: Array) -> tuple[Array, Array]:
    """q [B, T, H, K] and k [B, T, Hkv, K], normalised."""
    return self.query(q), self.key(k)

  def query(self, q: Array) -> Array:
    """Queries [B, T, H, K], normalised."""
    scale = jnp.exp(jnp.minimum(self.log_scale, math.log(100)))
    return _unit(q) * scale[None, None, :, None]

  def key(self, k: Array) -> Array:
    """Keys [B, T, Hkv, K], normalised."""
    return _unit(k)


def _unit(x: Array) -> Array:
  x = x.astype(jnp.float32)
  square = jnp.sum(jnp.square(x), -1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


class HeadNorm(nn.Module):
  """Queries and keys, normalised over the K features of every head, each with
  parameters of its own (Qwen3; Chameleon, arXiv 2405.09818).

  Attributes:
    kind: "rms" or "layer".
    affine: whether there is a learned scale, and with "layer" a bias; [K], the
      same for all heads.
    per_head: whether each head has its own, [H, K] and [Hkv, K].
    eps: of the norms.
  """

  kind: str = "rms"
  affine: bool = True
  per_head: bool = False
  eps: float = 1e-6

  def setup(self):
    check_choice("head_norm", self.kind, _HEAD_NORMS)
    plain, learned = _HEAD_NORMS[self.kind]
    if self.affine:
      axes = 1 + self.per_head
      self.q, self.k = learned(self.eps, axes), learned(self.eps, axes)
    else:
      self.q = self.k = lambda x: plain(x, self.eps)

  def __call__(self, q: Array, k: Array) -> tuple[Array, Array]:
    """q [B, T, H, K] and k [B, T, Hkv, K], normalised."""
    return self.q(q), self.k(k)

  def query(self, q: Array) -> Array:
    """Queries [B, T, H, K], normalised."""
    return self.q(q)

  def key(self, k: Array) -> Array:
    """Keys [B, T, Hkv, K], normalised."""
    return self.k(k)


_HEAD_NORMS = {"rms": (rms_norm, RMSNorm), "layer": (layer_norm, LayerNorm)}


def make_head_norm(given: HeadNorm | str | None) -> HeadNorm | None:
  """What a maker of stacks takes for a norm: the norm, its kind, or none."""
  return HeadNorm(given) if isinstance(given, str) else given


def check_heads(
  width: int,
  heads: int,
  features: int | None = None,
  kv_heads: int | None = None,
) -> None:
  """Raises a UserError where D, H, K and Hkv do not fit together."""
  if features is None and width % heads:
    raise UserError(
      f"width={width} is not a multiple of heads={heads}; features=... sets "
      "the width of a head"
    )
  if kv_heads and heads % kv_heads:
    raise UserError(f"heads={heads} is not a multiple of kv_heads={kv_heads}")


def xavier_attention(
  width: int,
  heads: int,
  *,
  features: int | None = None,
  head_norm: HeadNorm | str | None = None,
  dtype: str = "float32",
  impl: str | None = None,
) -> Attention:
  """Attention as ViT and DiT have it: biases of queries, keys and values, and
  weights that begin Xavier-uniform; arguments as of their makers.

  Raises:
    UserError: sizes do not fit together.
  """
  check_heads(width, heads, features)
  return Attention(
    heads,
    features=features,
    norm=make_head_norm(head_norm),
    bias="qkv",
    stddev=None,
    out_stddev=None,
    dtype=jnp.dtype(dtype),
    impl=impl,
  )


class Attention(nn.Module):
  """Multi-head self-attention with one matrix for queries, keys and values.

  Attributes:
    heads: H.
    kv_heads: heads of keys and values; as many as `heads` if None.
    features: K; D / H if None.
    scale: of the scores; 1 / sqrt(K) if None.
    norm: maps (q, k) to normalised ones before they are cached, a `CosineNorm`
      or `HeadNorm`; optional.
    bias: which of q, k and v have a bias, for example "qv".
    out_bias: whether the output matrix has one.
    stddev: initial standard deviation of the input matrix; None is
      Xavier-uniform.
    out_stddev: the same of the output matrix.
    dtype: of the computation.
    impl: of `ops.attention`.
  """

  heads: int
  kv_heads: int | None = None
  features: int | None = None
  scale: float | None = None
  norm: nn.Module | None = None
  bias: str = ""
  out_bias: bool = True
  stddev: float | None = 0.02
  out_stddev: float | None = 0.02
  dtype: jnp.dtype = jnp.float32
  impl: str | None = None

  @nn.compact
  def __call__(
    self,
    x: Array,
    mask: Array | Plan | None = None,
    *,
    pos: Array | None = None,
    cache: Cache | None = None,
    layer: Array | int = 0,
  ) -> tuple[Array, Cache | None]:
    """Attends from x [B, T, D] to itself and to the rows of a cache.

    Args:
      x: [B, T, D].
      mask: as in `ops.attention`, over the rows that are read.
      pos: turns of queries and keys before they are cached; see
        `positions.rotate`.
      cache: keys and values of earlier positions.
      layer: which layer of the cache is ours.

    Returns:
      [B, T, D] and the cache with the new rows.
    """
    b, t, width = x.shape
    features = self.head_width(width)
    heads = {"q": self.heads}
    heads["k"] = heads["v"] = self.kv_heads or self.heads
    dense = lambda n, stddev, name, bias: Linear(
      n,
      use_bias=bias,
      kernel_init=initial(stddev),
      dtype=self.dtype,
      name=name,
    )
    total = sum(heads.values()) * features
    qkv = dense(total, self.stddev, "qkv", False)(x)
    parts, start = {}, 0
    for name, n in heads.items():
      part = qkv[..., start : start + n * features]
      if name in self.bias:
        zeros = nn.initializers.zeros
        bias = self.param(f"bias_{name}", zeros, (n * features,))
        part = part + bias.astype(self.dtype)[None, None]
      parts[name] = part.reshape(b, t, n, features)
      start += n * features
    q, k, v = parts.values()
    if self.norm is not None:
      q, k = (y.astype(self.dtype) for y in self.norm(q, k))
    if pos is not None:
      q, k = positions.rotate(q, pos), positions.rotate(k, pos)
    if cache is not None:
      k, v, cache = cache.extend(layer, k, v)
    out = self.attend(q, k, v, mask)
    out = out.reshape(b, t, self.heads * features)
    return dense(width, self.out_stddev, "out", self.out_bias)(out), cache

  def attend(
    self, q: Array, k: Array, v: Array, mask: Array | Plan | None
  ) -> Array:
    """[B, T, H, K] of queries [B, T, H, K] and of the S rows that are read, the
    T new ones at their end, [B, S, Hkv, K]: what a subclass may change."""
    return ops.attention(q, k, v, mask, scale=self.scale, impl=self.impl)

  def head_width(self, width: int) -> int:
    """K of a layer of D = `width`."""
    return self.features or width // self.heads

  def empty(
    self, depth: int, batch: int, length: int, width: int, dtype: jnp.dtype
  ) -> Cache:
    """An empty cache of `length` rows for `depth` layers of D = `width`."""
    heads = self.kv_heads or self.heads
    shape = (depth, batch, heads, length, self.head_width(width))
    rows = jnp.zeros(shape, dtype)
    return Cache(rows, rows)
