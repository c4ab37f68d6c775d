"""Masked refinement of a scale: its least certain units are drawn again.

HMAR (arXiv 2506.04421), section 4.2. How many a step settles is said
beforehand, or decided by how sure the refinement is (`core.decoding.confident`,
which HMAR does not have): a scale then ends as soon as all examples have.

Shapes: B batch, T slots of one scale, V codes, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import pick
from ar_jax.core.decoding.confident import Fill
from ar_jax.core.decoding.steps import fold
from ar_jax.core.errors import UserError
from ar_jax.families.scale.net import NextScale

Array = jax.Array


def schedules(
  sizes: Sequence[int], refine: Sequence[Sequence[int]]
) -> list[tuple[int, ...]]:
  """The units that each step of every scale settles.

  Args:
    sizes: units of the scales.
    refine: the same of the first scales; the others are drawn at once.

  Raises:
    UserError: the steps of a scale do not make up its units.
  """
  steps = [tuple(own) for own in refine]
  if len(steps) > len(sizes):
    raise UserError(
      f"refine has {len(steps)} schedules for {len(sizes)} scales"
    )
  steps += [(n,) for n in sizes[len(steps) :]]
  for n, own in zip(sizes, steps, strict=True):
    if sum(own) != n or min(own) < 1:
      raise UserError(
        f"refine: the steps {own} of a scale must be at least 1 each and "
        f"make up its {n} units"
      )
  return steps


def redrawing(
  net: Callable[[], NextScale],
  codec: Callable[[], Any],
  label: Array,
  mask: Array,
  steps: Sequence[tuple[int, ...]],
  fill: Fill | None = None,
) -> Callable[..., Array]:
  """What `draw.generate` takes as `redraw`.

  Args:
    net: binds the net of the refinement, which sees no earlier scale. A loop
      is a trace of its own, so it is bound anew there.
    codec: binds the tokenizer.
    label: i32[B].
    mask: f32[1, 1, D], the input of a unit that is not settled.
    steps: what `schedules` returns.
    fill: decides what a step settles; `steps` are then the most there may be,
      of which the first is as it says.
  """
  _, ada = net().begin(label)

  def states(s, known, units, hidden):
    """The net, and its hidden states of a scale of which a part is known."""
    bound, at = net(), hidden[..., None]
    own = codec().part(s, units)
    x = bound.latent(known + jnp.where(at, 0, own)) + at * mask
    return bound, bound.step(s, x, ada, None)[0]

  def filled(s, known, units, hidden, keys, bias, law):
    most = len(steps[s]) - 1
    rule = dataclasses.replace(fill, steps=most)

    def forward(carry):
      i, units, hidden = carry
      bound, h = states(s, known, units, hidden)
      temperature = law.get("temperature", 1.0)
      logits = pick.biased(bound.head.logits(h), bias, temperature)
      new, sure, entropy = rule.propose(logits, fold(keys, i + 1), **law)
      chosen = rule.commit(sure, entropy, hidden, i, fold(keys, most + 1 + i))
      chosen = chosen | (hidden & (i == most - 1))
      return i + 1, jnp.where(chosen, new, units), hidden & ~chosen

    begun = jnp.int32(0), units, hidden
    return jax.lax.while_loop(lambda c: jnp.any(c[2]), forward, begun)[1]

  def redraw(s, fhat, units, logp, keys, *, bias=None, **law):
    if len(steps[s]) == 1:
      return units
    known = codec().seen(fhat, s)
    everywhere = jnp.ones(units.shape, bool)
    # Units that are not yet settled after each step but the last.
    left = np.cumsum(steps[s][::-1])[::-1][1:]

    def step(carry, row):
      units, hidden = carry
      i, after = row
      bound, h = states(s, known, units, hidden)
      logp = bound.head.law(h, bias=bias, **law)
      new = pick.draw(logp, fold(keys, i))
      units = jnp.where(hidden, new, units)
      return (units, _least_certain(logp, units, after, hidden)), None

    hidden = _least_certain(logp, units, left[0], everywhere)
    if fill is not None:
      return filled(s, known, units, hidden, keys, bias, law)
    after = np.append(left[1:], 0).astype(np.int32)
    rows = np.arange(1, len(after) + 1, dtype=np.int32), after
    (units, _), _ = jax.lax.scan(step, (units, hidden), rows)
    return units

  return redraw


def rank(x: Array) -> Array:
  """i32[..., T]: how many are smaller, or equal and before."""
  return jnp.argsort(jnp.argsort(x, axis=-1), axis=-1)


def _least_certain(logp: Array, units: Array, n: Array, of: Array) -> Array:
  """bool[B, T]: the n units of the least probability, of those of `of`."""
  sure = jnp.take_along_axis(logp, units[..., None], -1)[..., 0]
  return rank(jnp.where(of, sure, jnp.inf)) < n
