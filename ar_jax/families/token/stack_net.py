"""A `NextToken` over the nodes of a stack: what a node sees are its ancestors,
and its place is its depth; see `core.decoding.backspace`.

Shapes: B batch, N nodes, L units, V symbols, D width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ar_jax.families.token.net import NextToken
from ar_jax.nn.layers.positions import rope
from ar_jax.nn.stacks.blocks import dropout

Array = jax.Array


class StackNet(NextToken):
  """The net. Its prefix is one row, of the empty stack, and is node 0; its head
  has one action more than there are symbols.  """

  def of_nodes(
    self, token: Array, depth: Array, sees: Array, keys: Array | None = None
  ) -> Array:
    """Logits f32[B, N, V + 1] of all nodes.

    Args:
      token, depth, sees: as of a `backspace.Walk`.
      keys: Key[B] for dropout, or None.
    """
    first = self.prefix({})
    first = jnp.broadcast_to(first, (len(token), *first.shape[1:]))
    x = jnp.concatenate([first, self.units(token[:, 1:])], axis=1)
    x = dropout(x, keys, self.dropout, self.backbone.depth)
    table = rope(
      self.plan,
      self.backbone.head_width(self.width),
      prefix=1,
      prefix_rope=self.prefix_rope,
    )
    pos = jnp.asarray(table)[depth]
    h, _ = self._stack(x, sees[:, None], None, pos=pos, keys=keys)
    return self.head.logits(h)
