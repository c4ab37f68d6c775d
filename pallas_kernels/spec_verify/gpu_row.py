"""The mathematics of `row` on one row that lies in the memory of a GPU.

A row does not fit in the registers of a warpgroup, so what `row` says of an
array is said here of a function of a strip, and every sum, count and maximum
is one walk over the strips. `Sweep.total` adds in the order of `row.total`,
so the numbers are the same to the bit. Single numbers are scalars here, where
`row` has a last axis of one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels import mosaic_gpu
from pallas_kernels.spec_verify import row as rows_of
from pallas_kernels.spec_verify import rules, threefry

Array = jax.Array
Ref = Any
_INF, _SIGN = float("inf"), -(2**31)


class Strip(NamedTuple):
  """Some lanes of a row.

  Attributes:
    index: i32[n], which.
    of: reference [lanes] -> its numbers there, [n].
  """

  index: Array
  of: Callable[[Ref], Array]


Values = Callable[[Strip], Array]


@dataclasses.dataclass(frozen=True)
class Sweep:
  """How a row is walked through.

  Attributes:
    lanes: of a row, a multiple of `strip`.
    strip: lanes that are looked at together: `row.STRIP`, fewer if a row is
      shorter.
    sums: scratch f32[3, strip + 128].
    interpret: on a CPU, which has no layouts of registers.
  """

  lanes: int
  strip: int
  sums: Ref
  interpret: bool

  def cast(self, x: Array) -> Array:
    """Lane i to thread i mod 128, one by one."""
    if self.interpret:
      return x
    layout = plgpu.Layout.WG_STRIDED(x.shape, vec_size=1)
    return plgpu.layout_cast(x, layout)

  def load(self, ref: Ref, start: Any, size: int) -> Array:
    part = ref.at[pl.ds(start, size)]
    if self.interpret:
      return part[...]
    layout = plgpu.Layout.WG_STRIDED((size,), vec_size=1)
    return plgpu.load(part, *mosaic_gpu.WHOLE, layout=layout)

  def places(self, size: int) -> Array:
    return self.cast(lax.broadcasted_iota(jnp.int32, (size,), 0))

  def full(self, size: int, value: Any, dtype: Any) -> Array:
    return self.cast(jnp.full((size,), value, dtype))

  def _at(self, i: Any) -> Strip:
    start = i * self.strip
    return Strip(
      self.places(self.strip) + start,
      lambda ref: self.load(ref, start, self.strip),
    )

  def _fold(self, fn: Values, join: Callable, start: Any, dtype: Any) -> Array:
    """What `join` makes of all strips, [strip]."""
    first = self.full(self.strip, start, dtype)
    step = lambda i, found: join(found, fn(self._at(i)))
    return lax.fori_loop(0, self.lanes // self.strip, step, first)

  def write(self, ref: Ref, fn: Values) -> None:
    def step(i, _):
      ref[pl.ds(i * self.strip, self.strip)] = fn(self._at(i))

    lax.fori_loop(0, self.lanes // self.strip, step, None)

  def largest(self, fn: Values, dtype: Any = jnp.float32) -> Array:
    low = -_INF if dtype == jnp.float32 else _SIGN
    return jnp.max(self._fold(fn, jnp.maximum, low, dtype))

  def least(self, fn: Values) -> Array:
    """The least of the integers."""
    return jnp.min(self._fold(fn, jnp.minimum, -_SIGN - 1, jnp.int32))

  def count(self, fn: Values) -> Array:
    ones = lambda s: jnp.where(fn(s), 1, 0)
    return jnp.sum(self._fold(ones, jnp.add, 0, jnp.int32))

  def total(self, fn: Values) -> Array:
    """As `row.total`: strips one after the other, then halves to halves."""
    x = self._fold(fn, jnp.add, 0.0, jnp.float32)
    by_strip, by_lane, rest = (self.sums.at[i] for i in range(3))
    by_strip[pl.ds(0, self.strip)] = x
    size = rows_of.LANES
    parts = range(0, self.strip, size)
    x = _halves([self.load(by_strip, i, size) for i in parts])
    # Of what follows only the first eight lanes are read.
    by_lane[pl.ds(0, size)] = x
    x = _halves([self.load(by_lane, i, size) for i in range(0, size, 8)])
    rest[pl.ds(0, size)] = x
    return _halves([rest[i] for i in range(8)])

  def first_max(self, fn: Values) -> Array:
    best = self.largest(fn)
    beyond = jnp.int32(self.lanes)
    return self.least(lambda s: jnp.where(fn(s) == best, s.index, beyond))


def _halves(x: list[Array]) -> Array:
  """As if there were a power of two of them, the last ones being zero."""
  while len(x) > 1:
    half = 1 << ((len(x) - 1).bit_length() - 1)
    sums = [a + b for a, b in zip(x[:half], x[half:], strict=False)]
    x = sums + x[len(sums) : half]
  return x[0]


class Row(NamedTuple):
  """The target's law where it lies; see `row.Row`."""

  logits: Ref
  probs: Ref
  lse: Array

  def logp(self, token: Array) -> Array:
    return self.logits[token] - self.lse


def target(sweep: Sweep, x: Ref, p: Ref, law: rules.Law, vocab: int) -> Row:
  """As `row.target`: x holds the logits, -inf beyond the vocabulary."""
  _filter(sweep, x, p, law, vocab)
  top = sweep.largest(lambda s: s.of(x))
  sweep.write(x, lambda s: s.of(x) - top)
  scale = sweep.total(lambda s: jnp.exp(s.of(x)))
  sweep.write(p, lambda s: jnp.exp(s.of(x)) / scale)
  return Row(x, p, jnp.log(scale))


def _filter(sweep: Sweep, x: Ref, p: Ref, law: rules.Law, vocab: int) -> None:
  if law.temperature == 0:
    best = sweep.first_max(lambda s: s.of(x))
    sweep.write(x, lambda s: jnp.where(s.index == best, 0.0, -_INF))
    return
  if law.temperature < rows_of.COLD:
    high = sweep.largest(lambda s: s.of(x))
    warmth = rows_of.warmth(law.temperature)
    sweep.write(x, lambda s: (s.of(x) - high) * warmth)
  elif law.temperature != 1:
    sweep.write(x, lambda s: s.of(x) / law.temperature)
  if 0 < law.top_k < vocab:
    _above(sweep, x, lambda kept: sweep.count(kept) >= law.top_k)
  if law.top_p < 1:
    top = sweep.largest(lambda s: s.of(x))
    weight = lambda s: jnp.exp(s.of(x) - top)
    scale = sweep.total(weight)
    sweep.write(p, lambda s: weight(s) / scale)
    tail = lambda kept: sweep.total(lambda s: jnp.where(kept(s), 0.0, s.of(p)))
    _above(sweep, x, lambda kept: tail(kept) <= 1 - law.top_p)
  if law.min_p > 0:
    top = sweep.largest(lambda s: s.of(x))
    least = top + np.log(np.float32(law.min_p))
    sweep.write(x, lambda s: jnp.where(s.of(x) >= least, s.of(x), -_INF))


def _above(sweep: Sweep, x: Ref, holds: Callable[[Values], Array]) -> None:
  value = lambda s: rows_of.order(s.of(x))
  top = sweep.largest(value, jnp.int32)
  reaches = lambda t: lambda s: value(s) >= (t ^ _SIGN)
  least = rows_of.bisect(32, top, lambda t: holds(reaches(t)))
  kept = lambda s: reaches(least)(s) | (value(s) == top)
  sweep.write(x, lambda s: jnp.where(kept(s), s.of(x), -_INF))


def inverse(sweep: Sweep, weights: Ref, bits: int, uniform: Array) -> Array:
  """As `row.inverse`, among fewer than 2^bits lanes."""
  goal = uniform * sweep.total(lambda s: s.of(weights))
  upto = lambda t: lambda s: jnp.where(s.index < t, s.of(weights), 0.0)
  below = lambda t: sweep.total(upto(t)) <= goal
  found = rows_of.bisect(bits, jnp.int32(0), below)
  last = sweep.largest(
    lambda s: jnp.where(s.of(weights) > 0, s.index, 0), jnp.int32
  )
  return jnp.minimum(found, last)


def gumbel_draw(sweep: Sweep, row: Row, key0: Array, key1: Array) -> Array:
  # Noise is dear: it is kept where the probabilities were.
  sweep.write(
    row.probs,
    lambda s: s.of(row.logits) - row.lse + threefry.gumbel(key0, key1, s.index),
  )
  return sweep.first_max(lambda s: s.of(row.probs))


class Trial(NamedTuple):
  """One draft against its row: log of the ratio, and what is left of p."""

  ratio: Array
  residual: Values


def trial(
  sweep: Sweep,
  row: Row,
  draft: Array,
  log_q: Ref | None,
  rule: rules.Rule,
  table: Ref | None,
  radius: Array,
) -> Trial:
  """As `row.trial`, but for what happens where nothing is left."""
  prob = lambda s: s.of(row.probs)
  mine = lambda s: s.index == draft
  if log_q is None:
    q = lambda s: jnp.where(mine(s), 1.0, 0.0)
    log_of_draft = jnp.float32(0.0)
    residual = lambda s: jnp.where(mine(s), 0.0, prob(s))
  else:
    q = lambda s: jnp.exp(s.of(log_q))
    log_of_draft = log_q[draft]
    residual = lambda s: prob(s) - q(s)
  ratio = row.logp(draft) - log_of_draft
  if isinstance(rule, rules.Neighbours):
    used, mass = _neighbourhood(sweep, row, draft, rule, table)
    relaxed = jnp.log(row.probs[draft] + mass) - log_of_draft
    ratio = jnp.where(mass > 0, relaxed, ratio)
    rank, exact = (lambda s: s.of(table)), residual
    if rule.residual == "official":
      near = lambda s: (rank(s) > 0) & (rank(s) <= rule.k + 1) & (used > 0)
      left = (lambda s: 0.0) if log_q is None else prob
      residual = lambda s: jnp.where(near(s), left(s), exact(s))
    else:
      near = lambda s: (rank(s) > 0) & (rank(s) <= used)
      residual = lambda s: jnp.where(near(s), 0.0, exact(s))
  elif isinstance(rule, rules.Cluster):
    inside = _cluster(sweep, row, draft, rule, table, radius)
    ratio = _grouped(sweep, prob, q, inside, ratio)
  elif rule is not None:
    group = table[draft]
    inside = lambda s: s.of(table) == group
    ratio = _grouped(sweep, prob, q, inside, ratio)
    if rule.residual == "group" and log_q is None:
      residual = lambda s: jnp.where(inside(s), 0.0, prob(s))
  return Trial(ratio, lambda s: jnp.maximum(residual(s), 0.0))


def _neighbourhood(sweep, row, draft, rule, table) -> tuple[Array, Array]:
  rank = lambda s: s.of(table)
  near = lambda m: (
    lambda s: jnp.where((rank(s) > 0) & (rank(s) <= m), s.of(row.probs), 0.0)
  )
  budget = jnp.float32(rule.delta)
  if rule.factor is not None:
    budget = (rule.factor - 1) * row.probs[draft]
  inside = lambda m: (m <= rule.k) & (sweep.total(near(m)) <= budget)
  used = rows_of.bisect(rule.k.bit_length(), jnp.int32(0), inside)
  used = jnp.where(budget > 0, used, 0)
  return used, sweep.total(near(used))


def _cluster(sweep, row, draft, rule, table, radius) -> Values:
  value = lambda s: rows_of.order(s.of(row.logits))
  # Found among the vectors: Mosaic GPU does not reinterpret a scalar.
  here = lambda s: jnp.where(s.index == draft, value(s), _SIGN)
  at = sweep.largest(here, jnp.int32)
  own = row.probs[draft]

  def before(s):
    return (value(s) < at) | ((value(s) == at) & (s.index < draft))

  def after(s):
    return (value(s) > at) | ((value(s) == at) & (s.index > draft))

  place = lambda s: s.index
  near = _closest(sweep, value, place, before, rule.size // 2)
  # The mirror image: values and places in the opposite order.
  far = _closest(
    sweep,
    lambda s: ~value(s),
    lambda s: sweep.lanes - 1 - s.index,
    after,
    rule.size - 1 - rule.size // 2,
  )

  def inside(s):
    p = s.of(row.probs)
    found = (near(s) | far(s)) & (p > 0) & (jnp.abs(p - own) < rule.delta_p)
    if table is not None:
      found &= s.of(table) <= radius
    return found | (s.index == draft)

  return inside


def _closest(sweep, value, place, among, n: int) -> Values:
  if n == 0:
    return lambda s: s.index < 0
  zero = jnp.int32(0)
  reach = lambda t: lambda s: among(s) & (value(s) >= (t ^ _SIGN))
  enough = lambda t: sweep.count(reach(t)) >= n
  least = rows_of.bisect(32, zero, enough) ^ _SIGN
  beyond = lambda s: among(s) & (value(s) > least)
  rest = n - sweep.count(beyond)
  tied = lambda s: among(s) & (value(s) == least)
  fills = lambda t: sweep.count(lambda s: tied(s) & (place(s) >= t)) >= rest
  start = rows_of.bisect((sweep.lanes - 1).bit_length(), zero, fills)
  return lambda s: beyond(s) | (tied(s) & (place(s) >= start))


def _grouped(sweep, p: Values, q: Values, inside: Values, ratio) -> Array:
  mass = lambda x: sweep.total(lambda s: jnp.where(inside(s), x(s), 0.0))
  return jnp.where(
    sweep.count(inside) > 1, jnp.log(mass(p)) - jnp.log(mass(q)), ratio
  )
