"""The codes of one position one after the other, each given those above it: a
small transformer over depths (RQ-Transformer, arXiv 2203.01941; ASVR, arXiv
2506.09040, whose layers these are).

Shapes: ... any axes, D depths, V codes, C numbers of a code, H width of the
hidden states, W width of the head.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.norms import RMSNorm

Array = jax.Array
EPS = 1e-6


class DepthLayer(nn.Module):
  """h = x + attention(norm(x)), g = norm(h), g + mlp_d(g): what is added to is
  normalised, as released, and each depth has an MLP of its own.

  Attributes:
    depth: D.
    heads: of attention.
    hidden: width of the MLPs.
  """

  depth: int
  heads: int
  hidden: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[N, T, W] of x [N, T, W], of the first T depths."""
    count, width = x.shape[1:]
    causal = jnp.tril(jnp.ones((count, count), bool))[None, None]
    mixer = Attention(self.heads, bias="qkv", name="mixer")
    x = x + mixer(RMSNorm(EPS, name="norm1")(x), causal)[0]
    x = RMSNorm(EPS, name="norm2")(x)
    init = nn.initializers.normal(0.02)
    fc1 = self.param("fc1", init, (self.depth, width, self.hidden))[:count]
    fc2 = self.param("fc2", init, (self.depth, self.hidden, width))[:count]
    h = nn.gelu(jnp.einsum("ntw,twh->nth", x, fc1), approximate=False)
    return x + jnp.einsum("nth,thw->ntw", h, fc2)


class DepthHead(nn.Module):
  """The laws of D codes of a position, given its hidden state.

  Attributes:
    depth: D.
    vocab: V.
    width: W.
    layers: of the transformer.
    heads: of attention.
    hidden: width of its MLPs; 2 W, as published, if None.
  """

  depth: int
  vocab: int
  width: int = 2048
  layers: int = 3
  heads: int = 16
  hidden: int | None = None

  @nn.compact
  def __call__(self, h: Array, sums: Array) -> Array:
    """Logits f32[..., D, V].

    Args:
      h: [..., H].
      sums: f32[..., D - 1, C], the vectors of codes, added up to each depth.
        Depth d sees those below d.
    """
    init = nn.initializers.normal(0.02)
    dense = lambda name: nn.Dense(self.width, kernel_init=init, name=name)
    first = dense("fc2")(nn.gelu(dense("fc1")(h), approximate=False))
    x = jnp.concatenate([first[..., None, :], dense("code")(sums)], -2)
    x = x.reshape(-1, *x.shape[-2:])
    for i in range(self.layers):
      hidden = self.hidden or 2 * self.width
      x = DepthLayer(self.depth, self.heads, hidden, name=f"layer_{i}")(x)
    x = RMSNorm(EPS, name="out_norm")(x).astype(jnp.float32)
    shape = self.depth, self.width, self.vocab
    kernel = self.param("kernel", init, shape)
    bias = self.param("bias", nn.initializers.zeros, shape[::2])
    logits = jnp.einsum("ndw,dwv->ndv", x, kernel) + bias[None]
    return logits.reshape(*h.shape[:-1], self.depth, self.vocab)
