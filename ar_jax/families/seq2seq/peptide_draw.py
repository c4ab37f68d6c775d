"""How peptides are drawn: residue after residue, by a beam of the right mass,
or from slots.

Shapes: B batch, T slots, L symbols at most, K beams; a precursor is f32[B, 4]:
its mass (whole, rest), charge, m/z.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import mass_beam, pick, slot_paths, steps
from ar_jax.families.seq2seq.residues import (
  BLANK,
  STOP,
  Residues,
  divided,
  split_masses,
)
from ar_jax.nn.heads import ctc
from ar_jax.nn.layers.cross_attention import Memory

Array = jax.Array


def greedy(logits: Array, length: int) -> Array:
  """Symbols i32[B, L], 0 behind the end, of the likeliest of each slot of
  logits f32[B, T, 28]."""
  ids, count = ctc.greedy(logits, blank=BLANK)
  there = jnp.arange(ids.shape[1])[None] < count[:, None]
  return _fitted(jnp.where(there, ids, -1), length)


def of_mass(
  logits: Array,
  neutral: Array,
  length: int,
  *,
  beams: int,
  bins: int,
  released: bool,
) -> Array:
  """Symbols i32[B, L], 0 behind the end, of slots of a known mass; see
  `slot_paths.best_of_mass`."""
  masses = split_masses(released).sum(-1)[1:STOP]
  ids, _ = slot_paths.best_of_mass(
    jax.nn.log_softmax(logits),
    neutral,
    jnp.asarray(masses),
    bins=bins,
    beams=beams,
    released=released,
  )
  return _fitted(ids, length)


def _fitted(ids: Array, length: int) -> Array:
  """Symbols i32[B, L] of what slots say, i32[B, T], -1 behind the end."""
  spare = max(length - ids.shape[1], 0)
  ids = jnp.pad(ids, ((0, 0), (0, spare)), constant_values=-1)
  return ids[:, :length] + 1


def drawn(
  decoder: Residues,
  precursor: Array,
  memory: Memory,
  keys: Array,
  **law: Any,
) -> Array:
  """L symbols i32[B, L] from their law, see `pick.law`; what is behind a stop
  means nothing."""
  mass, (net, variables) = precursor[:, :2], decoder.unbind()
  table = jnp.asarray(split_masses(decoder.waves.released))
  logits, cache = decoder.begin(mass, precursor[:, 2], memory)

  def step(carry, s, keys):
    logits, cache, so_far = carry
    ids = pick.draw(pick.law(logits, **law), keys)
    so_far, sums = _added(so_far, table[ids], mass, ids)
    args = ids, *sums, cache, memory
    logits, cache = net.apply(variables, *args, method="step")
    return (logits, cache, so_far), ids

  carry = logits, cache, jnp.zeros_like(mass)
  return steps.scan_steps(step, carry, decoder.length, keys)[1]


def beam(
  decoder: Residues,
  precursor: Array,
  memory: Memory,
  target: mass_beam.Target,
  *,
  beams: int,
  released: bool,
) -> Array:
  """Symbols i32[B, L], 0 behind the end, of `mass_beam.search`."""
  batch = len(precursor)
  p = jnp.repeat(precursor, beams, 0)
  mass, (net, variables) = p[:, :2], decoder.unbind()
  seen = memory.seen
  memory = Memory(
    jnp.repeat(memory.k, beams, 1),
    jnp.repeat(memory.v, beams, 1),
    None if seen is None else jnp.repeat(seen, beams, 0),
  )
  table = jnp.asarray(split_masses(decoder.waves.released))
  logits, cache = decoder.begin(mass, p[:, 2], memory)

  def probabilities(carry, chosen, parent):
    first, logits, cache, so_far = carry

    def go_on():
      k, v = cache.k[:, parent], cache.v[:, parent]
      own = dataclasses.replace(cache, k=k, v=v)
      total, sums = _added(so_far[parent], table[chosen], mass, chosen)
      args = chosen, *sums, own, memory
      return *net.apply(variables, *args, method="step"), total

    logits, cache, so_far = jax.lax.cond(
      first, lambda: (logits, cache, so_far), go_on
    )
    carry = jnp.asarray(False), logits, cache, so_far
    return jax.nn.softmax(logits), carry

  return mass_beam.search(
    probabilities,
    (jnp.asarray(True), logits, cache, jnp.zeros_like(mass)),
    target,
    batch=batch,
    length=decoder.length,
    stop=STOP,
    beams=beams,
    released=released,
  ).ids


def _added(
  so_far: Array, own: Array, mass: Array, ids: Array
) -> tuple[Array, tuple[Array, Array]]:
  """The mass f32[B, 2] with one more symbol; and what is read of it, see
  `Residues.sums`."""
  total = divided(so_far + own)
  real = ((ids != STOP) & (ids != 0))[:, None]
  left = divided(mass - total)
  return total, (jnp.where(real, total, 0.0), jnp.where(real, left, 0.0))
