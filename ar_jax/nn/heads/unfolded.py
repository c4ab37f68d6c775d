"""The codes of a window, unfolded from one hidden state (Token-Shuffle, arXiv
2504.17789); what folds them is `families.token.readers.Folded`.

Shapes: B batch, T positions, D width, k codes of a window, V codes.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick
from ar_jax.core.errors import UserError
from ar_jax.nn.heads.codes import SubCodes
from ar_jax.nn.layers.norms import RMSNorm

Array = jax.Array


def check_window(codes: int, width: int) -> None:
  """Raises a UserError where k does not divide D."""
  if codes < 1 or width % codes:
    raise UserError(
      f"width={width}: it must be a multiple of the {codes} codes of a window, "
      "each of which has a part of it"
    )


class Residual(nn.Module):
  """h + W2 gelu(W1 norm(h)), all of width D; it begins as h. The sheet of the
  paper does not say what its MLPs are; these are ours.

  Attributes:
    width: D.
    dtype: of the products.
  """

  width: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, h: Array) -> Array:
    """[..., D] of h [..., D]."""
    x = RMSNorm(1e-5, name="norm")(h).astype(self.dtype)
    x = nn.gelu(nn.Dense(self.width, dtype=self.dtype, name="fc1")(x))
    zeros = nn.initializers.zeros
    last = nn.Dense(self.width, dtype=self.dtype, kernel_init=zeros, name="fc2")
    return h + last(x)


class Unfolded(SubCodes):
  """k codes, independent of each other given the hidden state: residual MLPs,
  a linear map whose result is cut into k parts of D / k numbers, and for each
  the same map to D, norm and map to V logits, which are in float32.

  The norm is the last one of the stack, which has none of its own. With k = 1,
  no MLPs and maps that change nothing it is a norm and a `Categorical`.

  Attributes:
    codes: k.
    vocab: V.
    stddev: of the map to logits, which has no bias.
    width: D.
    blocks: residual MLPs.
    dtype: of the products before the norm.
  """

  width: int = 0
  blocks: int = 2
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    check_window(self.codes, self.width)
    dense = lambda: nn.Dense(self.width, use_bias=False, dtype=self.dtype)
    self.mlps = [Residual(self.width, self.dtype) for _ in range(self.blocks)]
    self.split, self.widen = dense(), dense()
    self.norm = RMSNorm(1e-5)
    init = nn.initializers.normal(self.stddev)
    self.kernel = self.param("kernel", init, (self.width, self.vocab))

  def logits(self, h: Array) -> Array:
    """f32[B, T, k, V] of h [B, T, D]."""
    for mlp in self.mlps:
      h = mlp(h)
    part = self.width // self.codes
    x = self.split(h).reshape(*h.shape[:-1], self.codes, part)
    x = self.norm(self.widen(x)).astype(jnp.float32)
    return jnp.einsum("btkd,dv->btkv", x, self.kernel)

  def guided(self, h: Array, h_null: Array, scale: Array | float) -> Array:
    """As that of `SubCodes`; logits are guided, since this head bends."""
    scale = jnp.asarray(scale)
    scale = scale[..., None] if scale.ndim else scale
    return pick.guide(self.logits(h), self.logits(h_null), scale)
