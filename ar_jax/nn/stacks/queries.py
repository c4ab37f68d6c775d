"""Layers of DETR (arXiv 2005.12872): queries that look at each other and at a
memory, places added to queries and keys of every layer and never to values.

Shapes: B batch, T queries, S positions of the memory, D width, N layers, H
heads.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax import ops
from ar_jax.nn.layers.attention import check_heads
from ar_jax.nn.layers.norms import LayerNorm
from ar_jax.nn.layers.placement import by_example

Array = jax.Array
EPS = 1e-5


class _Look(nn.Module):
  """Attention whose queries and keys have places, and whose values have none;
  one matrix for all three, as PyTorch's `MultiheadAttention` has it."""

  heads: int
  dtype: jnp.dtype
  impl: str | None

  @nn.compact
  def __call__(
    self,
    x: Array,
    place: Array,
    memory: Array,
    memory_place: Array,
    mask: Array | None = None,
  ) -> Array:
    """[B, T, D] of x [B, T, D] and a memory [B, S, D]; places are [1, T, D]
    and [1, S, D], a mask bool[1, 1, T, S]."""
    width = x.shape[-1]
    xavier = nn.initializers.xavier_uniform()
    kernel = self.param("kernel", xavier, (width, 3 * width))
    bias = self.param("bias", nn.initializers.zeros, (3 * width,))
    heads = lambda h: h.reshape(*h.shape[:2], self.heads, -1)

    def mapped(h, first, last):
      part = slice(first * width, last * width)
      h, k, b = nn.dtypes.promote_dtype(
        h, kernel[:, part], bias[part], dtype=self.dtype
      )
      return h @ k + b[None, None]

    if memory is x:
      q, k = jnp.split(mapped(x + place, 0, 2), 2, -1)
    else:
      q = mapped(x + place, 0, 1)
      k = mapped(memory + memory_place, 1, 2)
    v = mapped(memory, 2, 3)
    out = ops.attention(*map(heads, (q, k, v)), mask, impl=self.impl)
    return _dense(width, self.dtype, "out")(out.reshape(x.shape))


def _dense(n: int, dtype: jnp.dtype, name: str) -> nn.Dense:
  init = nn.initializers.truncated_normal(0.02)
  return nn.Dense(n, kernel_init=init, dtype=dtype, name=name)


class QueryBlock(nn.Module):
  """Self-attention, attention to the memory, an MLP 4 D wide; a norm before
  each.

  Attributes:
    heads: H.
    dtype: of the products.
    impl: of `ops.attention`.
  """

  heads: int
  dtype: jnp.dtype = jnp.float32
  impl: str | None = None

  @nn.compact
  def __call__(
    self,
    x: Array,
    place: Array,
    memory: Array,
    memory_place: Array,
    mask: Array | None = None,
  ) -> Array:
    """[B, T, D]; arguments as those of `Queries`."""
    look = lambda name: _Look(self.heads, self.dtype, self.impl, name=name)
    h = LayerNorm(EPS, name="norm1")(x)
    x = x + look("own")(h, place, h, place, mask)
    h = LayerNorm(EPS, name="norm2")(x)
    x = x + look("cross")(h, place, memory, memory_place)
    h = LayerNorm(EPS, name="norm3")(x)
    h = _dense(4 * x.shape[-1], self.dtype, "fc1")(h)
    h = nn.gelu(h, approximate=False)
    return x + _dense(x.shape[-1], self.dtype, "fc2")(h)


class Queries(nn.Module):
  """A stack of such layers and a last norm.

  Attributes:
    depth: N.
    heads: H.
    tap: layers behind which states are also returned; 0 for none.
    remat: whether the backward pass computes the layers again.
    dtype: of the products.
    impl: of `ops.attention`.
  """

  depth: int
  heads: int
  tap: int = 0
  remat: bool = False
  dtype: jnp.dtype = jnp.float32
  impl: str | None = None

  @nn.compact
  def __call__(
    self,
    x: Array,
    place: Array,
    memory: Array,
    memory_place: Array,
    mask: Array | None = None,
  ) -> tuple[Array, Array]:
    """States [B, T, D], and those behind layer `tap`.

    Args:
      x: [B, T, D], the queries.
      place: f32[T, D], of the queries.
      memory: [B, S, D].
      memory_place: f32[S, D].
      mask: bool[T, T], which query sees which; None for all.

    Raises:
      UserError: sizes do not fit together.
    """
    check_heads(x.shape[-1], self.heads)
    fixed = (
      place[None].astype(self.dtype),
      memory.astype(self.dtype),
      memory_place[None].astype(self.dtype),
      None if mask is None else mask[None, None],
    )

    def layer(block, carry, index):
      x, tapped = carry
      x = by_example(block(x, *fixed))
      here = index + 1 == self.tap
      return (x, jnp.where(here, x, tapped) if self.tap else tapped), None

    if self.remat:
      layer = nn.remat(layer, prevent_cse=False)
    x = by_example(x.astype(self.dtype))
    stack = nn.scan(
      layer, variable_axes={"params": 0}, split_rngs={"params": True}
    )
    block = QueryBlock(self.heads, self.dtype, self.impl, name="block")
    (x, tapped), _ = stack(block, (x, x), jnp.arange(self.depth))
    return LayerNorm(EPS, name="out_norm")(x), tapped
