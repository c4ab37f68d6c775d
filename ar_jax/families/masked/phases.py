"""The two phases of a draw of Hi-MAR: the units of the small image, a few at a
time, and those of the whole one, all of which every step draws anew.

Shapes: B batch, Ls and Ld units of the small and of the whole image, C
channels, D width, K steps of a phase.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pairs, refine
from ar_jax.core.decoding.steps import fold
from ar_jax.families.masked.pivots import Pivoted

Array = jax.Array


def orders(keys: Array, length: int) -> Array:
  """i32[B, L], which unit comes when, by keys Key[B]."""
  return jax.vmap(lambda key: jax.random.permutation(key, length))(keys)


def hidden(order: Array, known: Array | int) -> Array:
  """f32[B, L], 1 where a unit is not among the first `known` of an order."""
  return (jnp.argsort(order, axis=1) >= known).astype(jnp.float32)


def shown(
  net: Pivoted,
  kind: str,
  h: Array,
  few: Array,
  hidden: Array,
  chance: Array | None,
  rate: Array | None,
) -> Array:
  """f32[B, Ls, D], the pivots of a training step. No gradient goes through them
  into the first phase.

  Args:
    net: bound.
    kind: "hidden" or "token".
    h: f32[B, Ls, D], hidden states of the first phase.
    few: f32[B, Ls, C], its units.
    hidden: f32[B, Ls], 1 where they were hidden.
    chance: f32[B], uniform draws; None gives every image its pivots.
    rate: f32[B], how often an image sees them and not blanks alone.
  """
  blank = net.blank_pivots()
  if kind == "token":
    pivots = net.token_pivots(few)
  else:
    made = net.hidden_pivots(jax.lax.stop_gradient(h))
    # Of places that were known nothing was predicted.
    pivots = jnp.where(hidden[..., None] > 0, made, blank)
  if chance is None:
    return pivots
  return jnp.where((chance > 1 - rate)[:, None, None], pivots, blank)


def small(
  net: Pivoted,
  params: Any,
  label: Array,
  keys: Array,
  sizes: Sequence[int],
  scales: Array,
  *,
  waste: float = 0.5,
  **head: Any,
) -> tuple[Array, Array]:
  """The first phase: units f32[B, Ls, C], and the hidden states f32[B, Ls, D]
  by which each was drawn, with the class.

  Args:
    net: not bound.
    params: of it.
    label: i32[B], or of `pairs` with the null label, i32[2 B].
    keys: Key[B].
    sizes: units of each step.
    scales: f32[K], of guidance.
    waste: see `refine.stretches`.
    **head: options of `Diffusion.draw`.
  """
  n, c, guided = net.small, net.channels, len(label) > len(keys)
  own = {"params": params}
  pair = lambda x: pairs.double(x, guided)
  order = orders(fold(keys, 0), n)

  def predict(canvas, known, at, s, keys, *, rows):
    seen = label, pair(canvas[..., :c]), pair(order), known
    h = net.apply(own, *seen, rows=max(1, rows), method="first")
    h = jnp.take_along_axis(h, pair(at)[..., None], 1)
    h, null = pairs.split(h) if guided else (h, None)
    draw = lambda net, *args, **rest: net.head.draw(*args, **rest)
    units = net.apply(
      own, h, keys, h_null=null, scale=scales[s], method=draw, **head
    )
    return jnp.concatenate([units, h.astype(units.dtype)], -1)

  canvas = jnp.zeros((len(keys), n, c + net.width))
  drawn = refine.refine(
    predict, canvas, order, sizes, fold(keys, 1), waste=waste
  )
  return drawn[..., :c], drawn[..., c:]


def whole(
  net: Pivoted,
  params: Any,
  label: Array,
  pivots: Array,
  keys: Array,
  sizes: Sequence[int],
  scales: Array,
  **head: Any,
) -> Array:
  """The second phase: units f32[B, Ld, C].

  Args:
    pivots: f32[B, Ls, D], the same with the class and without.
    **head: options of `MapDiffusion.draw`.
    Others as in `small`.
  """
  n, guided = net.dense, len(label) > len(keys)
  own = {"params": params}
  pair = lambda x: pairs.double(x, guided)
  order = orders(fold(keys, 2), n)

  def predict(canvas, known, at, s, keys, *, rows):
    seen = label, pair(pivots), pair(canvas), pair(order), known
    h = net.apply(own, *seen, rows=max(1, rows), method="second")
    h, null = pairs.split(h) if guided else (h, None)
    drawn = net.apply(
      own,
      h,
      keys,
      known=hidden(order, known) == 0,
      units=canvas,
      h_null=null,
      scale=scales[s],
      method=lambda net, *args, **rest: net.map_head.draw(*args, **rest),
      **head,
    )
    # What stays hidden is thrown away and drawn anew.
    return jnp.take_along_axis(drawn, at[..., None], 1)

  canvas = jnp.zeros((len(keys), n, net.channels))
  # Every step draws the map, so all of them share one program.
  return refine.refine(
    predict, canvas, order, sizes, fold(keys, 3), waste=math.inf
  )
