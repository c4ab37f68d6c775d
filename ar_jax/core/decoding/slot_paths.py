"""Sequences from the laws of T slots that are collapsed, as CTC reads them: the
likeliest by a prefix beam, and the likeliest of a known mass.

A slot says a symbol or a blank, the last of V; repeats are one symbol, and
blanks go.

Shapes: B batch, T slots, V symbols with the blank, K beams, W bins of a mass.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ar_jax.core.domains import peptides

Array = jax.Array
_LOW = -1e30
CLIP = -20.0  # of logarithms, in a search by mass


def prefix_beam(log: Array, beams: int) -> tuple[Array, Array, Array]:
  """The likeliest sequences over all their paths (Hannun 2014, without a
  language model).

  Args:
    log: f32[B, T, V], logarithms of laws.
    beams: K.

  Returns:
    Symbols i32[B, T], -1 behind the end, how many they are, i32[B], and the
    logarithm of their probability, as far as the beam has seen it, f32[B].
  """
  return jax.vmap(lambda x: _prefix_beam(x, beams))(log)


def _prefix_beam(log: Array, beams: int) -> tuple[Array, Array, Array]:
  t, v = log.shape
  n = v - 1

  def step(state, law):
    ids, count, blank, other = state  # [K, T], [K], log p that end so
    total = jnp.logaddexp(blank, other)
    last = jnp.take_along_axis(ids, jnp.maximum(count - 1, 0)[:, None], 1)[:, 0]
    last = jnp.where(count > 0, last, -1)
    stay_blank = total + law[n]
    again = jnp.where(last >= 0, law[jnp.maximum(last, 0)], _LOW)
    stay_other = jnp.maximum(other + again, _LOW)
    symbols = jnp.arange(n)[None]
    before = jnp.where(symbols == last[:, None], blank[:, None], total[:, None])
    grown = before + law[None, :n]  # [K, V - 1]
    # A grown one may be one that is there: p and a symbol are q.
    at = jnp.arange(t)[None]
    cut = jnp.where(at < count[:, None] - 1, ids, -1)
    own = jnp.where(at < count[:, None], ids, -1)
    same = jnp.all(own[:, None] == cut[None], -1)
    same &= (count[:, None] + 1 == count[None]) & (total > _LOW / 2)[None]
    merged = same[..., None] & (symbols[None] == last[None, :, None])
    into = jnp.where(merged, grown[:, None], _LOW)
    stay_other = jnp.logaddexp(stay_other, jax.nn.logsumexp(into, axis=(0, 2)))
    grown = jnp.where(merged.any(1), _LOW, grown)
    score = jnp.concatenate(
      [jnp.logaddexp(stay_blank, stay_other), grown.reshape(-1)]
    )
    _, top = jax.lax.top_k(score, beams)
    stays = top < beams
    parent = jnp.where(stays, top, (top - beams) // n)
    symbol = jnp.maximum(top - beams, 0) % n
    place = (at == count[parent][:, None]) & ~stays[:, None]
    new = jnp.where(place, symbol[:, None], ids[parent])
    blank = jnp.where(stays, stay_blank[parent], _LOW)
    other = jnp.where(
      stays, stay_other[parent], grown.reshape(-1)[jnp.maximum(top - beams, 0)]
    )
    return (new, count[parent] + ~stays, blank, other), None

  first = jnp.arange(beams) == 0
  state = (
    jnp.full((beams, t), -1, jnp.int32),
    jnp.zeros(beams, jnp.int32),
    jnp.where(first, 0.0, _LOW),
    jnp.full(beams, _LOW),
  )
  (ids, count, blank, other), _ = jax.lax.scan(step, state, log)
  total = jnp.logaddexp(blank, other)
  best = jnp.argmax(total)
  there = jnp.arange(t) < count[best]
  return jnp.where(there, ids[best], -1), count[best], total[best]


def of_mass(
  log: Array,
  mass: Array,
  masses: Array,
  *,
  bins: int,
  tolerance: float = 0.1,
  released: bool = False,
) -> tuple[Array, Array, Array]:
  """The path of T slots that is likeliest among those whose symbols weigh so
  much: a knapsack over bins of 1 Da, each of which keeps its best path with
  its exact mass (PrimeNovo's precise mass control, arXiv 2405.08772).

  One path a bin is kept, so what is found may not be the best, and a path may
  not be found where there is one.

  Args:
    log: f32[B, T, V], logarithms of laws; the blank is last.
    mass: f32[B], of all symbols together.
    masses: f32[V - 1].
    bins: W, above any `mass`.
    tolerance: of the mass, in Da.
    released: blanks before the first symbol count nothing, and symbols of a
      negative mass are not used, as published.

  Returns:
    The slots i32[B, T]; the sum of what they say, clipped at -20 and less the
    smallest, f32[B]; and their mass f32[B], 0 where there is no such path: all
    slots are blank then.
  """
  masses = jnp.asarray(masses)
  run = lambda x, m: _of_mass(x, m, masses, bins, tolerance, released)
  return jax.vmap(run)(log, mass)


def _of_mass(log, mass, masses, bins, tolerance, released):
  t, v = log.shape
  n = v - 1
  score = jnp.maximum(log.astype(jnp.float32), CLIP)
  score = score - score.min() + 0.1
  w = jnp.arange(bins)
  last_bin = jnp.floor(mass).astype(jnp.int32)
  # From which bins a symbol may lead here: two, for masses are no whole
  # numbers.
  source = jnp.floor(w[None] - masses[:, None]).astype(jnp.int32)
  source = jnp.stack([source, source + 1], 1)  # [n, 2, W]
  usable = (source >= 0) & (source < bins)
  if released:
    usable &= (masses > 0)[:, None, None]
  source = jnp.clip(source, 0, bins - 1)
  heaviest = jnp.max(masses)
  symbols = jnp.arange(n)[:, None, None]

  def step(state, law):
    dp, own, last, h = state  # f32[W], f32[W], i32[W] (-1 a blank), i32[]
    there = dp > 0
    there = there.at[0].set(True)
    blank = jnp.where(there & (w > 0), dp + law[n], _LOW)
    again = jnp.where(there & (last >= 0), dp + law[jnp.maximum(last, 0)], _LOW)
    total = own[source] + masses[:, None, None]
    inside = (total >= w[None, None]) & (total < w[None, None] + 1)
    right = jnp.abs(total - mass) <= tolerance
    fits = jnp.where(w[None, None] == last_bin, right, inside)
    allowed = usable & fits & there[source] & (last[source] != symbols)
    grown = jnp.where(allowed, dp[source] + law[:n, None, None], _LOW)
    every = jnp.concatenate([blank[None], again[None], grown.reshape(-1, bins)])
    choice = jnp.argmax(every, 0)  # the first of the best
    best = jnp.take_along_axis(every, choice[None], 0)[0]
    k = jnp.maximum(choice - 2, 0)
    symbol, side = k // 2, k % 2
    come = jnp.where(choice < 2, w, source[symbol, side, w])
    weight = jnp.where(choice < 2, own, total[symbol, side, w])
    said = jnp.where(choice == 0, -1, jnp.where(choice == 1, last, symbol))
    reached = (best > 0) & (w <= heaviest * h) & (w > 0)
    empty = jnp.where(released, 0.0, dp[0] + law[n])
    dp = jnp.where(reached, best, 0.0).at[0].set(empty)
    own = jnp.where(reached, weight, 0.0)
    said = jnp.where(reached, said, -1)
    come = jnp.where(reached, come, 0)
    return (dp, own, said, h + 1), (said, come)

  start = jnp.zeros(bins), jnp.zeros(bins), jnp.full(bins, -1, jnp.int32)
  (dp, own, _, _), (said, come) = jax.lax.scan(
    step, (*start, jnp.int32(1)), score
  )

  def back(at, row):
    said, come = row
    return come[at], said[at]

  _, slots = jax.lax.scan(back, last_bin, (said, come), reverse=True)
  slots = jnp.where(slots < 0, n, slots)
  found = dp[last_bin] > 0
  return (
    jnp.where(found, slots, n),
    jnp.where(found, dp[last_bin], 0.0),
    jnp.where(found, own[last_bin], 0.0),
  )


def best_of_mass(
  log: Array,
  neutral: Array,
  masses: Array,
  *,
  bins: int,
  beams: int = 5,
  tolerance: float = 0.1,
  released: bool = False,
) -> tuple[Array, Array]:
  """Symbols i32[B, T] of the prefix beam where their mass is right, else of
  `of_mass`, -1 behind the end; and where the second was taken, bool[B].

  Args:
    log, masses, bins, beams, tolerance, released: as above.
    neutral: f32[B], the mass of the whole molecule, with its water.
  """
  masses = jnp.asarray(masses)
  mass = neutral - (18.01 if released else peptides.WATER)
  ids, count, _ = prefix_beam(log, beams)
  own = jnp.where(ids >= 0, masses[jnp.maximum(ids, 0)], 0.0).sum(1)
  right = (jnp.abs(own - mass) < tolerance) & (count > 0)
  slots, _, weight = of_mass(
    log, mass, masses, bins=bins, tolerance=tolerance, released=released
  )
  other = collapsed(slots, log.shape[-1] - 1)
  taken = ~right & (weight > 0)
  return jnp.where(taken[:, None], other, ids), taken


def collapsed(slots: Array, blank: int) -> Array:
  """i32[B, T]: what slots i32[B, T] say, -1 behind the end."""
  before = jnp.pad(slots[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
  kept = (slots != blank) & (slots != before)
  t = slots.shape[1]
  at = jnp.where(kept, jnp.cumsum(kept, 1) - 1, t)
  rows = jnp.arange(len(slots))[:, None]
  return jnp.full_like(slots, -1).at[rows, at].set(slots, mode="drop")
