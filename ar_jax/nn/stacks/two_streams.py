"""Two streams over one sequence (XLNet, arXiv 1906.08237; of images SemAIM,
arXiv 2312.10457): the content of every position, and queries that know where a
position is and not what is there.

Shapes: B batch, T positions, D width, N layers, Q of the queries.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError
from ar_jax.nn.layers.attention import xavier_attention
from ar_jax.nn.layers.cross_attention import CrossAttention, crossing
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import LayerNorm
from ar_jax.nn.layers.placement import by_example
from ar_jax.nn.stacks.blocks import PlainBlock

Array = jax.Array


class QueryBlock(nn.Module):
  """g += cross(norm(g), norm(h)), by one norm; then g += MLP(norm(g)).

  Attributes:
    mixer: from the queries to the content.
    mlp: acts on each position.
    eps: of the norms.
  """

  mixer: CrossAttention
  mlp: Mlp
  eps: float = 1e-6

  def setup(self):
    self.norm1 = LayerNorm(self.eps)
    self.norm2 = LayerNorm(self.eps)

  def __call__(self, g: Array, h: Array, sees: Array | None) -> Array:
    """[B, T, D] of queries and content, [B, T, D] each; `sees` bool[B, T, T]
    or None."""
    kv = self.mixer.remember(self.norm1(h))
    g = g + self.mixer(self.norm1(g), kv, sees).astype(g.dtype)
    return g + self.mlp(self.norm2(g)).astype(g.dtype)


class TwoStreams(nn.Module):
  """N layers of content; after every N / Q of them a layer of queries looks at
  what they have made. Nothing flows back, so the content is a stack of its own.

  Attributes:
    block: a layer of content; its parameters have a leading axis over N.
    query: a layer of queries; the same over Q.
    depth: N.
    query_depth: Q, a divisor of N.
  """

  block: PlainBlock
  query: QueryBlock
  depth: int
  query_depth: int

  def content(self, x: Array, sees: Array | None = None) -> Array:
    """[N, B, T, D], the content after every layer.

    Args:
      x: [B, T, D].
      sees: bool[B, T, T], or None for all.
    """
    mask = None if sees is None else sees[:, None]

    def layer(block, x, none):
      del none
      x = by_example(block(x, None, mask)[0])
      return x, x

    x = by_example(x.astype(self.block.mlp.dtype))
    stack = nn.scan(
      layer,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      length=self.depth,
    )
    return stack(self.block, x, None)[1]

  def answers(
    self, g: Array, content: Array, sees: Array | None = None
  ) -> Array:
    """[B, T, D], what the queries g [B, T, D] have become.

    Args:
      g: where the positions are.
      content: what `content` returns.
      sees: bool[B, T, T], or None for all.
    """
    step = self.depth // self.query_depth
    g = by_example(g.astype(content.dtype))
    layer = lambda block, g, h: (by_example(block(g, h, sees)), None)
    stack = nn.scan(
      layer, variable_axes={"params": 0}, split_rngs={"params": True}
    )
    return stack(self.query, g, content[step - 1 :: step])[0]

  def as_query(self, block: Any) -> dict[str, Any]:
    """The parameters of the queries that are those of the content `block`
    [N, ...], of the layers that they follow."""
    step = self.depth // self.query_depth
    block = jax.tree.map(lambda x: x[step - 1 :: step], block)
    mixer = dict(block["mixer"])
    wide = mixer["bias_q"].shape[-1]
    q, kv = jnp.split(mixer.pop("qkv")["kernel"], [wide], -1)
    mixer |= {"query": {"kernel": q}, "key_value": {"kernel": kv}}
    return {**block, "mixer": mixer}


def two_streams(
  depth: int,
  width: int,
  *,
  heads: int,
  query_depth: int | None = None,
  eps: float = 1e-6,
  dtype: str = "float32",
  impl: str | None = None,
) -> TwoStreams:
  """Both streams of ViT's layers, whose weights begin Xavier-uniform.

  Args:
    depth: N.
    width: D.
    heads: of attention.
    query_depth: Q; N if None.
    eps: of the norms.
    dtype: of the computation.
    impl: of `ops.attention`.

  Raises:
    UserError: sizes do not fit together.
  """
  query_depth = query_depth or depth
  if depth % query_depth:
    raise UserError(
      f"query_depth={query_depth}: the {depth} layers of content must divide "
      "into so many parts"
    )
  mixer = xavier_attention(width, heads, dtype=dtype, impl=impl)
  mlp = lambda: Mlp(4 * width, None, None, jnp.dtype(dtype), "gelu")
  return TwoStreams(
    PlainBlock(mixer, mlp(), eps, rms=False),
    QueryBlock(crossing(width, mixer), mlp(), eps),
    depth,
    query_depth,
  )
