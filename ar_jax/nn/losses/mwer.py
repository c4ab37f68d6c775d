"""Minimum word error rate (Prabhavalkar 2018, arXiv 1712.01818), of candidates
that a parallel decoder says at once.

The candidates of one pass: the likeliest symbol everywhere, and others in which
the likeliest one is masked at a few random places, so that the next best stands
there (Paraformer, arXiv 2206.08317).

Shapes: B batch, M candidates, P places, V symbols.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import edits

Array = jax.Array


def candidates(
  logits: Array, real: Array, keys: Array, count: int, flips: int
) -> Array:
  """i32[B, M, P].

  Args:
    logits: [B, P, V].
    real: bool[B, P], places that are no padding.
    keys: Key[B].
    count: M; the first has no other symbol.
    flips: places with another symbol in each of the others, as far as there
      are so many.
  """
  _, best = jax.lax.top_k(logits, 2)

  def places(key):
    chance = jax.random.uniform(key, (count, logits.shape[1]))
    return chance.at[0].set(-1.0)

  chance = jax.vmap(places)(keys)
  chance = jnp.where(real[:, None], chance, -1.0)
  rank = jnp.argsort(jnp.argsort(-chance, -1), -1)
  other = (rank < flips) & (chance >= 0)
  return jnp.where(other, best[:, None, :, 1], best[:, None, :, 0])


def loss(
  logits: Array,
  target: Array,
  real: Array,
  keys: Array,
  *,
  count: int = 4,
  flips: int = 2,
) -> tuple[Array, Array]:
  """(f32[B]: the edits of the candidates beyond their mean, weighted by how
  likely each is among them; f32[B]: that mean). No gradient goes into edits.

  Args:
    logits: [B, P, V].
    target: i32[B, P].
    real: bool[B, P]; the candidates are as long as the target.
    keys: Key[B].
    count: M.
    flips: see `candidates`.
  """
  said = candidates(jax.lax.stop_gradient(logits), real, keys, count, flips)
  law = jax.nn.log_softmax(logits.astype(jnp.float32), -1)
  each = jnp.take_along_axis(law[:, None], said[..., None], -1)[..., 0]
  total = jnp.sum(jnp.where(real[:, None], each, 0.0), -1)
  weight = jax.nn.softmax(total, -1)
  n = real.sum(1)
  wrong = jnp.stack(
    [edits.distance(said[:, i], n, target, n) for i in range(count)], 1
  ).astype(jnp.float32)
  mean = wrong.mean(1)
  return jnp.sum(weight * (wrong - mean[:, None]), 1), mean
