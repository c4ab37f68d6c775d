"""The mathematics of rows [..., V] that every form of spec_verify shares.

V is a multiple of 128 here: rows are padded with logit -inf. Reductions keep
the last axis. Every float sum goes through `total`, whose order of additions
is fixed, and sums of more terms are never smaller; so two programs that call
these functions on the same rows agree to the last bit, and a threshold can be
bisected on a sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.spec_verify import threefry
from pallas_kernels.spec_verify.rules import Cluster, Law, Neighbours, Rule

Array = jax.Array
LANES = 128
STRIP = 8 * LANES
_INF = float("inf")


def total(x: Array) -> Array:
  """Sum over the last axis in a fixed order.

  Strips are added one after the other, then halves to halves; a row that
  ends before is as one that goes on with zeros.
  """
  first = x[..., :STRIP]
  for start in range(STRIP, x.shape[-1], STRIP):
    first = _onto(first, x[..., start : start + STRIP])
  x, half = first, STRIP // 2
  while half:
    if x.shape[-1] > half:
      x = _onto(x[..., :half], x[..., half:])
    half //= 2
  return x


def _onto(x: Array, y: Array) -> Array:
  """x + y, where y may be shorter than x."""
  size = y.shape[-1]
  if size == x.shape[-1]:
    return x + y
  return jnp.concatenate([x[..., :size] + y, x[..., size:]], -1)


def count(mask: Array) -> Array:
  """How many, f32[..., 1]; exact in any order."""
  return jnp.sum(jnp.where(mask, 1.0, 0.0), -1, keepdims=True)


def places(x: Array) -> Array:
  return jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)


def pick_at(x: Array, place: Array) -> Array:
  """x[..., place] as a sum with one term that is not zero."""
  return jnp.sum(jnp.where(places(x) == place, x, 0), -1, keepdims=True)


def first_max(x: Array) -> Array:
  best = jnp.max(x, -1, keepdims=True)
  index = jnp.where(x == best, places(x), x.shape[-1]).astype(jnp.float32)
  return jnp.min(index, -1, keepdims=True).astype(jnp.int32)


def bisect(bits: int, like: Array, holds: Callable[[Array], Array]) -> Array:
  """The largest i32 below 2^bits at which the monotone `holds` is true.

  `holds` maps i32[..., 1] to bool[..., 1] and is true of 0. With 32 bits the
  number is meant as unsigned.
  """

  def try_bit(i, least):
    higher = least | jax.lax.shift_left(jnp.int32(1), bits - 1 - i)
    return jnp.where(holds(higher), higher, least)

  return jax.lax.fori_loop(0, bits, try_bit, jnp.zeros_like(like))


def order(x: Array) -> Array:
  """i32 in the order of the floats x; both zeros are one."""
  bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.int32)
  return bits ^ ((bits >> 31) & 0x7FFFFFFF)


_SIGN = -(2**31)


def above(x: Array, holds: Callable[[Array], Array]) -> Array:
  """Keeps x >= t with the largest t at which `holds(x >= t)`; else -inf.

  The largest x is always kept.
  """
  value = order(x)
  top = jnp.max(x, -1, keepdims=True)
  least = bisect(32, order(top), lambda t: holds(value >= (t ^ _SIGN)))
  return jnp.where((value >= (least ^ _SIGN)) | (x == top), x, -_INF)


def guided(cond: Array, null: Array, scale: Array) -> Array:
  """null + scale (cond - null). What is -inf in either is -inf, but at scale 1
  null does not count, and at 0 cond does not."""
  # Mosaic GPU selects by vectors only, not by one condition for a vector.
  scale = jnp.broadcast_to(scale, cond.shape)
  mixed = scale * cond + (1.0 - scale) * null
  mixed = jnp.where((cond == -_INF) | (null == -_INF), -_INF, mixed)
  mixed = jnp.where(scale == 0.0, null, mixed)
  return jnp.where(scale == 1.0, cond, mixed)


# Below it a quotient may overflow: the largest logit is moved to 0 first.
COLD = 2.0**-20


def warmth(temperature: float) -> np.float32:
  """What logits below 0 are multiplied by where it is so cold."""
  return np.float32(min(1 / temperature, 2.0**100))


def filtered(logits: Array, law: Law, vocab: int) -> Array:
  """Logits after the filters, -inf where dropped and beyond the vocabulary."""
  logits = jnp.where(places(logits) < vocab, logits, -_INF)
  if law.temperature == 0:
    return jnp.where(places(logits) == first_max(logits), 0.0, -_INF)
  if law.temperature >= COLD:
    logits = logits / law.temperature
  else:
    logits = logits - jnp.max(logits, -1, keepdims=True)
    logits = logits * warmth(law.temperature)
  if 0 < law.top_k < vocab:
    logits = above(logits, lambda kept: count(kept) >= law.top_k)
  if law.top_p < 1:
    _, weights, scale = softmax(logits)
    probs = weights / scale
    tail = lambda kept: total(jnp.where(kept, 0.0, probs))
    logits = above(logits, lambda kept: tail(kept) <= 1 - law.top_p)
  if law.min_p > 0:
    least = jnp.max(logits, -1, keepdims=True) + np.log(np.float32(law.min_p))
    logits = jnp.where(logits >= least, logits, -_INF)
  return logits


def softmax(x: Array) -> tuple[Array, Array, Array]:
  """(the largest x, exp(x - largest), and the sum of that)."""
  top = jnp.max(x, -1, keepdims=True)
  weights = jnp.exp(x - top)
  return top, weights, total(weights)


class Row(NamedTuple):
  """The target's law: filtered logits less their maximum, probabilities, and
  the log of the scale that makes one of the other."""

  logits: Array
  probs: Array
  lse: Array

  def logp(self, token: Array) -> Array:
    return pick_at(self.logits, token) - self.lse


def target(logits: Array, law: Law, vocab: int) -> Row:
  x = filtered(logits, law, vocab)
  top, weights, scale = softmax(x)
  return Row(x - top, weights / scale, jnp.log(scale))


def inverse(weights: Array, uniform: Array) -> Array:
  """The first index at which the running sum exceeds uniform * total.

  At most the last index of positive weight, whatever the rounding.
  """
  index = places(weights)
  goal = uniform * total(weights)
  below = lambda t: total(jnp.where(index < t, weights, 0.0)) <= goal
  bits = (weights.shape[-1] - 1).bit_length()
  found = bisect(bits, first_max(weights), below)
  last = jnp.max(
    jnp.where(weights > 0, index, 0).astype(jnp.float32), -1, keepdims=True
  )
  return jnp.minimum(found, last.astype(jnp.int32))


def gumbel_draw(row: Row, key0: Array, key1: Array) -> Array:
  logp = row.logits - row.lse
  return first_max(logp + threefry.gumbel(key0, key1, places(logp)))


class Trial(NamedTuple):
  """One draft against its row: log of the ratio, and what is left of p."""

  ratio: Array
  residual: Array


def trial(
  row: Row,
  draft: Array,
  draft_logp: Array | None,
  rule: Rule,
  table: Array | None,
  radius: Array | None,
) -> Trial:
  """Holds a draft against the target's law under a rule.

  Args:
    row: the law.
    draft: i32[..., 1].
    draft_logp: f32[..., V], or None for a point mass.
    rule: None for the exact one.
    table: for `Neighbours` and `Cluster` the row of the draft, i32[..., V];
      for `Groups` the groups, i32[1 | ..., V].
    radius: i32[..., 1], that of the draft, for `Cluster`.

  Returns:
    The log of the acceptance ratio [..., 1] and the weights of the residual
    [..., V]; where those sum to nothing they are p.
  """
  p, index = row.probs, places(row.probs)
  mine = index == draft
  q = mine.astype(jnp.float32) if draft_logp is None else jnp.exp(draft_logp)
  ratio = row.logp(draft)
  if draft_logp is not None:
    ratio = ratio - pick_at(draft_logp, draft)
  residual = jnp.where(mine, 0.0, p) if draft_logp is None else p - q
  if isinstance(rule, Neighbours):
    used, mass = _neighbourhood(p, draft, rule, table)
    log_q = 0.0 if draft_logp is None else pick_at(draft_logp, draft)
    relaxed = jnp.log(pick_at(p, draft) + mass) - log_q
    ratio = jnp.where(mass > 0, relaxed, ratio)
    near = (table > 0) & (table <= used)
    if rule.residual == "official":
      near = (table > 0) & (table <= rule.k + 1) & (used > 0)
      if draft_logp is not None:
        residual, near = jnp.where(near, p, residual), jnp.zeros_like(near)
    residual = jnp.where(near, 0.0, residual)
  elif isinstance(rule, Cluster):
    inside = _cluster(row, draft, rule, table, radius)
    ratio = _grouped(p, q, inside, ratio)
  elif rule is not None:
    table = jnp.broadcast_to(table, p.shape)
    inside = table == pick_int(table, draft)
    ratio = _grouped(p, q, inside, ratio)
    if rule.residual == "group" and draft_logp is None:
      residual = jnp.where(inside, 0.0, p)
  residual = jnp.maximum(residual, 0.0)
  empty = total(residual) == 0
  return Trial(ratio, jnp.where(empty, p, residual))


def _neighbourhood(
  p: Array, draft: Array, rule: Neighbours, table: Array
) -> tuple[Array, Array]:
  """(how many neighbours count, their mass), both [..., 1]."""
  mass = lambda m: total(jnp.where((table > 0) & (table <= m), p, 0.0))
  if rule.factor is not None:
    budget = (rule.factor - 1) * pick_at(p, draft)
  else:
    budget = jnp.full_like(pick_at(p, draft), rule.delta)
  inside = lambda m: (m <= rule.k) & (mass(m) <= budget)
  used = bisect(rule.k.bit_length(), draft, inside)
  # A budget of nothing is off, also where neighbours have no mass.
  used = jnp.where(budget > 0, used, 0)
  return used, mass(used)


def _cluster(
  row: Row,
  draft: Array,
  rule: Cluster,
  table: Array | None,
  radius: Array | None,
) -> Array:
  """Which tokens are in the cluster of the draft, bool[..., V]."""
  p, index = row.probs, places(row.probs)
  value, place = order(row.logits), index
  mine = index == draft
  at = pick_int(value, draft)
  before = (value < at) | ((value == at) & (index < draft))
  after = (value > at) | ((value == at) & (index > draft))
  inside = _closest(value, place, before, rule.size // 2)
  # The mirror image: values and places in the opposite order.
  last = index.shape[-1] - 1
  inside |= _closest(
    ~value, last - place, after, rule.size - 1 - rule.size // 2
  )
  inside &= (p > 0) & (jnp.abs(p - pick_at(p, draft)) < rule.delta_p)
  if table is not None:
    inside &= table <= radius
  return inside | mine


def pick_int(value: Array, place: Array) -> Array:
  """x[..., place] of i32, as two exact float sums of 16 bits."""
  mine = places(value) == place
  half = lambda x: jnp.sum(
    jnp.where(mine, x, 0).astype(jnp.float32), -1, keepdims=True
  ).astype(jnp.int32)
  return (half(value >> 16) << 16) | half(value & 0xFFFF)


def _closest(value: Array, place: Array, among: Array, n: int) -> Array:
  """The n largest of `among` by (value, place), all of them if fewer."""
  if n == 0:
    return jnp.zeros_like(among)
  like = pick_int(value, jnp.zeros_like(value[..., :1]))
  enough = lambda t: count(among & (value >= (t ^ _SIGN))) >= n
  least = bisect(32, like, enough) ^ _SIGN
  beyond = among & (value > least)
  rest = n - count(beyond)
  tied = among & (value == least)
  bits = (place.shape[-1] - 1).bit_length()
  start = bisect(bits, like, lambda t: count(tied & (place >= t)) >= rest)
  return beyond | (tied & (place >= start))


def _grouped(p: Array, q: Array, inside: Array, ratio: Array) -> Array:
  """Log of the ratio of sums; the ratio of the draft where it is alone."""
  mass = lambda x: total(jnp.where(inside, x, 0.0))
  return jnp.where(
    count(inside) > 1, jnp.log(mass(p)) - jnp.log(mass(q)), ratio
  )
