"""The layers of ViT (arXiv 2010.11929): pre-norm, GELU, biases everywhere; and
those of the first transformer (arXiv 1706.03762): the norms behind the
branches, ReLU, and a decoder's attention to a memory."""

from __future__ import annotations

import jax.numpy as jnp

from ar_jax.nn.layers.attention import HeadNorm, xavier_attention
from ar_jax.nn.layers.cross_attention import crossing
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import Identity, LayerNorm
from ar_jax.nn.stacks.blocks import PlainBlock
from ar_jax.nn.stacks.transformer import Backbone


def vit(
  depth: int,
  width: int,
  heads: int,
  cross: bool = False,
  *,
  features: int | None = None,
  head_norm: HeadNorm | str | None = None,
  hidden: int | None = None,
  act: str = "gelu",
  order: str = "pre",
  layer_scale: float | None = None,
  dropout: float = 0.1,
  eps: float = 1e-6,
  remat: bool | str = False,
  dtype: str = "float32",
  impl: str | None = None,
) -> Backbone:
  """A stack of ViT's layers, whose weights begin Xavier-uniform.

  Args:
    depth: layers.
    width: D.
    heads: of attention.
    cross: whether the layers look at a memory, too; see `Backbone.remember`.
    features: width of a head; D / heads if None.
    head_norm: of the queries and keys of each head: "rms", "layer", a
      `HeadNorm`, or None.
    hidden: width of the MLP; 4 D if None.
    act: of the MLP; see `mlp.Mlp`.
    order: "pre" or "post"; see `blocks.PlainBlock`.
    layer_scale: as there.
    dropout: of the branches of every layer.
    eps: of the norms.
    remat: saves memory in training for time; see `transformer.Backbone`.
    dtype: of the computation.
    impl: of `ops.attention`.

  Raises:
    UserError: sizes do not fit together.
  """
  products = jnp.dtype(dtype)
  own = dict(features=features, head_norm=head_norm)
  mixer = xavier_attention(width, heads, **own, dtype=dtype, impl=impl)
  mlp = Mlp(hidden or 4 * width, None, None, products, act)
  looks = crossing(width, mixer) if cross else None
  return Backbone(
    PlainBlock(
      mixer,
      mlp,
      eps,
      dropout,
      False,
      looks,
      order=order,
      layer_scale=layer_scale,
    ),
    depth,
    out_norm=LayerNorm(eps) if order == "pre" else Identity(),
    remat=remat,
    dtype=products,
  )
