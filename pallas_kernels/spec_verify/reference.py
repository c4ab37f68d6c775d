"""Verification of drafts, dense: the law that every kernel is held to.

Drafts are tokens that something cheap proposes; one forward of the target
scores all of them. This computes how many stand and which token follows, so
that what is emitted follows the target's law. Exact chain: Leviathan et al.
(arXiv 2211.17192) and Chen et al. (arXiv 2302.01318).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from pallas_kernels.spec_verify import row as rows_of
from pallas_kernels.spec_verify import rules

Array = jax.Array


def verify(
  logits: Array,
  drafts: Array,
  noise: Array,
  *,
  mode: str = "exact",
  draft_logp: Array | None = None,
  valid: Array | None = None,
  parents: Array | None = None,
  guidance: Array | float = 1.0,
  law: rules.Law = rules.Law(),  # noqa: B008
  rule: rules.Rule = None,
  table: Array | None = None,
  radius: Array | None = None,
) -> rules.Verdict:
  """Accepts a prefix (or a path) of drafts and draws the token after it.

  Row k of the target is its law p_k after the first k drafts; in a tree, row
  j + 1 is its law after draft j, and row 0 that of the root. The modes:

  - "exact": draft x_k, drawn from q_k, stands if u_k < p_k(x_k) / q_k(x_k);
    the token after the first that falls is drawn from max(0, p - q), after
    all of them from p. Without `draft_logp`, q_k is all at x_k.
  - "point": y ~ p is drawn at every row; a draft stands if it is the y of its
    row. The law of "exact" for point masses with one random number a row.
  - "gumbel": the same, y = argmax(log p + g); y is what a sampler draws from
    the same keys. With drafts made from the same keys: Gumbel coupling.

  Args:
    logits: [B, c, K + 1, V] of the target; c = 1, or 2: with and without the
      condition. bfloat16 or float32; all computation is in float32.
    drafts: i32[B, K].
    noise: "exact": uniform f32[B, K + 1]: u_k, and last the number that
      draws the token. "point": uniform f32[B, K + 1], one a row. "gumbel":
      u32[B, K + 1, 2], data of a threefry key a row.
    mode: see above.
    draft_logp: f32[B, K | K + 1, V], the law each draft was drawn from, as
      the drafter's sampler left it; a row K is not read. "exact" only.
    valid: i32[B], how many drafts are live; K if None.
    parents: i32[B, K], the row of each draft's parent, at most its index;
      k (a chain) if None. "point" and "gumbel" only.
    guidance: scale of null + scale (cond - null), f32[] or f32[B]; 1.0 is off.
    law: the filters, the same for every row.
    rule: None is exact; else a relaxed rule of `rules`; "exact" only.
    table: what the rule asks for.
    radius: i32[V], what a `Cluster` asks for.

  Returns:
    A `Verdict`.

  Raises:
    ValueError: shapes or settings do not fit.
  """
  given = rules.check(
    logits, drafts, noise, draft_logp, valid, parents, guidance, table, radius,
    mode=mode, rule=rule, law=law,
  )  # fmt: skip
  if not drafts.shape[1]:
    given = rules.with_a_draft(given, mode)
  verdict = _judged(given, mode, law, rule)
  if verdict.chance is None:
    return verdict
  return verdict._replace(chance=verdict.chance[:, : drafts.shape[1]])


def _judged(
  given: rules.Request, mode: str, law: rules.Law, rule: rules.Rule
) -> rules.Verdict:
  vocab = given.logits.shape[-1]
  target = rows_of.target(_mixed(given.logits, given.guidance), law, vocab)
  if mode == "exact":
    return _by_trial(target, given, rule)
  if mode == "gumbel":
    keys = jax.lax.bitcast_convert_type(given.noise, jnp.int32)
    token = rows_of.gumbel_draw(target, keys[..., :1], keys[..., 1:])
  else:
    token = rows_of.inverse(target.probs, given.noise[..., None])
  return _by_walk(target, given, token[..., 0])


def _padded(x: Array, fill: float = 0.0) -> Array:
  """Whole lanes on the last axis."""
  pad = -x.shape[-1] % rows_of.LANES
  return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, pad)], constant_values=fill)


def _mixed(logits: Array, guidance: Array) -> Array:
  """f32[B, K + 1, V] of the guided logits."""
  logits = _padded(logits.astype(jnp.float32))
  if logits.shape[1] == 1:
    return logits[:, 0]
  scale = guidance[:, None, None]
  return rows_of.guided(logits[:, 0], logits[:, 1], scale)


def _by_trial(
  target: rows_of.Row, given: rules.Request, rule: rules.Rule
) -> rules.Verdict:
  k = given.drafts.shape[1]
  drafts = given.drafts[..., None]
  table, radius, log_q = given.table, given.radius, given.draft_logp
  if log_q is not None:
    log_q = _padded(log_q[:, :k].astype(jnp.float32), -jnp.inf)
  if table is not None:
    # The lanes beyond the vocabulary are in no group and nobody's neighbour.
    table = jnp.pad(
      table[None, None] if table.ndim == 1 else table[given.drafts],
      ((0, 0), (0, 0), (0, -given.table.shape[-1] % rows_of.LANES)),
      constant_values=-1,
    )
  if radius is not None:
    radius = radius[given.drafts][..., None]
  head = rows_of.Row(*(x[:, :k] for x in target))
  trial = rows_of.trial(head, drafts, log_q, rule, table, radius)
  residual = trial.residual
  if isinstance(rule, rules.Groups) and rule.residual == "group":
    if log_q is not None:
      residual = _group_residual(head.probs, jnp.exp(log_q), given.table)
  index = jnp.arange(k, dtype=jnp.int32)[None]
  stands = jnp.log(given.noise[:, :k]) < trial.ratio[..., 0]
  stands &= index < given.valid[:, None]
  accepted = jnp.sum(jnp.cumprod(stands, 1, dtype=jnp.int32), 1)
  # Where all live drafts stand, the token is drawn from p itself.
  weights = jnp.where(
    (index < given.valid[:, None])[..., None], residual, head.probs
  )
  weights = jnp.concatenate([weights, target.probs[:, k:]], 1)
  here = lambda x: jnp.take_along_axis(x, accepted[:, None, None], 1)[:, 0]
  token = rows_of.inverse(here(weights), given.noise[:, k:])
  reached = index <= accepted[:, None]
  reached &= index < given.valid[:, None]
  chance = jnp.exp(jnp.minimum(trial.ratio[..., 0], 0.0))
  return rules.Verdict(
    accepted,
    token[:, 0],
    accepted,
    (rows_of.pick_at(here(target.logits), token) - here(target.lse))[:, 0],
    jnp.where(reached, chance, 0.0),
  )


def _group_residual(p: Array, q: Array, groups: Array) -> Array:
  """p(v) max(0, 1 - Q_C / P_C), or p where that is nothing; [B, K, V]."""
  vocab = groups.shape[0]

  def left(p, q):
    sums = lambda x: jax.ops.segment_sum(x[:vocab], groups, vocab)
    whole, theirs = sums(p), sums(q)
    share = jnp.maximum(whole - theirs, 0) / jnp.where(whole > 0, whole, 1)
    return p.at[:vocab].multiply(share[groups])

  residual = jax.vmap(jax.vmap(left))(p, q)
  return jnp.where(rows_of.total(residual) == 0, p, residual)


def _by_walk(
  target: rows_of.Row, given: rules.Request, token: Array
) -> rules.Verdict:
  """From the root to the child that was drawn, until none was."""
  batch, k = given.drafts.shape
  chain = given.parents is None
  index = jnp.arange(k, dtype=jnp.int32)[None]
  parents = jnp.broadcast_to(index, (batch, k)) if chain else given.parents
  live = index < given.valid[:, None]

  def step(state, _):
    row, depth = state
    drawn = jnp.take_along_axis(token, row[:, None], 1)
    child = live & (parents == row[:, None]) & (given.drafts == drawn)
    found = child.any(1)
    # The first of equal children: argmax finds the first True.
    row = jnp.where(found, 1 + jnp.argmax(child, 1).astype(jnp.int32), row)
    return (row, depth + found), None

  start = jnp.zeros(batch, jnp.int32)
  (row, accepted), _ = jax.lax.scan(step, (start, start), None, length=k)
  here = lambda x: jnp.take_along_axis(x, row[:, None, None], 1)[:, 0]
  last = jnp.take_along_axis(token, row[:, None], 1)
  chance = None
  if chain:
    head = rows_of.Row(*(x[:, :k] for x in target))
    chance = jnp.exp(head.logp(given.drafts[..., None])[..., 0])
    chance = jnp.where(live & (index <= accepted[:, None]), chance, 0.0)
  logp = rows_of.pick_at(here(target.logits), last) - here(target.lse)
  return rules.Verdict(accepted, last[:, 0], row, logp[:, 0], chance)
