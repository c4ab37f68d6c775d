"""Filling hidden places a few at a time, those first of which a law is surest
(MaskGIT, arXiv 2202.04200; SDAR, arXiv 2510.06303).

A forward says a law of every hidden place; a unit is drawn at each, and some
of them are committed. Which ones is said here:

  static      as many as the schedule says, the surest
  threshold   all that are surer than a threshold, but no fewer than that
  sequential  as many, from the left
  entropy     those of the least entropy, while its sum stays below a bound
  gumbel      as many, the surest with noise that falls from step to step

The confidence of a place is the probability of the unit that was drawn there,
after temperature and before filters, as in the official evaluation; the
official script takes it behind the filters ("filtered"), where the best of one
is always certain.

Shapes: B examples, N places of a block, S steps, V vocabulary.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import pick
from ar_jax.core.errors import UserError, check_choice

Array = jax.Array
STRATEGIES = ("static", "threshold", "sequential", "entropy", "gumbel")
CONFIDENCES = ("plain", "filtered")


def even(size: int, steps: int) -> tuple[int, ...]:
  """Places that each of S steps commits: as many each, the first steps one
  more where they do not divide."""
  least, more = divmod(size, steps)
  return tuple(least + (s < more) for s in range(steps))


def cosine(size: int, steps: int) -> tuple[int, ...]:
  """The same by a cosine: after step s = 1 .. S, floor(N cos(pi s / 2 S))
  places are hidden, but every step commits one at least, and leaves one to the
  next, until none is left."""
  left, found = size, []
  for s in range(1, steps + 1):
    stay = np.floor(size * np.cos(np.pi / 2 * s / steps) + 1e-9)
    stay = 0 if s == steps else int(np.clip(stay, 1, max(1, left - 1)))
    found.append(left - stay)
    left = stay
  return tuple(found)


SCHEDULES = {"even": even, "cosine": cosine}


@dataclasses.dataclass(frozen=True)
class Fill:
  """How blocks are filled; hashable.

  Attributes:
    strategy: one of STRATEGIES.
    steps: S, the most steps of a block; None for one for each place.
    threshold: of "threshold".
    bound: of "entropy", in nats.
    noise: of "gumbel", at the first step; it falls linearly to 0 at the last.
    confidence: one of CONFIDENCES.
    schedule: of how many places a step commits, a key of SCHEDULES.

  Raises:
    UserError: there is no such thing, or a number is out of range.
  """

  strategy: str = "static"
  steps: int | None = None
  threshold: float = 0.9
  bound: float = 0.35
  noise: float = 4.5
  confidence: str = "plain"
  schedule: str = "even"

  def __post_init__(self):
    for name, known in (
      ("strategy", STRATEGIES),
      ("confidence", CONFIDENCES),
      ("schedule", tuple(SCHEDULES)),
    ):
      check_choice(name, getattr(self, name), known)
    if self.steps is not None and self.steps < 1:
      raise UserError(f"steps={self.steps}: a block takes at least one step")
    if self.threshold < 0 or self.bound < 0 or self.noise < 0:
      raise UserError(
        f"threshold={self.threshold}, bound={self.bound}, noise={self.noise}: "
        "must be at least 0"
      )

  def quotas(self, size: int) -> tuple[int, ...]:
    """Places of N that each step is to commit."""
    return SCHEDULES[self.schedule](size, self.steps or size)

  def propose(
    self, logits: Array, keys: Array, **law: float
  ) -> tuple[Array, Array, Array]:
    """A unit for every place, and how sure it is.

    Args:
      logits: f32[B, N, V], guided and biased.
      keys: Key[B].
      **law: see `pick.law`.

    Returns:
      Units i32[B, N]; the confidence in each f32[B, N]; the entropy of each
      law f32[B, N], in nats. A temperature of 0 counts as 1 for the last two.
    """
    filtered = pick.law(logits, **law)
    units = pick.draw(filtered, keys)
    plain = pick.law(logits, temperature=law.get("temperature", 1.0) or 1.0)
    logp = plain if self.confidence == "plain" else filtered
    sure = jnp.take_along_axis(logp, units[..., None], -1)[..., 0]
    safe = jnp.where(plain > -jnp.inf, plain, 0.0)
    entropy = -jnp.sum(jnp.exp(plain) * safe, -1)
    return units, jnp.exp(sure), entropy

  def commit(
    self,
    sure: Array,
    entropy: Array,
    hide: Array,
    step: Array | int,
    keys: Array | None = None,
  ) -> Array:
    """Which places are committed, bool[B, N], hidden ones alone. At least one
    is, as long as one is hidden.

    Args:
      sure, entropy: of `propose`.
      hide: bool[B, N], the places that are hidden.
      step: i32[] or i32[B], of the block.
      keys: Key[B], for "gumbel".
    """
    size = hide.shape[1]
    quotas = self.quotas(size)
    at = jnp.minimum(jnp.asarray(step), len(quotas) - 1)
    count = jnp.maximum(jnp.asarray(quotas)[at], 1)
    if self.strategy == "sequential":
      return first(hide, count)
    if self.strategy == "entropy":
      order, rank = ranked(jnp.where(hide, entropy, jnp.inf))
      total = jnp.cumsum(jnp.take_along_axis(entropy, order, 1), 1)
      total = jnp.take_along_axis(total, rank, 1)
      return hide & ((total < self.bound) | (rank == 0))
    if self.strategy == "gumbel":
      draw = lambda key: jax.random.gumbel(key, (size,))
      share = 1 - (jnp.reshape(at, (-1, 1)) + 1) / len(quotas)
      sure = jnp.log(sure) + self.noise * share * jax.vmap(draw)(keys)
    best = surest(sure, hide, count)
    if self.strategy != "threshold":
      return best
    high = hide & (sure > self.threshold)
    enough = jnp.sum(high, 1) >= jnp.minimum(count, jnp.sum(hide, 1))
    return jnp.where(enough[:, None], high, best)


def ranked(score: Array) -> tuple[Array, Array]:
  """The order of scores f32[B, N], the least first, and the rank of each; of
  equal ones the left one comes first."""
  order = jnp.argsort(score, axis=1, stable=True)
  return order, jnp.argsort(order, axis=1)


def surest(sure: Array, hide: Array, count: Array | int) -> Array:
  """bool[B, N]: so many of the hidden places, those of the highest confidence
  f32[B, N]; all, if there are no more.

  Args:
    sure: the confidence.
    hide: bool[B, N].
    count: int, i32[] or i32[B].
  """
  _, rank = ranked(jnp.where(hide, -sure, jnp.inf))
  return hide & (rank < jnp.reshape(count, (-1, 1)))


def first(hide: Array, count: Array | int) -> Array:
  """bool[B, N]: so many of the hidden places, from the left."""
  before = jnp.cumsum(hide, axis=1) - hide
  return hide & (before < jnp.reshape(count, (-1, 1)))
