"""The layers of ViT (arXiv 2010.11929): pre-norm, GELU, biases everywhere."""

from __future__ import annotations

import jax.numpy as jnp

from ar_jax.core.errors import UserError
from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import LayerNorm
from ar_jax.nn.stacks.blocks import PlainBlock
from ar_jax.nn.stacks.transformer import Backbone


def vit(
  depth: int,
  width: int,
  heads: int,
  *,
  dropout: float = 0.1,
  eps: float = 1e-6,
  remat: bool | str = False,
  dtype: str = "float32",
  impl: str | None = None,
) -> Backbone:
  """A stack of ViT's layers, whose weights begin Xavier-uniform.

  Args:
    depth: layers.
    width: D; the MLP is 4 D wide.
    heads: of attention.
    dropout: of both branches of every layer.
    eps: of the norms.
    remat: saves memory in training for time; see `transformer.Backbone`.
    dtype: of the computation.
    impl: of `ops.attention`.

  Raises:
    UserError: sizes do not fit together.
  """
  if width % heads:
    raise UserError(f"width={width} is not a multiple of heads={heads}")
  products = jnp.dtype(dtype)
  mixer = Attention(
    heads, bias="qkv", stddev=None, out_stddev=None, dtype=products, impl=impl
  )
  mlp = Mlp(4 * width, None, None, products, exact=True)
  return Backbone(
    PlainBlock(mixer, mlp, eps, dropout, rms=False),
    depth,
    out_norm=LayerNorm(eps),
    remat=remat,
    dtype=products,
  )
