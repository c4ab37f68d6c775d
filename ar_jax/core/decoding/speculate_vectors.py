"""Speculation over units that are vectors: one loop for every pair of models
and every rule of `densities`; what `speculate` is for codes.

Random numbers belong to a place, see `place_keys`. Of these a drafter takes
what a plain draw of the target takes there, so a drafter that is the target
draws what the target draws.

Shapes: B examples, L units, K drafts, C channels of a unit, N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import densities, place_keys
from ar_jax.core.decoding.densities import Density, Rule

Array = jax.Array


class Stats(NamedTuple):
  """What speculation did, per example.

  Attributes:
    forwards: i32[B], forwards of the target.
    trials: i32[B], drafts that were verified.
    accepted: i32[B], drafts that were accepted.
    chance: f32[B], the sum over the verified drafts of the chance of each.
    proposals: i32[B], of the residual.
    capped: i32[B], draws of the residual in which no proposal stood.
  """

  forwards: Array
  trials: Array
  accepted: Array
  chance: Array
  proposals: Array
  capped: Array


def summary(stats: Stats, units: int) -> dict[str, Array]:
  """Means over examples that drew `units` units each: `acceptance`, the chance
  of a draft when it is its turn; `forwards` of one example,
  `units_per_forward`; `proposals` of the residual for each verified draft, and
  `capped`, the share of verified drafts in which none of them stood."""
  each = lambda x: jnp.sum(x) / jnp.maximum(jnp.sum(stats.trials), 1)
  forwards = jnp.mean(stats.forwards.astype(jnp.float32))
  return {
    "acceptance": each(stats.chance),
    "forwards": forwards,
    "units_per_forward": units / forwards,
    "proposals": each(stats.proposals),
    "capped": each(stats.capped),
  }


class Drafts(NamedTuple):
  """K drafts of every example.

  Attributes:
    units: f32[B, K, C].
    samples: [B, K, ...], what they are of.
    known: of them, a tree of [B, K, ...].
    law: of these drafts: i32[R] rows of B K -> q.
  """

  units: Array
  samples: Array
  known: Any
  law: Callable[[Any], Density]


def speculate(
  draft: Callable[..., tuple[Drafts, Any]],
  score: Callable[..., tuple[Callable[[Any], Density], Any]],
  rule: Rule,
  units: Array,
  count: Array,
  state: tuple[Any, Any],
  keys: Array,
  k: int,
  *,
  most: int = 64,
  shared: bool = True,
) -> tuple[Array, Stats]:
  """Draws the units that are left, left to right, in one loop: K drafts, one
  forward of the target, and the first rejection ends what stands.

  Args:
    draft: (state, units, count, keys) -> (Drafts, state).
    score: (state, units, count, drafts f32[B, K, C]) -> (rows of B (K + 1)
      places from `count` on -> p, state).
    rule: what is compared.
    units: f32[B, L, C], known ones.
    count: i32[B], how many; at least 1.
    state: the first states of both.
    keys: Key[B], threefry.
    k: K; 0 draws one unit a forward.
    most: of `residual`.
    shared: whether the target looks with the noise of the drafts.

  Returns:
    Units f32[B, L, C], and what it took, the forwards of the loop alone.
  """
  batch, length = units.shape[:2]
  b = jnp.arange(batch)
  flat = lambda x: x.reshape(-1, *x.shape[2:])

  def body(carry):
    units, count, states, stats = carry
    drafts, drafter = draft(states[0], units, count, keys)
    law, target = score(states[1], units, count, drafts.units)
    left = length - count
    valid = jnp.clip(left - 1, 0, k)
    place = count[:, None] + jnp.arange(k + 1)[None]
    bank = place_keys.keys_at(keys, place, None if shared else place_keys.FILL)
    seen = rule.look(law(jnp.arange(batch * (k + 1))), flat(bank))
    accepted = jnp.zeros(batch, jnp.int32)
    chance = jnp.zeros(batch)
    if k:
      tried = (b[:, None] * (k + 1) + jnp.arange(k)[None]).reshape(-1)
      ratio = rule.log_ratio(
        drafts.law(jnp.arange(batch * k)),
        law(tried),
        flat(drafts.samples),
        jax.tree.map(flat, drafts.known),
        jax.tree.map(lambda x: x[tried], seen),
      ).reshape(batch, k)
      use = place_keys.keys_at(keys, place[:, :k], place_keys.ACCEPT)
      drawn = densities.uniform(flat(use)).reshape(batch, k)
      tested = jnp.arange(k)[None] < valid[:, None]
      stands = (jnp.log(drawn) < ratio) & tested
      run = jnp.cumprod(stands, axis=1)
      accepted = jnp.sum(run, 1).astype(jnp.int32)
      turn = tested & (jnp.arange(k)[None] <= accepted[:, None])
      each = jnp.exp(jnp.minimum(ratio, 0.0))
      chance = jnp.sum(jnp.where(turn, each, 0.0), 1)
    # The place behind what stands: the residual of a draft, or a plain draw.
    asked = (accepted < valid) & (left > 0)
    row = b * (k + 1) + accepted
    own = jax.tree.map(lambda x: x[row], seen)
    at_row = place_keys.keys_at(keys, count + accepted)
    unit = rule.fresh(law(row), own, at_row)
    proposals = capped = jnp.zeros(batch, jnp.int32)
    if k:
      drawn = b * k + jnp.minimum(accepted, k - 1)
      again = densities.residual(
        rule,
        drafts.law(drawn),
        law(row),
        jax.tree.map(lambda x: flat(x)[drawn], drafts.known),
        own,
        asked,
        place_keys.keys_at(keys, count + accepted, place_keys.RESAMPLE),
        most,
      )
      unit = jnp.where(asked[:, None], again.unit, unit)
      proposals, capped = again.proposals, again.capped.astype(jnp.int32)
    new = jnp.pad(drafts.units, ((0, 0), (0, 1), (0, 0)))
    new = new.at[b, accepted].set(unit)
    step = jnp.arange(k + 1)[None]
    put = jnp.where(step <= accepted[:, None], place, length)
    units = units.at[b[:, None], put].set(new, mode="drop")
    trials = jnp.minimum(accepted + 1, valid)
    stats = Stats(
      stats.forwards + (left > 0),
      stats.trials + trials,
      stats.accepted + accepted,
      stats.chance + chance,
      stats.proposals + proposals,
      stats.capped + capped,
    )
    count = count + jnp.where(left > 0, accepted + 1, 0)
    return units, count, (drafter, target), stats

  on = lambda carry: jnp.any(carry[1] < length)
  zeros = jnp.zeros(batch, jnp.int32)
  stats = Stats(zeros, zeros, zeros, jnp.zeros(batch), zeros, zeros)
  carry = jax.lax.while_loop(on, body, (units, count, state, stats))
  return carry[0], carry[3]
