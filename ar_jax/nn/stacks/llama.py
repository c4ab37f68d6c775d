"""The layers of Llama (arXiv 2302.13971): RMSNorm, SwiGLU, no biases."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from ar_jax.core.errors import UserError
from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.mlp import SwiGLU
from ar_jax.nn.layers.norms import RMSNorm
from ar_jax.nn.stacks.blocks import PlainBlock
from ar_jax.nn.stacks.transformer import Backbone


def llama(
  depth: int,
  width: int,
  heads: int,
  out_norm: nn.Module | None = None,
  *,
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
  if width % heads:
    raise UserError(f"width={width} is not a multiple of heads={heads}")
  products = jnp.dtype(dtype)
  hidden = -(-int(8 * width / 3) // multiple_of) * multiple_of
  block = PlainBlock(
    Attention(heads, out_bias=False, dtype=products, impl=impl),
    SwiGLU(hidden, dtype=products),
    dropout=0.0 if drop_path else dropout,
  )
  return Backbone(
    block,
    depth,
    out_norm=out_norm or RMSNorm(),
    drop=drop_path,
    remat=remat,
    dtype=products,
  )
