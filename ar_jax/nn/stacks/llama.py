"""The layers of Llama (arXiv 2302.13971): RMSNorm, SwiGLU, no biases."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from ar_jax.nn.layers.attention import (
  Attention,
  HeadNorm,
  check_heads,
  make_head_norm,
)
from ar_jax.nn.layers.cross_attention import crossing
from ar_jax.nn.layers.mlp import SwiGLU
from ar_jax.nn.layers.norms import RMSNorm
from ar_jax.nn.stacks.blocks import PlainBlock
from ar_jax.nn.stacks.transformer import Backbone


def llama(
  depth: int,
  width: int,
  heads: int,
  out_norm: nn.Module | None = None,
  cross: bool = False,
  *,
  kv_heads: int | None = None,
  features: int | None = None,
  head_norm: HeadNorm | str | None = None,
  hidden: int | None = None,
  eps: float = 1e-5,
  multiple_of: int = 256,
  dropout: float = 0.1,
  drop_path: float = 0.0,
  remat: bool | str = False,
  dtype: str = "float32",
  impl: str | None = None,
) -> Backbone:
  """A stack of Llama's layers.

  Args:
    depth: layers.
    width: D.
    heads: of attention.
    out_norm: the last norm; an RMSNorm if None.
    cross: whether the layers look at a memory, too; see `Backbone.remember`.
    kv_heads: heads of keys and values; as many as `heads` if None.
    features: width of a head; D / heads if None.
    head_norm: of the queries and keys of each head: "rms", as in Qwen3,
      "layer", a `HeadNorm`, or None.
    hidden: width of the MLP; if None, of 8 D / 3, see `multiple_of`.
    eps: of the norms.
    multiple_of: the hidden width of the MLP is 8 D / 3 rounded up to it.
    dropout: of the branches of the layers; 0 with `drop_path`, as LlamaGen
      publishes it.
    drop_path: stochastic depth of the last layer.
    remat: saves memory in training for time; see `transformer.Backbone`.
    dtype: of the computation.
    impl: of `ops.attention`.

  Raises:
    UserError: sizes do not fit together.
  """
  check_heads(width, heads, features, kv_heads)
  products = jnp.dtype(dtype)
  hidden = hidden or -(-int(8 * width / 3) // multiple_of) * multiple_of
  mixer = Attention(
    heads,
    kv_heads,
    features,
    norm=make_head_norm(head_norm),
    out_bias=False,
    dtype=products,
    impl=impl,
  )
  block = PlainBlock(
    mixer,
    SwiGLU(hidden, dtype=products),
    eps,
    dropout=0.0 if drop_path else dropout,
    cross=crossing(width, mixer) if cross else None,
  )
  return Backbone(
    block,
    depth,
    out_norm=out_norm or RMSNorm(eps),
    drop=drop_path,
    remat=remat,
    dtype=products,
  )
