"""Which positions see which, where a prefix is padded or drafts stand beside
the units.

Shapes: B batch, P positions of the prefix, S keys, T slots.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ar_jax.core.plans.plan import drafting

Array = jax.Array


def groups(ordinary: Array, anchors: Array, count: int) -> tuple[Array, Array]:
  """Who sees whom, bool[B, T, T], and where they lie, i32[B, T], of T slots:
  ordinary ones, and behind them `count` drafts of each anchor.

  Args:
    ordinary: i32[n], the numbers of ordinary slots.
    anchors: i32[B, A], numbers among these.
    count: k.
  """
  b, many = anchors.shape
  each = jnp.repeat(anchors, count, axis=1)
  line = jnp.broadcast_to(ordinary, (b, len(ordinary)))
  anchor = jnp.concatenate([line, each], axis=1)
  draft = jnp.concatenate(
    [jnp.zeros(len(ordinary), int), jnp.tile(jnp.arange(1, count + 1), many)]
  )
  q = {"anchor": anchor[:, :, None], "draft": draft[None, :, None]}
  k = {"anchor": anchor[:, None], "draft": draft[None, None]}
  return drafting(q, k), anchor + draft[None]


def padding_mask(mask: Array, valid: Array) -> Array:
  """bool[B, 1, 1, S], false where a key is padding of the prefix."""
  rest = mask.shape[-1] - valid.shape[1]
  visible = jnp.pad(valid, ((0, 0), (0, rest)), constant_values=True)
  return visible[:, None, None]


def hide_padding(mask: Array, valid: Array) -> Array:
  """`mask` from row 0 on without the padding of the prefix. Padding still
  sees itself, so that no query is left with nothing."""
  own = jnp.eye(*mask.shape[2:], dtype=bool)[None, None]
  return mask & (padding_mask(mask, valid) | own)
