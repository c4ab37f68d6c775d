"""Speculation: something cheap drafts, one forward of the target verifies.

One loop for every drafter, every target and every rule. Three functions make
it up, all of them given:

  Drafter  (state, Progress, keys) -> (Draft, state)   what comes next, perhaps
  Score    (state, Progress, Draft) -> (logits, hidden, state)   one forward
  Verify   `ops.verify`, with the filters and the rule bound

What is emitted follows the target's law exactly (Leviathan et al., arXiv
2211.17192; Chen et al., arXiv 2302.01318) unless a relaxed rule is bound.
Every example accepts for itself, and a forward costs the same whatever it
accepts.

Random numbers belong to a place, see `place_keys`; what an example draws does
not depend on the batch around it.

Shapes: B examples, L units, K drafts, S = K + 1 rows of one forward, D width,
V vocabulary, E levels of a tree (K for a chain).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import draft_tree, place_keys
from ar_jax.core.errors import UserError

Array = jax.Array


class Draft(NamedTuple):
  """What is proposed.

  Attributes:
    units: i32[B, K].
    logp: f32[B, K, V], the law each was drawn from, filtered as the target's;
      None for units that were chosen, not drawn (point masses).
    parents: i32[B, K], the row of the parent of each, 0 being the unit before
      all drafts and j + 1 draft j; at most its index. None for a chain.
    count: i32[B], how many of a chain there are, where it is not K; None for
      all. The others are not verified.
  """

  units: Array
  logp: Array | None = None
  parents: Array | None = None
  count: Array | None = None


class Progress(NamedTuple):
  """What a drafter and a target may look at.

  Attributes:
    units: i32[B, L], those of the first `count` places are drawn.
    count: i32[B], at least 1; the last drawn unit has not been read yet.
    fresh: i32[B], how many of them the last forward has brought.
    path: i32[B, E + 1], the rows of the last forward that stand, `fresh` of
      them: row 0, then those of the accepted drafts.
    hidden: what `Score` says of its rows, for example [B, S, D].
    logits: f32[B, S, V] of these rows.
  """

  units: Array
  count: Array
  fresh: Array
  path: Array
  hidden: Any
  logits: Array

  @property
  def last(self) -> Array:
    """i32[B], the last drawn unit."""
    return draft_tree.at(self.units, self.count - 1)


class Stats(NamedTuple):
  """What speculation did, per example.

  Attributes:
    forwards: i32[B], forwards of the target, the one that reads the condition
      among them.
    trials: i32[B], drafts that were verified.
    accepted: i32[B], drafts that were accepted.
    chance: f32[B], sum over the verified drafts of the probability with which
      each was accepted; `accepted` where that is not known, of trees and in
      mode "gumbel".
  """

  forwards: Array
  trials: Array
  accepted: Array
  chance: Array


Drafter = Callable[[Any, Progress, Array], tuple[Draft, Any]]
Score = Callable[[Any, Progress, Draft], tuple[Array, Any, Any]]


def begin(
  units: Array,
  count: Array,
  hidden: Any,
  logits: Array,
  k: int,
  levels: int | None = None,
) -> Progress:
  """What is known before the first draft.

  Args:
    units: i32[B, L], known ones; that of place `count` - 1 was just drawn.
    count: i32[B].
    hidden: of the row that drew it, [B, 1, ...]; any tree of these.
    logits: f32[B, 1, V] of that row.
    k: K.
    levels: E; None for chains.
  """
  rest = lambda x: jnp.pad(x, [(0, 0), (0, k)] + [(0, 0)] * (x.ndim - 2))
  path = jnp.zeros((len(units), (levels or k) + 1), jnp.int32)
  fresh = jnp.ones_like(count)
  return Progress(
    units, count, fresh, path, jax.tree.map(rest, hidden), rest(logits)
  )


def speculate(
  draft: Drafter,
  score: Score,
  verify: Callable,
  progress: Progress,
  state: tuple[Any, Any],
  keys: Array,
  *,
  mode: str = "exact",
) -> tuple[Array, Stats]:
  """Draws the units that are left, in one loop.

  Args:
    draft: the drafter.
    score: one forward of the target over the last unit and the drafts.
    verify: `ops.verify` with filters and rule bound.
    progress: from `begin`.
    state: the first states of drafter and target.
    keys: Key[B], threefry.
    mode: of `ops.verify`: "exact" for chains; "point" for drafts without a
      law, trees among them; "gumbel" draws what a plain sampler draws with
      `pick.draw` and `steps.fold`, whatever the drafts are.

  Returns:
    Units i32[B, L], and what it took.

  Raises:
    UserError: the mode does not fit the drafts.
  """
  batch, length = progress.units.shape
  rows = jnp.arange(batch)[:, None]

  def body(carry):
    progress, (drafter, target), stats = carry
    new, drafter = draft(drafter, progress, keys)
    _check(new, mode)
    logits, hidden, target = score(target, progress, new)
    left = length - progress.count
    most = new.units.shape[1] if new.count is None else new.count
    valid = jnp.clip(left - 1, 0, most)
    depth = None if new.parents is None else draft_tree.ancestry(new.parents)[1]
    verdict = verify(
      logits[:, None],
      new.units,
      place_keys.noise(mode, keys, progress.count, logits.shape[1], depth),
      mode=mode,
      draft_logp=new.logp if mode == "exact" else None,
      # The nodes of a tree lie at many depths; what overshoots is dropped.
      valid=valid if depth is None else None,
      parents=new.parents,
    )
    path = draft_tree.path(verdict, new.parents, progress.path.shape[1])
    # Behind row j of the path comes the draft of row j + 1; at last the token.
    step = jnp.arange(path.shape[1])[None]
    following = jnp.pad(path[:, 1:], ((0, 0), (0, 1)))
    units = jnp.take_along_axis(
      new.units, jnp.maximum(following - 1, 0), axis=1
    )
    units = jnp.where(
      step < verdict.accepted[:, None], units, verdict.token[:, None]
    )
    place = jnp.where(
      step <= verdict.accepted[:, None], progress.count[:, None] + step, length
    )
    units = progress.units.at[rows, place].set(units, mode="drop")
    fresh = jnp.minimum(verdict.accepted + 1, left)
    most = path.shape[1] - 1 if new.count is None else new.count
    trials = jnp.minimum(verdict.accepted + 1, jnp.minimum(left - 1, most))
    accepted = jnp.minimum(verdict.accepted, jnp.maximum(left - 1, 0))
    chance = accepted
    if depth is None and mode != "gumbel":
      chance = jnp.sum(verdict.chance, 1)
    stats = Stats(
      stats.forwards + (left > 0),
      stats.trials + jnp.maximum(trials, 0),
      stats.accepted + accepted,
      stats.chance + chance.astype(jnp.float32),
    )
    progress = Progress(
      units, progress.count + fresh, fresh, path, hidden, logits
    )
    return progress, (drafter, target), stats

  some = lambda carry: jnp.any(carry[0].count < length)
  zeros = jnp.zeros(batch, jnp.int32)
  stats = Stats(zeros + 1, zeros, zeros, zeros.astype(jnp.float32))
  progress, _, stats = jax.lax.while_loop(some, body, (progress, state, stats))
  return progress.units, stats


def summary(stats: Stats, units: int) -> dict[str, Array]:
  """Means over examples that drew `units` units each.

  Returns:
    `acceptance`, the chance that a draft is accepted when it is its turn;
    `units_per_forward`; `forwards` of one example, and `forwards_saved`, the
    share of the forwards that one unit a forward would take.
  """
  forwards = jnp.mean(stats.forwards.astype(jnp.float32))
  return {
    "acceptance": jnp.sum(stats.chance) / jnp.maximum(jnp.sum(stats.trials), 1),
    "forwards": forwards,
    "units_per_forward": units / forwards,
    "forwards_saved": 1 - forwards / units,
  }


def _check(draft: Draft, mode: str) -> None:
  if draft.parents is not None and mode == "exact":
    raise UserError(
      "mode='exact' verifies chains: for a tree of drafts take 'point' or "
      "'gumbel', which are exact too"
    )
  if draft.logp is not None and mode == "point":
    raise UserError(
      "mode='point' is exact for chosen drafts only; these were drawn: take "
      "'exact' or 'gumbel'"
    )
