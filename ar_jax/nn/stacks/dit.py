"""The layers of DiT (arXiv 2212.09748), modulated by a condition: with those
changes of LightningDiT that FlowAR and xAR have (RMS norms, SwiGLU, here with
a GELU); and as DiT and SiT publish them."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from ar_jax.nn.layers.attention import HeadNorm, xavier_attention
from ar_jax.nn.layers.cross_attention import crossing
from ar_jax.nn.layers.mlp import Mlp, SwiGLU
from ar_jax.nn.layers.norms import AdaLN, RMSNorm, SharedAdaLN
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
  products, stream = jnp.dtype(dtype), jnp.dtype(residual or dtype)
  own = dict(features=features, head_norm=head_norm)
  mixer = xavier_attention(width, heads, **own, dtype=dtype, impl=impl)
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


def dit_zero(
  depth: int,
  width: int,
  heads: int,
  cross: bool = False,
  mixer: nn.Module | None = None,
  *,
  shared: bool = False,
  features: int | None = None,
  head_norm: HeadNorm | str | None = None,
  dropout: float = 0.0,
  remat: bool | str = False,
  dtype: str = "float32",
  impl: str | None = None,
) -> Backbone:
  """A stack of DiT's own layers: layer norms without parameters, an MLP 4 D
  wide, and AdaLN-zero: all modulations begin at zero, so that every layer
  begins as the identity. The last norm is modulated, too.

  Args:
    depth: layers.
    width: D.
    heads: of attention.
    cross: whether the layers look at a memory, too, between attention and MLP
      and not modulated; see `Backbone.remember`.
    mixer: in place of attention; then the heads are its own.
    shared: whether all layers share one matrix of modulations, and each adds
      a learned table, as PixArt does (arXiv 2310.00426).
    features, head_norm, dropout, remat, dtype, impl: as in `dit`.

  Raises:
    UserError: sizes do not fit together.
  """
  products = jnp.dtype(dtype)
  own = dict(features=features, head_norm=head_norm)
  attention = xavier_attention(width, heads, **own, dtype=dtype, impl=impl)
  block = Block(
    mixer or attention,
    Mlp(4 * width, None, None, products),
    dropout=dropout,
    cross=crossing(width, attention) if cross else None,
  )
  zeros = (0.0,) * 6
  ada = (
    SharedAdaLN(depth, 0.0, zeros, products)
    if shared
    else AdaLN(depth, zeros, products)
  )
  last = AdaLN(1, zeros[:2], products)
  return Backbone(block, depth, ada, last, remat=remat, dtype=products)
