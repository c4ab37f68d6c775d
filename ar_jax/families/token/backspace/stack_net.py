"""A `NextToken` over the nodes of a stack: what a node sees are its ancestors,
and its place is its depth; see `core.decoding.backspace`.

Shapes: B batch, N nodes, L units, V symbols, D width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ar_jax.core.decoding.backspace import Walk
from ar_jax.families.token.net import NextToken
from ar_jax.nn.layers.positions import rope
from ar_jax.nn.losses.occupancy import Steps
from ar_jax.nn.stacks.blocks import dropout

Array = jax.Array


class StackNet(NextToken):
  """The net. Its prefix is one row, of the empty stack, and is node 0; its head
  has one action more than there are symbols."""

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


def steps(
  logits: Array,
  walk: Walk,
  gamma: float,
  prompt: int = 0,
  end: Array | None = None,
) -> Steps:
  """What the logits of nodes say of the actions behind a prompt, f32[B, A - M].

  Args:
    logits: f32[B, N, V + 1], l(a | s) of what is allowed.
    walk: the actions.
    gamma: discount; the first action behind the prompt weighs 1.
    prompt: M.
    end: f32[], the value of a finished text, in which it stays for ever: there
      is one step more, of all that follows. None for 0, without such a step.
  """
  total = jax.nn.logsumexp(logits, -1)
  at = lambda node: jnp.take_along_axis(total, node, 1)
  rows = jnp.take_along_axis(logits, walk.state[..., None], 1)
  q = jnp.take_along_axis(rows, walk.action[..., None], 2)[..., 0]
  time = jnp.maximum(jnp.arange(q.shape[1])[None] - prompt, 0)
  weight = jnp.where(walk.valid, gamma**time, 0.0)
  after = jnp.where(walk.ends, 0.0 if end is None else end, at(walk.next))
  every = q, at(walk.state), after, weight
  q, v, after, weight = (x[:, prompt:] for x in every)
  if end is None:
    return Steps(q, v, after, weight)
  last = jnp.where(walk.ends[:, prompt:], weight, 0.0)
  rest = jnp.sum(last, 1, keepdims=True) * gamma / (1 - gamma)
  more = lambda x, y: jnp.concatenate([x, jnp.broadcast_to(y, rest.shape)], 1)
  return Steps(more(q, end), more(v, end), more(after, end), more(weight, rest))
