"""How states are drawn unit by unit, behind those that are known.

Shapes: B batch, T positions that are known, N units to be drawn, C channels, D
width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pairs, steps
from ar_jax.core.decoding.steps import fold
from ar_jax.core.system import Vars
from ar_jax.families.flow.states import Given, States

Array = jax.Array


def units(
  net: States,
  variables: Vars,
  given: Given,
  known: Array,
  count: int,
  keys: Array,
  law: Callable[[Array, Array], Array],
  *,
  causal: bool,
  guided: bool,
) -> Array:
  """Draws the units behind known ones, f32[B, N, C], a pass for each: that
  which reads the known ones draws the first.

  Args:
    net: the network.
    variables: of it.
    given: of the rows of the net, which are the examples or their pairs.
    known: f32[B, T, C].
    count: N.
    keys: Key[B].
    law: (h [rows, 1, D], Key[B]) -> f32[B, 1, C].
    causal: whether known ones see only those before them.
    guided: whether rows are pairs.
  """
  length = known.shape[1]

  def read(x: Array, at: Array, mask: Any, cache: Any):
    x = pairs.double(x, guided)
    return net.apply(variables, x, at, given, mask, cache=cache)

  rows = len(keys) * (1 + guided)
  stack = net.backbone
  cache = stack.cache(rows, length + count - 1, net.width)
  mask = cache.causal(length) if causal else None
  h, cache = read(known, jnp.arange(length), mask, cache)
  first = law(h[:, -1:], fold(keys, 0))
  index = jnp.asarray(cache.index, jnp.int32)
  cache = dataclasses.replace(cache, index=index)

  def step(carry, i, keys):
    cache, before = carry
    at = length + i - 1
    h, cache = read(before, at[None], None, cache)
    unit = law(h, keys)
    return (cache, unit), unit[:, 0]

  carry = cache, first
  _, rest = steps.scan_steps(step, carry, count - 1, keys, start=1)
  return jnp.concatenate([first, rest], axis=1)
