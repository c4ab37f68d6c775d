"""Speculation over plans whose steps hold many units.

A model drafts for itself: one forward over a whole example tells the law of
every unit, so while a step is drawn all later ones are drafted, and the next
forward judges them (Speculative Jacobi Decoding, arXiv 2410.01699, with a step
in the place of a unit). The units of a step do not see each other, so each is
judged for itself; one that falls is drawn anew, and the steps behind it wait
for the next forward. What is emitted follows the target's law exactly unless a
relaxed rule is bound, by the reasons and with the random numbers of
`core.decoding.speculate`.

`core.decoding.speculate` is the loop for one unit a step, which reads no more
than a window and keeps a cache. Here a forward reads everything, so it saves
time only where a forward costs about the same however much it reads.

Shapes: B examples, L units, N steps, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick, place_keys
from ar_jax.core.decoding.editing import Edit
from ar_jax.core.decoding.speculate import Stats
from ar_jax.core.plans.plan import Plan

Array = jax.Array


def decode(
  score: Callable[[Array], Array],
  verify: Callable,
  plan: Plan,
  keys: Array,
  *,
  edit: Edit | None = None,
  **law: float,
) -> tuple[Array, Stats]:
  """Draws all units, in one loop.

  Args:
    score: units i32[B, L] -> logits f32[B, L, V], guided, of every unit given
      those of the steps before it.
    verify: `ops.verify` with the rule bound; it is given filtered laws.
    plan: the steps.
    keys: Key[B], threefry.
    edit: units that are known.
    **law: the filters; see `pick.law`.

  Returns:
    Units i32[B, L], and what it took: at most N + 1 forwards, the first of
    which judges nothing.
  """
  steps, length = plan.steps, len(plan)
  level = jnp.asarray(plan.step_of())[None]
  place = jnp.broadcast_to(jnp.arange(length), (len(keys), length))
  known = jnp.zeros((1, 1), bool) if edit is None else edit.keep
  put = (lambda x: x) if edit is None else lambda x: edit(slice(None), x)
  use = lambda use: place_keys.keys_at(keys, place, use).reshape(-1)
  uniform = jax.vmap(jax.random.uniform)
  noise = jnp.stack(
    [uniform(use(place_keys.ACCEPT)), uniform(use(place_keys.RESAMPLE))], axis=1
  )

  def score_all(units):
    logp = pick.law(score(units), **law)
    return logp, put(place_keys.draw_at(logp, keys, place))

  def body(carry):
    units, logp, done, stats = carry
    new_logp, drawn = score_all(units)
    # Every unit is a chain of one draft; the row behind it is not asked.
    flat = lambda x: x.reshape(-1, 1, *x.shape[2:])
    own = flat(new_logp)[:, None]
    verdict = verify(
      jnp.broadcast_to(own, (len(own), 1, 2, own.shape[-1])),
      flat(units),
      noise,
      draft_logp=flat(logp),
    )
    stands = known | (verdict.accepted.reshape(units.shape) > 0)
    live = level >= done[:, None]
    fell = jnp.min(jnp.where(live & ~stands, level, steps), axis=1)
    judged = live & (level <= fell[:, None])
    units = jnp.where(
      judged,
      jnp.where(stands, units, verdict.token.reshape(units.shape)),
      jnp.where(live, drawn, units),
    )
    count = lambda x: jnp.sum(jnp.where(judged & ~known, x, 0), axis=1)
    chance = verdict.chance.reshape(units.shape)
    stats = Stats(
      stats.forwards + (done < steps),
      stats.trials + count(jnp.ones_like(units)),
      stats.accepted + count(stands.astype(jnp.int32)),
      stats.chance + count(chance),
    )
    return units, new_logp, jnp.minimum(fell + 1, steps), stats

  # The first forward tells the law of the first step, and guesses the rest
  # behind zeros that mean nothing.
  units = put(jnp.zeros(place.shape, jnp.int32))
  logp, units = score_all(units)
  zeros = jnp.zeros(len(keys), jnp.int32)
  stats = Stats(zeros + 1, zeros, zeros, zeros.astype(jnp.float32))
  start = units, logp, zeros + 1, stats
  left = lambda carry: jnp.any(carry[2] < steps)
  units, _, _, stats = jax.lax.while_loop(left, body, start)
  return units, stats
