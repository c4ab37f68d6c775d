"""The layers of DiT (arXiv 2212.09748) with those changes of LightningDiT
that FlowAR and xAR have: RMS norms, SwiGLU (here with a GELU), modulations of
every layer by a condition."""

from __future__ import annotations

import jax.numpy as jnp

from ar_jax.nn.layers.attention import (
  Attention,
  HeadNorm,
  check_heads,
  make_head_norm,
)
from ar_jax.nn.layers.cross_attention import crossing
from ar_jax.nn.layers.mlp import SwiGLU
from ar_jax.nn.layers.norms import AdaLN, RMSNorm
from ar_jax.nn.stacks.blocks import Block
from ar_jax.nn.stacks.transformer import Backbone


def dit(
  depth: int,
  width: int,
  heads: int,
  residual: str | None = None,
  cross: bool = False,
  *,
  features: int | None = None,
  head_norm: HeadNorm | str | None = None,
  dropout: float = 0.1,
  remat: bool | str = False,
  dtype: str = "float32",
  impl: str | None = None,
) -> Backbone:
  """A stack of modulated layers, whose weights begin Xavier-uniform.

  Args:
    depth: layers.
    width: D; the MLP is 8 D / 3 wide.
    heads: of attention.
    residual: dtype of the residual stream and of the modulations; that of the
      products if None.
    cross: whether the layers look at a memory, too; see `Backbone.remember`.
    features: width of a head; D / heads if None.
    head_norm: of the queries and keys of each head: "rms", "layer", a
      `HeadNorm`, or None.
    dropout: of the branches of every layer.
    remat: saves memory in training for time; see `transformer.Backbone`.
    dtype: of the matrix products.
    impl: of `ops.attention`.

  Raises:
    UserError: sizes do not fit together.
  """
  check_heads(width, heads, features)
  products, stream = jnp.dtype(dtype), jnp.dtype(residual or dtype)
  mixer = Attention(
    heads,
    features=features,
    norm=make_head_norm(head_norm),
    bias="qkv",
    stddev=None,
    out_stddev=None,
    dtype=products,
    impl=impl,
  )
  mlp = SwiGLU(int(8 * width / 3), None, None, products, gelu=True)
  looks = crossing(width, mixer) if cross else None
  return Backbone(
    Block(mixer, mlp, rms=True, dropout=dropout, cross=looks),
    depth,
    AdaLN(depth, 6, stream),
    out_norm=RMSNorm(1e-6),
    remat=remat,
    dtype=stream,
  )
