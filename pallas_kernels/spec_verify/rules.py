"""What a verification is asked for, and what it answers.

Shapes: B sequences, K drafted tokens, S = K + 1 rows of the target, V tokens.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
MODES = ("exact", "point", "gumbel")


@dataclasses.dataclass(frozen=True)
class Neighbours:
  """LANTERN (arXiv 2410.03355): the mass of near codes counts for a draft.

  N_1, N_2, ... are the tokens nearest to the draft x, nearest first, and S_m
  the sum of p over the first m. x is accepted with p(x) + S_m in the place of
  p(x), m being the largest of 0..k with S_m <= delta, or, where `factor` is
  given, with S_m <= (factor - 1) p(x) (LANTERN++, arXiv 2502.06352). Needs
  `table` i32[V, V]: table[x, v] is 0 at v = x and j at v = N_j.

  Attributes:
    k: the most neighbours that count.
    delta: the budget; for point-mass drafts the law that is drawn from is
      within this total variation of p. 0 is off.
    factor: lambda of LANTERN++; None for LANTERN.
    residual: "budget" empties the m neighbours on rejection, which keeps the
      bound; "official" does what the published code does: the nearest k + 1
      if m > 0 (of p for point masses, else of q).
  """

  k: int
  delta: float = 0.0
  factor: float | None = None
  residual: str = "budget"

  def __post_init__(self):
    if self.k < 0 or not 0 <= self.delta <= 1:
      raise ValueError(f"{self}: k must be at least 0, delta in [0, 1]")
    if self.factor is not None and not self.factor >= 1:
      raise ValueError(f"{self}: factor must be at least 1")
    if self.residual not in ("budget", "official"):
      raise ValueError(f"{self}: residual is 'budget' or 'official'")


@dataclasses.dataclass(frozen=True)
class Cluster:
  """GSD (arXiv 2508.07747): tokens that p finds about as likely as the draft.

  In the order of ascending (p, index), the cluster C of draft x has size // 2
  tokens before x and the rest after it (fewer at the ends), less those with
  p = 0, those with |p(v) - p(x)| >= delta_p, and, where a table as for
  `Neighbours` is given, those with table[x, v] > radius[x]. x is accepted
  with the ratio of the sums of p and q over C; the residual is that of x.

  Attributes:
    size: G, x included; 1 is exact verification.
    delta_p: the largest difference of probabilities.
  """

  size: int
  delta_p: float = 0.15

  def __post_init__(self):
    if self.size < 1 or not self.delta_p >= 0:
      raise ValueError(f"{self}: size must be at least 1, delta_p at least 0")


@dataclasses.dataclass(frozen=True)
class Groups:
  """GSD over a fixed partition; needs `table` i32[V], the group of a token.

  Attributes:
    residual: "token" draws from max(0, p - q) as the published code does;
      "group" from p(v) max(0, 1 - Q_C / P_C), C the group of v, which makes
      the law of the group exactly p's.
  """

  residual: str = "group"

  def __post_init__(self):
    if self.residual not in ("token", "group"):
      raise ValueError(f"{self}: residual is 'token' or 'group'")


Rule = Neighbours | Cluster | Groups | None


@dataclasses.dataclass(frozen=True)
class Law:
  """The filters between logits and law: the same as a sampler's.

  In this order: temperature (0 is greedy), top_k (0 is off; equal logits
  share one fate), top_p (1.0 is off), min_p (0 is off).
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0

  def __post_init__(self):
    if not (self.temperature >= 0 and self.top_k >= 0):
      raise ValueError(f"{self}: temperature and top_k must be at least 0")
    if not (0 < self.top_p <= 1 and 0 <= self.min_p <= 1):
      raise ValueError(f"{self}: top_p must be in (0, 1], min_p in [0, 1]")


class Verdict(NamedTuple):
  """What a verification answers.

  Attributes:
    accepted: i32[B], how many drafts are accepted, 0..K.
    token: i32[B], the token that follows them, always emitted.
    row: i32[B], the row of the target that drew `token`: 0, or 1 + the index
      of the last accepted draft. Equal to `accepted` for a chain.
    logp: f32[B], the target's log-probability of `token`.
    chance: f32[B, K], with what probability each draft up to the first
      rejected one was accepted (in the modes "point" and "gumbel" the
      target's probability of the draft), 0 after it. None for a tree.
  """

  accepted: Array
  token: Array
  row: Array
  logp: Array
  chance: Array | None


class Request(NamedTuple):
  """Arguments of a verification after `check`; None where not given."""

  logits: Array
  drafts: Array
  noise: Array
  draft_logp: Array | None
  valid: Array
  parents: Array | None
  guidance: Array
  table: Array | None
  radius: Array | None


def check(
  logits, drafts, noise, draft_logp, valid, parents, guidance, table, radius,
  *, mode: str, rule: Rule, law: Law,
) -> Request:  # fmt: skip
  """Fills in defaults and holds shapes against each other.

  Raises:
    ValueError: in one line, what does not fit.
  """
  if mode not in MODES:
    raise ValueError(f"mode={mode!r}: choose one of {MODES}")
  if logits.ndim != 4 or logits.shape[1] not in (1, 2):
    raise ValueError(
      f"logits have shape {logits.shape}; wanted [B, 1 or 2, K + 1, V]"
    )
  batch, _, rows, vocab = logits.shape
  k = rows - 1
  if law.top_k > vocab:
    raise ValueError(f"top_k={law.top_k}: there are only {vocab} tokens")
  wanted = {"drafts": (batch, k), "noise": (batch, rows)}
  given = {"drafts": drafts, "noise": noise}
  if mode == "gumbel":
    wanted["noise"] += (2,)
    if noise.dtype != jnp.uint32:
      raise ValueError(f"noise is {noise.dtype}; gumbel needs uint32 key data")
  if draft_logp is not None and draft_logp.shape[1:2] == (rows,):
    wanted["draft_logp"], given["draft_logp"] = (batch, rows, vocab), draft_logp
  elif draft_logp is not None:
    wanted["draft_logp"], given["draft_logp"] = (batch, k, vocab), draft_logp
  for name, array, shape in (
    ("valid", valid, (batch,)),
    ("parents", parents, (batch, k)),
    ("table", table, (vocab,) if isinstance(rule, Groups) else (vocab, vocab)),
    ("radius", radius, (vocab,)),
  ):
    if array is not None:
      wanted[name], given[name] = shape, array
  for name, array in given.items():
    if array.shape != wanted[name]:
      raise ValueError(
        f"{name} has shape {array.shape}; wanted {wanted[name]} beside "
        f"logits {logits.shape}"
      )
  if mode != "exact" and (rule is not None or draft_logp is not None):
    raise ValueError(f"mode={mode!r} takes neither a rule nor draft_logp")
  if mode == "exact" and parents is not None:
    raise ValueError("a tree needs mode 'point' or 'gumbel'")
  if table is None and isinstance(rule, (Neighbours, Groups)):
    raise ValueError(f"{rule} needs a table")
  if isinstance(rule, Cluster) and (table is None) != (radius is None):
    raise ValueError("a Cluster takes table and radius together")
  if logits.shape[1] == 1 and not (
    isinstance(guidance, (int, float)) and guidance == 1
  ):
    raise ValueError("guidance needs logits [B, 2, K + 1, V]: cond and null")
  if valid is None:
    valid = jnp.full((batch,), k, jnp.int32)
  valid = jnp.minimum(valid, k)
  guidance = jnp.broadcast_to(jnp.asarray(guidance, jnp.float32), (batch,))
  return Request(
    logits, drafts, noise, draft_logp, valid, parents, guidance, table, radius
  )


def refusal(rule: Rule, draft_logp: Array | None) -> str | None:
  """Why no kernel can serve a rule; None if they can."""
  if draft_logp is not None and rule == Groups("group"):
    return (
      "spec_verify: the residual of Groups('group') needs a sum per group, "
      "which kernels have only for point masses; use the xla form or "
      "Groups('token')"
    )


def with_a_draft(given: Request, mode: str) -> Request:
  """A request without drafts as one with a draft that is not live: a kernel
  has a row for each draft and one behind them."""
  batch, _, _, vocab = given.logits.shape
  rows = lambda x, axis: jnp.concatenate([x, x], axis)
  log_q = given.draft_logp
  if log_q is not None:
    log_q = jnp.zeros((batch, 1, vocab), log_q.dtype)
  none = jnp.zeros((batch, 1), jnp.int32)
  return given._replace(
    logits=rows(given.logits, 2),
    drafts=none,
    noise=rows(given.noise, 1),  # the first number is not used in "exact"
    draft_logp=log_q,
    valid=jnp.zeros_like(given.valid),
    parents=None if given.parents is None else none,
  )
