"""Layers of a diffusion transformer whose condition is a sequence: what each
position finds in it by cross-attention modulates that position, and enters it
in no other way (D-AR, arXiv 2505.23660).

Shapes: B batch, T positions, S rows of the condition, D width, N layers.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.nn.layers.attention import Attention, HeadNorm, check_heads
from ar_jax.nn.layers.cross_attention import CrossAttention
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import layer_norm
from ar_jax.nn.layers.placement import by_example
from ar_jax.nn.layers.times import TimeEmbed
from ar_jax.nn.stacks.blocks import Block

Array = jax.Array
TIME_SCALE = 1000.0  # of times in [0, 1], before their sinusoids


class CrossModulatedLayer(nn.Module):
  """x += gate attention(norm(x) (1 + scale) + shift), then the same with an
  MLP, where the six are Linear(SiLU(time + look)) of each position, and

    look = cross(q = norm(x), k = v = norm(MLP(condition))).

  Attributes:
    block: attention and MLP.
    look: the cross-attention.
    time: of the time.
    cond: the MLP of the condition.
    dtype: of the products.
  """

  block: Block
  look: CrossAttention
  time: TimeEmbed
  cond: Mlp
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Array, cond: Array, t: Array, pos: Array, seen: Array | None
  ) -> Array:
    """[B, T, D]; arguments as those of `CrossModulated`."""
    memory = self.look.remember(layer_norm(self.cond(cond)).astype(self.dtype))
    query = layer_norm(x).astype(self.dtype)
    found = self.look(query, memory, seen, pos=pos)
    h = nn.silu(self.time(TIME_SCALE * t)[:, None] + found)
    mod = nn.Dense(
      6 * x.shape[-1],
      kernel_init=nn.initializers.zeros,
      dtype=self.dtype,
      name="ada",
    )(h)
    mod = mod.reshape(*x.shape[:2], 6, -1)
    return self.block(x, mod, None, pos=pos)[0]


class CrossModulated(nn.Module):
  """A stack of such layers, without a norm behind the last.

  Attributes:
    layer: its parameters get a leading axis over layers.
    depth: N.
    tap: layers behind which states are also returned, 0 .. N.
    remat: whether the backward pass computes the layers again.
    dtype: of the products.
  """

  layer: CrossModulatedLayer
  depth: int
  tap: int = 0
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  def head_width(self, width: int) -> int:
    """Features of a head of attention, in layers of D = `width`."""
    return self.layer.block.mixer.head_width(width)

  def __call__(
    self,
    x: Array,
    cond: Array,
    t: Array,
    pos: Array,
    seen: Array | None = None,
  ) -> tuple[Array, Array]:
    """States [B, T, D], and those behind `tap` layers.

    Args:
      x: [B, T, D].
      cond: [B, S, D].
      t: f32[B], times in [0, 1].
      pos: turns of the positions; see `positions.rotate`.
      seen: bool[B | 1, S], which rows of the condition; None for all.
    """

    def layer(block, carry, index):
      x, tapped = carry
      tapped = jnp.where(index == self.tap, x, tapped)
      return (by_example(block(x, cond, t, pos, seen)), tapped), None

    if self.remat:
      layer = nn.remat(layer, prevent_cse=False)
    x, cond = by_example(x.astype(self.dtype)), cond.astype(self.dtype)
    stack = nn.scan(
      layer, variable_axes={"params": 0}, split_rngs={"params": True}
    )
    (x, tapped), _ = stack(self.layer, (x, x), jnp.arange(self.depth))
    return x, x if self.tap == self.depth else tapped


def cross_modulated(
  depth: int,
  width: int,
  heads: int,
  *,
  tap: int = 0,
  remat: bool = False,
  dtype: str = "float32",
  impl: str | None = None,
) -> CrossModulated:
  """A stack of these layers, whose modulations begin at zero.

  Args:
    depth: N.
    width: D; as many sinusoids has the time.
    heads: of both attentions.
    tap, remat: see `CrossModulated`.
    dtype: of the products.
    impl: of `ops.attention`.

  Raises:
    UserError: the heads do not divide the width.
  """
  check_heads(width, heads)
  products = jnp.dtype(dtype)
  own = dict(bias="qkv", dtype=products, impl=impl)
  norm = lambda: HeadNorm("layer")
  mlp = lambda hidden: Mlp(hidden, dtype=products, act="silu")
  layer = CrossModulatedLayer(
    Block(Attention(heads, norm=norm(), **own), mlp(4 * width)),
    CrossAttention(width, heads, norm=norm(), **own),
    TimeEmbed(width, dtype=products, features=width),
    mlp(width),
    products,
  )
  return CrossModulated(layer, depth, tap, remat, products)
