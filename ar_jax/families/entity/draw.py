"""How a `NextEntity` draws: one flow an entity.

Shapes: B batch, L slots in the order of the plan, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pairs, steps
from ar_jax.core.decoding.steps import fold
from ar_jax.core.flows import flow, solvers
from ar_jax.core.flows.solvers import Velocity
from ar_jax.families.entity.net import NextEntity

Array = jax.Array


def generate(
  net: NextEntity,
  variables: Any,
  label: Array,
  keys: Array,
  follow: Callable[[Velocity, Array, Array], Any],
  *,
  null: int | None,
  scales: Sequence[float],
  trail: bool = False,
) -> Array:
  """Draws the entities one after the other, f32[B, L, C].

  Each is read into the cache when it is done, by a pass at t = 1, and then
  the velocity of the next is followed. Entities of equal size are a loop that
  is traced once.

  Args:
    net: the transformer.
    variables: of it.
    label: i32[B].
    keys: Key[B].
    follow: (velocity, noise [B, T, C], Key[B]) -> the entity; see `trail`.
    null: the label for guidance; None is off.
    scales: of guidance, one for each entity.
    trail: `follow` returns also the way of n steps, f32[n, B, T, C], and the
      result is that of all entities, f32[B, L, n, C].
  """
  p, b = net.plan, len(label)
  if null is not None:
    label = pairs.join(label, jnp.full_like(label, null))
  scales = jnp.asarray(scales, jnp.float32)

  def evaluate(start, x, t, caches):
    x = pairs.double(x, null is not None)
    return net.apply(variables, start, x, label, t, caches, method="step")

  def step(carry, s, keys):
    caches, before = carry
    size = p.sizes[0] if net.even else p.sizes[s]
    start = s * size if net.even else p.span(s).start
    if before is not None:  # done, it joins the context of the others
      at = start - before.shape[1]
      _, caches = evaluate(at, before, jnp.float32(1), caches)

    def velocity(x, t):
      v, _ = evaluate(start, x, t, caches)
      if null is None:
        return v
      return flow.guide(*pairs.split(v), scales[s])

    noise = solvers.noise(fold(keys, 0), (size, net.channels))
    x = follow(velocity, noise, fold(keys, 1))
    if not trail:
      return (caches, x), x
    x, way = x
    return (caches, x), jnp.moveaxis(way, 0, 2)

  caches = net.apply(variables, len(label), traced=net.even, method="caches")
  carry = caches, None
  if not net.even:
    return steps.unroll_steps(step, carry, p, keys)[1]
  carry, first = step(carry, 0, fold(keys, 0))
  _, rest = steps.scan_steps(step, carry, p.steps - 1, keys, start=1)
  x = jnp.concatenate([first[:, None], rest], axis=1)
  return x.reshape(b, len(p), *x.shape[3:])
