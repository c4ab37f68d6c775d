"""Attention to a memory: features of something else than the sequence itself,
such as a text, an encoded image, retrieved neighbours.

What attention reads of a memory, its keys and values, is computed once, and
is then the same for every position, step and call: training and decoding
differ in nothing.

Shapes: B batch, T positions, S rows of the memory, D width, C features of the
memory, H heads, Hkv heads of keys and values, K features per head, N layers.
"""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax import ops
from ar_jax.core.plans.plan import Plan
from ar_jax.nn.layers import positions
from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.linear import Linear, initial

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Memory:
  """Keys and values of a memory, of all layers or of one.

  Attributes:
    k: [N, B, Hkv, S, K], as the products of attention read them; of one layer
      without N.
    v: the same.
    seen: which rows are there, bool[B, S]; or which of them each position of
      a call sees, bool[B | 1, T, S]; None for all.
  """

  k: Array
  v: Array
  seen: Array | None = None

  def rows(self, rows: slice) -> Memory:
    """Those of some of the examples, of all layers."""
    seen = self.seen
    if seen is not None and len(seen) > 1:
      seen = seen[rows]
    return Memory(self.k[:, rows], self.v[:, rows], seen)


class NullFeatures(nn.Module):
  """Learned features in place of those of a memory that is hidden: what the
  null half of a guided pair looks at.

  Attributes:
    length: rows that are learned: 1, the same for all S; or at least S, of
      which the first S are taken.
    stddev: initial standard deviation.
  """

  length: int = 1
  stddev: float = 0.02

  @nn.compact
  def __call__(self, features: Array, hidden: Array | None = None) -> Array:
    """[B, S, C] of features [B, S, C]; where `hidden` bool[B], the learned
    ones. Which rows are seen stays as it is."""
    init = nn.initializers.normal(self.stddev)
    null = self.param("null", init, (self.length, features.shape[-1]))
    if hidden is None:
      return features
    null = null[None, : features.shape[1]].astype(features.dtype)
    return jnp.where(hidden[:, None, None], null, features)


class AttentivePool(nn.Module):
  """One vector of a memory: each head attends to it by one learned query
  (Infinity, arXiv 2412.04431).

  Attributes:
    width: D.
    heads: H.
    stddev: initial standard deviation of the matrices and the queries.
    out_stddev: the same of the output matrix.
    dtype: of the computation.
  """

  width: int
  heads: int
  stddev: float = 0.02
  out_stddev: float = 0.02
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features: Array, seen: Array) -> Array:
    """[B, D] of features [B, S, C], of the rows that are `seen` bool[B, S]; of
    none, what the biases say."""
    b, s, _ = features.shape
    k = self.width // self.heads
    init = initial(self.stddev)
    query = self.param("query", init, (self.heads, k))
    bias = self.param("bias_v", nn.initializers.zeros, (self.width,))
    kv = Linear(
      2 * self.width,
      use_bias=False,
      kernel_init=init,
      dtype=self.dtype,
      name="key_value",
    )(features)
    key, value = jnp.split(kv.reshape(b, s, 2 * self.heads, k), 2, axis=2)
    scores = jnp.einsum(
      "hk,bshk->bhs", query, key, preferred_element_type=jnp.float32
    )
    scores = jnp.where(seen[:, None], scores / math.sqrt(k), -1e30)
    weights = jax.nn.softmax(scores, -1) * seen[:, None]
    x = jnp.einsum("bhs,bshk->bhk", weights.astype(self.dtype), value)
    x = x.reshape(b, self.width) + bias[None].astype(self.dtype)
    return Linear(
      self.width,
      kernel_init=initial(self.out_stddev),
      dtype=self.dtype,
      name="out",
    )(x)


class CrossAttention(nn.Module):
  """Multi-head attention from a sequence to a memory.

  Attributes:
    width: D.
    heads: H.
    kv_heads: Hkv; H if None.
    features: K; D / H if None.
    scale: of the scores; 1 / sqrt(K) if None.
    norm: of queries and keys, as in `Attention`; optional.
    bias: which of q, k and v have a bias, for example "qv".
    out_bias: whether the output matrix has one.
    stddev: initial standard deviation of the input matrices; None is
      Xavier-uniform.
    out_stddev: the same of the output matrix.
    names: of the three matrices among the parameters.
    dtype: of the computation.
    impl: of `ops.attention`.
  """

  width: int
  heads: int
  kv_heads: int | None = None
  features: int | None = None
  scale: float | None = None
  norm: nn.Module | None = None
  bias: str = ""
  out_bias: bool = True
  stddev: float | None = 0.02
  out_stddev: float | None = 0.02
  names: tuple[str, str, str] = ("query", "key_value", "out")
  dtype: jnp.dtype = jnp.float32
  impl: str | None = None

  def setup(self):
    size = self.features or self.width // self.heads
    heads = {"q": self.heads}
    heads["k"] = heads["v"] = self.kv_heads or self.heads
    dense = lambda n, stddev, bias: Linear(
      n, use_bias=bias, kernel_init=initial(stddev), dtype=self.dtype
    )
    query, key_value, out = self.names
    setattr(self, query, dense(heads["q"] * size, self.stddev, False))
    setattr(self, key_value, dense(2 * heads["k"] * size, self.stddev, False))
    setattr(self, out, dense(self.width, self.out_stddev, self.out_bias))
    zeros = nn.initializers.zeros
    self.biases = {
      name: self.param(f"bias_{name}", zeros, (n * size,))
      for name, n in heads.items()
      if name in self.bias
    }

  def remember(
    self, m: Array, *, pos: Array | None = None
  ) -> tuple[Array, Array]:
    """Keys and values, both [B, Hkv, S, K], of a memory m [B, S, C].

    Args:
      m: see above.
      pos: turns of the keys; see `positions.rotate`.
    """
    kv = getattr(self, self.names[1])(m)
    k, v = jnp.split(kv, 2, -1)
    heads = self.kv_heads or self.heads
    k, v = self._heads("k", k, heads), self._heads("v", v, heads)
    if self.norm is not None:
      k = self.norm.key(k).astype(self.dtype)
    if pos is not None:
      k = positions.rotate(k, pos)
    return jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)

  def __call__(
    self,
    x: Array,
    memory: tuple[Array, Array],
    seen: Array | Plan | None = None,
    *,
    pos: Array | None = None,
  ) -> Array:
    """Attends from x to a memory.

    Args:
      x: [B, T, D].
      memory: what `remember` returns.
      seen: which rows of the memory: None, all; bool[B, S], those that are no
        padding; bool[B | 1, T, S], by position; a Plan where T = S.
      pos: turns of the queries; see `positions.rotate`.

    Returns:
      [B, T, D]; zero, whatever the bias, where nothing is seen.
    """
    q = self._heads("q", getattr(self, self.names[0])(x), self.heads)
    if self.norm is not None:
      q = self.norm.query(q).astype(self.dtype)
    if pos is not None:
      q = positions.rotate(q, pos)
    k, v = (jnp.swapaxes(y, 1, 2) for y in memory)
    mask, data = seen, seen is not None and not isinstance(seen, Plan)
    if data:
      seen = seen[:, None] if seen.ndim == 2 else seen
      shape = len(seen), 1, x.shape[1], k.shape[1]
      mask = jnp.broadcast_to(seen[:, None], shape)
    out = ops.attention(q, k, v, mask, scale=self.scale, impl=self.impl)
    out = getattr(self, self.names[2])(out.reshape(*x.shape[:2], -1))
    if data:
      out = jnp.where(seen.any(-1)[..., None], out, 0)
    return out

  def _heads(self, name: str, y: Array, heads: int) -> Array:
    """[B, T, heads, K] of y [B, T, heads K], with its bias."""
    if name in self.biases:
      y = y + self.biases[name].astype(self.dtype)[None, None]
    return y.reshape(*y.shape[:2], heads, -1)


def crossing(width: int, mixer: Attention) -> CrossAttention:
  """Attention to a memory from layers of D = `width`, built as their own."""
  return CrossAttention(
    width,
    mixer.heads,
    mixer.kv_heads,
    mixer.features,
    mixer.scale,
    None if mixer.norm is None else mixer.norm.clone(),
    mixer.bias,
    mixer.out_bias,
    mixer.stddev,
    mixer.out_stddev,
    dtype=mixer.dtype,
    impl=mixer.impl,
  )
