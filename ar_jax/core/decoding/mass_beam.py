"""Beam search for a sequence of a known mass.

Shapes: B examples, K beams, V symbols, L the most symbols.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ar_jax.core.domains import peptides

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Target:
  """What a sequence ought to weigh.

  Attributes:
    masses: f32[V], of each symbol; 0 of the stop.
    mz: f32[B], of the precursor.
    charge: f32[B].
    ppm: how far m/z may be, in millionths.
    isotopes: how many isotopes of the precursor may have been measured.
  """

  masses: Array
  mz: Array
  charge: Array
  ppm: float = dataclasses.field(default=50.0, metadata={"static": True})
  isotopes: int = dataclasses.field(default=2, metadata={"static": True})

  def errors(self, mass: Array) -> Array:
    """f32[B, ..., isotopes]: errors in ppm of residues of this mass f32[B,
    ...]."""
    wide = lambda x: x.reshape(-1, *(1,) * mass.ndim)
    mz, charge = wide(self.mz), wide(self.charge)
    own = (mass[..., None] + peptides.WATER) / charge + peptides.PROTON
    shift = jnp.arange(self.isotopes) * peptides.ISOTOPE
    shift = shift.reshape(*(1,) * mass.ndim, -1)
    return (own - (mz - shift / charge)) / mz * 1e6

  def fits(self, mass: Array) -> Array:
    """bool[B, ...]: of which residues of this mass are a whole sequence."""
    return jnp.any(jnp.abs(self.errors(mass)) < self.ppm, -1)

  def exceeds(self, mass: Array) -> Array:
    """bool[B, ...]: which are too heavy, even with the lightest symbol once
    more, if that has a negative mass."""
    lightest = jnp.minimum(jnp.min(self.masses), 0.0)
    return jnp.all(self.errors(mass + lightest) > self.ppm, -1)


class Found(NamedTuple):
  """The best sequences.

  Attributes:
    ids: i32[B, L], 0 behind the end, and no stop.
    count: i32[B], symbols.
    fits: bool[B], whether they have the mass.
    score: f32[B], the mean probability of their symbols.
  """

  ids: Array
  count: Array
  fits: Array
  score: Array


def search(
  probabilities: Callable[[Any, Array, Array], tuple[Array, Any]],
  carry: Any,
  target: Target,
  *,
  batch: int,
  length: int,
  stop: int,
  beams: int = 5,
  released: bool = False,
) -> Found:
  """The sequence that is likeliest among those of the right mass; where no
  beam has it, among all that have ended.

  A beam ends, and fits, as soon as its mass is right; it ends and does not fit
  at the stop, or when it is too heavy. Beams are compared by the mean
  probability of their symbols.

  Args:
    probabilities: (carry, symbols i32[B K] that were chosen last, the rows
      i32[B K] of the carry that they go on from) -> (f32[B K, V], carry). At
      the first step the symbols are all 0.
    carry: of B K rows.
    target: the masses.
    batch: B.
    length: L.
    stop: the symbol that ends a sequence; 0 is none.
    beams: K.
    released: sequences that have ended are compared by the mean of a softmax
      of probabilities, as published (ContraNovo, arXiv 2312.11584).
  """
  every = batch * beams
  rows = jnp.arange(every)
  shape = batch, beams
  v = len(target.masses)
  symbols = jnp.arange(v)[None, None]

  def step(state, s):
    carry, ids, total, ranks, mass, live, chosen, parent, best = state
    p, carry = probabilities(carry, chosen, parent)
    p = p.reshape(*shape, v)
    mean = (total[..., None] + p) / (s + 1)
    mean = jnp.where(live[..., None] & (symbols != 0), mean, -jnp.inf)
    score, top = jax.lax.top_k(mean.reshape(batch, -1), beams)
    there = score > -jnp.inf
    beam, symbol = top // v, top % v
    take = lambda x: jnp.take_along_axis(
      x, beam.reshape(*shape, *(1,) * (x.ndim - 2)), axis=1
    )
    flat = jnp.take_along_axis(p.reshape(batch, -1), top, 1)
    again = jax.nn.softmax(p, -1).reshape(batch, -1)
    again = jnp.take_along_axis(again, top, 1)
    ids = take(ids).at[:, :, s].set(symbol)
    total, mass = take(total) + flat, take(mass) + target.masses[symbol]
    last = symbol == stop
    ranks = take(ranks) + jnp.where(last, 0.0, again if released else flat)
    right = target.fits(mass) & ~last & there
    over = (last | right | target.exceeds(mass)) & there
    residues = jnp.maximum(s + 1 - last, 1)
    rank = ranks / residues
    # What fits is better than all that do not.
    key = jnp.where(over, rank + 10.0 * right, -1.0)
    i = jnp.argmax(key, 1)
    one = lambda x: jnp.take_along_axis(
      x, i.reshape(-1, *(1,) * (x.ndim - 1)), axis=1
    )[:, 0]
    better = one(key) > best[0]
    new = one(key), one(ids), one(s + 1 - last), one(right), one(rank)
    best = tuple(
      jnp.where(better.reshape(-1, *(1,) * (b.ndim - 1)), a, b)
      for a, b in zip(new, best, strict=True)
    )
    parent = (jnp.arange(batch)[:, None] * beams + beam).reshape(-1)
    state = (carry, ids, total, ranks, mass, there & ~over)
    return (*state, symbol.reshape(-1), parent, best), None

  zeros = lambda *more: jnp.zeros((*shape, *more))
  live = jnp.broadcast_to(jnp.arange(beams)[None] == 0, shape)
  ids = jnp.zeros((*shape, length), jnp.int32)
  best = (
    jnp.full(batch, -0.5),
    jnp.zeros((batch, length), jnp.int32),
    jnp.zeros(batch, jnp.int32),
    jnp.zeros(batch, bool),
    jnp.zeros(batch),
  )
  start = (carry, ids, zeros(), zeros(), zeros(), live)
  start = (*start, jnp.zeros(every, jnp.int32), rows, best)
  state, _ = jax.lax.scan(step, start, jnp.arange(length))
  _, ids, count, fits, score = state[-1]
  there = jnp.arange(length)[None] < count[:, None]
  return Found(jnp.where(there, ids, 0), count, fits, score)
