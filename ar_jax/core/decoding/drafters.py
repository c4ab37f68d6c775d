"""Drafters that need no net of their own: what was said, what was drawn.

Shapes as in `speculate`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick
from ar_jax.core.decoding.place_keys import FILL, draw_at, keys_at
from ar_jax.core.decoding.speculate import Draft, Drafter


def jacobi(k: int, **law: float) -> Drafter:
  """The target's own draws of the last forward, moved along (Speculative
  Jacobi Decoding, arXiv 2410.01699); what is missing is filled at random,
  with what no bias forbids.

  The draft for a place is drawn from what the last forward, over drafts that
  may have fallen since, said of it. A random unit counts as a point mass.
  The state is whether a forward with drafts has been, at first False.

  Args:
    k: K.
    **law: of `pick.law`, as the target's.
  """

  def draft(begun, progress, keys):
    rows, vocab = progress.logits.shape[1:]
    row = progress.fresh[:, None] + jnp.arange(k)[None]
    known = jnp.where(begun, rows, 1)
    certain = row < known
    last = jnp.minimum(row, rows - 1)[..., None]
    logp = pick.law(jnp.take_along_axis(progress.logits, last, 1), **law)
    place = progress.count[:, None] + jnp.arange(k)[None]
    bits = jax.vmap(lambda key: jax.random.randint(key, (), 0, vocab))
    # Of its own numbers: those of the place itself have drawn, or will.
    fill = bits(keys_at(keys, place, FILL).reshape(-1)).reshape(place.shape)
    # Not what a bias forbids: a relaxed rule might take it, for its neighbours.
    own = jnp.minimum(row, known - 1)[..., None]
    own = jnp.take_along_axis(progress.logits, own, 1)
    never = jnp.take_along_axis(own, fill[..., None], 2)[..., 0]
    best = jnp.argmax(own, -1).astype(fill.dtype)
    fill = jnp.where(never <= pick.FORBIDDEN, best, fill)
    units = jnp.where(certain, draw_at(logp, keys, place), fill)
    point = jnp.log(jax.nn.one_hot(fill, vocab))
    logp = jnp.where(certain[..., None], logp, point)
    return Draft(units, logp), jnp.ones_like(begun)

  return draft


def lookup(k: int, span: int = 2) -> Drafter:
  """What followed the last `span` units when they last occurred (n-grams).

  Where they never did, the last unit is repeated. Drafts are point masses.

  Args:
    k: K.
    span: n of the n-gram that is looked up.
  """

  def draft(state, progress, keys):
    del keys
    units, count = progress.units, progress.count[:, None]
    place = jnp.arange(units.shape[1])[None]
    # i32[B, L]: how many of the units that end at each place match the end.
    same = jnp.ones_like(units, dtype=bool)
    for back in range(span):
      end = jnp.take_along_axis(units, jnp.maximum(count - 1 - back, 0), 1)
      same &= jnp.roll(units, back, 1) == end
    same &= (place >= span - 1) & (place < count - 1) & (count >= span)
    found = jnp.max(jnp.where(same, place, -1), 1, keepdims=True)
    start = jnp.where(found < 0, count - 1, found + 1)
    # What lies beyond the end goes round.
    ahead = jnp.arange(k)[None] % (count - start)
    return Draft(jnp.take_along_axis(units, start + ahead, 1)), state

  return draft
