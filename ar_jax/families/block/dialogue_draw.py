"""The loop that draws answers chunk by chunk: speech at once, then the map a
set of tokens at a time.

Shapes: B batch, C chunks, m speech tokens and n map tokens of a chunk, p
numbers of a map token, R passes that fill a map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pairs, refine
from ar_jax.core.decoding.steps import fold
from ar_jax.core.plans import makers
from ar_jax.families.block.dialogue import Cond, DialogueNet

Array = jax.Array


def answers(
  net: DialogueNet,
  cond: Cond,
  keys: Array,
  *,
  scale: float,
  passes: int,
  law: Mapping[str, Any],
  latent: Mapping[str, Any],
) -> tuple[Array, Array]:
  """Maps f32[B, C n, p] and speech i32[B, C m].

  Args:
    net: bound.
    cond: what its prefix reads.
    keys: Key[B].
    scale: of guidance by the question; 1.0 is off.
    passes: R.
    law: of the speech, see `pick.law`.
    latent: options of the diffusion head.
  """
  c, n, m, b = net.chunks, net.tokens, net.slots, len(keys)
  guided = scale != 1.0
  hidden = pairs.without(b) if guided else None
  cache = net.begin(pairs.double(cond, guided), hidden)
  sizes = makers.cosine(n, passes)

  def chunk(carry, number):
    speech, units, cache = carry
    known = pairs.double((speech, units), guided)
    h, cache = net.step(*known, number, cache)
    sound, z = net.parts(h)
    sound_null = z_null = None
    if guided:
      (sound, sound_null), (z, z_null) = pairs.split(sound), pairs.split(z)
    own = fold(keys, number)
    speech = net.speech.draw(
      sound, fold(own, 0), h_null=sound_null, scale=scale, **law
    )
    shuffle = lambda key: jax.random.permutation(key, n)
    order = jax.vmap(shuffle)(fold(own, 1))
    rank = jnp.argsort(order, 1)

    def predict(canvas, count, at, s, keys, *, rows):
      del s, rows
      take = lambda x: jnp.take_along_axis(x, at[..., None], 1)
      f = take(net.refiner(z, canvas, rank < count))
      f_null = None
      if guided:
        f_null = take(net.refiner(z_null, canvas, rank < count))
      return net.latent.draw(f, keys, h_null=f_null, scale=scale, **latent)

    canvas = jnp.zeros((b, n, net.channels))
    units = refine.refine(predict, canvas, order, sizes, fold(own, 2))
    return (speech, units, cache), (speech, units)

  first = jnp.zeros((b, m), jnp.int32), jnp.zeros((b, n, net.channels))
  _, made = jax.lax.scan(chunk, (*first, cache), jnp.arange(c))
  speech, units = (jnp.moveaxis(x, 0, 1) for x in made)
  return units.reshape(b, c * n, -1), speech.reshape(b, c * m)
