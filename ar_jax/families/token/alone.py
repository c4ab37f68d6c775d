"""Units without context, as the published training loop of EAR has them: a
state behind the first unit sees that unit and nothing before it.

It passes no cache (arXiv 2506.20151, released code), so every step after the
first reads one unit at position 0. What a position that sees nothing but
itself says does not depend on where it is.

Shapes: B batch, P positions of the prompt, L units, R = P + L - 1 rows.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import pairs, steps
from ar_jax.core.system import Array, Vars
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.prompts.prompt import Prompt


def mask(net: NextToken) -> Array:
  """bool[R, R]: the prompt is causal, and every unit sees itself."""
  count = net.prefix.length
  seen = np.eye(net.rows, dtype=bool)
  seen[:count, :count] = np.tril(np.ones((count, count), bool))
  return jnp.asarray(seen)


def fitted(prefix: Prompt, text: Array, like: Array) -> Array:
  """Texts of as many ids as others: cut, or padding that is seen behind them.

  Args:
    prefix: knows what fills a text up, and what its padding is.
    text: i32[B, n].
    like: i32[B, m].

  Returns:
    i32[B, max(n, m)], filled up at the end.
  """
  size = max(text.shape[1], like.shape[1])
  wide = lambda x: jnp.pad(
    jnp.asarray(x),
    ((0, 0), (0, size - x.shape[1])),
    constant_values=prefix.fill,
  )
  text, like = wide(text), wide(like)
  real = text != prefix.fill
  front = jnp.argsort(~real, axis=1, stable=True)
  ids = jnp.take_along_axis(text, front, axis=1)
  at = jnp.arange(size)[None]
  ids = jnp.where(at < jnp.sum(real, 1, keepdims=True), ids, prefix.pad)
  count = jnp.sum(like != prefix.fill, 1, keepdims=True)
  return jnp.where(at < count, ids, prefix.fill)


def draw(
  net: NextToken,
  variables: Vars,
  cond: dict[str, Array],
  keys: Array,
  guidance: float,
) -> Array:
  """Units i32[B, L], drawn in this way; guidance is of the first one alone, for
  the others know no prompt.

  Args:
    net, variables: of the model.
    cond: its prompts.
    keys: Key[B].
    guidance: scale; 1.0 is off.
  """
  given, hidden = pairs.double(cond), pairs.without(len(keys))
  bound = net.bind(variables)
  blank = net.units.blank(2 * len(keys), 0)
  h, null = pairs.split(bound.read(given, blank, hidden)[0][:, -1:])
  more: dict[str, Any] = {}
  if guidance != 1.0:
    more = {"h_null": null, "scale": guidance}
  first = bound.head.draw(h, steps.fold(keys, 0), **more)[:, 0]
  own = jnp.ones((1, 1, 1, 1), bool)

  def step(units, s, keys):
    bound = net.bind(variables)
    x, at = bound.units(units[:, None]), bound.rotations()[:1]
    h, _ = bound.backbone(x, own, pos=at)
    units = bound.head.draw(h, keys)[:, 0]
    return units, units

  _, rest = steps.scan_steps(step, first, len(net.plan) - 1, keys, start=1)
  return jnp.concatenate([first[:, None], rest], 1)
