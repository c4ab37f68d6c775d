"""Speculation over the nets of this library whose units are vectors: two
`NextToken`, one of which drafts for the other.

Shapes: B examples, rows of a net (B, or 2 B pairs where guided), P positions
of the prefix, L units, K drafts, C channels of a unit, D width, N rows of laws.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import densities, place_keys, speculate_vectors, steps
from ar_jax.core.decoding.densities import Density, Rule
from ar_jax.core.decoding.speculate_vectors import Drafts, Stats
from ar_jax.core.system import UserError, Vars
from ar_jax.families.token.prefix import Cond
from ar_jax.families.token.program import TokenProgram
from ar_jax.nn.layers.cache import Cache

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Model:
  """A net with its weights, whose forwards can be of several rows.

  Attributes:
    program: its guidance, and what its head's `law` takes.
    variables: those of its net.
  """

  program: TokenProgram
  variables: Vars

  def begin(self, cond: Cond, batch: int, spare: int) -> tuple[Array, Cache]:
    """The hidden states [B, 1, ...] before the first unit, and a cache that
    has read the condition."""
    blank = self.program.net.units.blank(batch, 0)
    h, cache, valid = self.program.read(self.variables, cond, blank, spare)
    return self._states(h[:, -1:]), (cache, valid)

  def step(
    self, state: tuple, units: Array, count: Array
  ) -> tuple[Array, tuple]:
    """The states [B, T, ...] behind each of units f32[B, T, C], the first of
    which is unit count - 1, i32[B]; rows behind are written again."""
    (cache, valid), net = state, self.program.net.bind(self.variables)
    rows = self.program.rows
    at = net.prefix.length + count - 1
    cache = dataclasses.replace(cache, index=rows(at))
    h, cache = net.step(rows(units), cache, valid)
    return self._states(h), (cache, valid)

  def law(self, h: Array, place: Array) -> Density:
    """The law of N units, of states [N, ...] and their places i32[N]."""
    program = self.program
    options = dict(program.law)
    if program.scales is not None:
      scale = jnp.asarray(program.scales)
      # Beyond the last unit nothing is kept.
      scale = jnp.take(scale, place, mode="clip")[:, None]
      options.update(h_null=h[:, 1], scale=scale)
    head = program.net.bind(self.variables).head
    return head.law(h[:, 0], **options)

  def _states(self, h: Array) -> Array:
    """f32[B, T, 1 | 2, D]: with the condition, and without."""
    rows = 1 + (self.program.scales is not None)
    h = h.astype(jnp.float32).reshape(-1, rows, *h.shape[1:])
    return jnp.swapaxes(h, 1, 2)


def generate(
  target: Model,
  drafter: Model,
  cond: Cond,
  keys: Array,
  *,
  rule: Rule,
  k: int,
  prefill: int = 1,
  most: int = 64,
  shared: bool = True,
) -> tuple[Array, Stats]:
  """Draws the units of one example per key.

  Args:
    target, drafter: of the same units.
    cond: what their prefixes take.
    keys: Key[B], threefry.
    rule: what is compared.
    k: K, drafts a forward; with 0 the target draws alone.
    prefill: units that the target draws before the first draft.
    most: see `densities.residual`.
    shared: see `speculate_vectors.speculate`.

  Returns:
    Units f32[B, L, C], and what it took, the forward that reads the condition
    among it.

  Raises:
    UserError: a number is out of range, or the units are not the same.
  """
  length, batch = target.program.length, len(keys)
  if k < 0 or not 1 <= prefill <= length:
    raise UserError(
      f"drafts={k}, prefill={prefill}: drafts must be at least 0, and the "
      f"target draws 1 to {length} units alone"
    )
  _check(target, drafter)
  h, state = target.begin(cond, batch, k)
  units = target.program.net.units.blank(batch, length)

  def alone(carry, i):
    """Unit i of the target, by the numbers that a draft of it takes."""
    h, state, units = carry
    place = jnp.full(batch, i, jnp.int32)
    law, own = target.law(h[:, 0], place), steps.fold(keys, i)
    unit = rule.fresh(law, rule.look(law, own), own)
    units = units.at[:, i].set(unit)
    # The last one is read by the loop of drafts.
    again = lambda: target.step(state, unit[:, None], place + 1)
    h, state = jax.lax.cond(i + 1 < prefill, again, lambda: (h, state))
    return (h, state, units), None

  # Of one kind for both branches: a traced index for each example.
  cache, valid = state
  index = jnp.broadcast_to(cache.index, (len(h) * h.shape[2],))
  state = dataclasses.replace(cache, index=index.astype(jnp.int32)), valid
  carry = h, state, units
  (_, state, units), _ = jax.lax.scan(alone, carry, jnp.arange(prefill))
  count = jnp.full(batch, prefill, jnp.int32)
  own = _catch_up(drafter, cond, units, prefill, k) if k else ()
  units, stats = speculate_vectors.speculate(
    lambda *args: _draft(drafter, rule, k, *args),
    lambda *args: _score(target, *args),
    rule,
    units,
    count,
    (own, state),
    keys,
    k,
    most=most,
    shared=shared,
  )
  return units, stats._replace(forwards=stats.forwards + prefill)


def _catch_up(
  drafter: Model, cond: Cond, units: Array, count: int, k: int
) -> tuple:
  """The cache of a drafter that has read all but the last unit."""
  program = drafter.program
  _, cache, valid = program.read(
    drafter.variables, cond, units[:, : count - 1], k
  )
  index = jnp.full(len(program.rows(units)), program.net.prefix.length)
  return dataclasses.replace(cache, index=index + count - 1), valid


def _last(units: Array, count: Array) -> Array:
  """f32[B, 1, C], the last known unit; of finished examples any."""
  at = jnp.minimum(count - 1, units.shape[1] - 1)[:, None, None]
  return jnp.take_along_axis(units, at, axis=1)


def _flat(x: Array) -> Array:
  return x.reshape(-1, *x.shape[2:])


def _draft(
  drafter: Model,
  rule: Rule,
  k: int,
  state: Any,
  units: Array,
  count: Array,
  keys: Array,
) -> tuple[Drafts, Any]:
  """K drafts, one after the other; the last is read, too, in case all stand."""
  if not k:
    nothing = jnp.zeros((len(units), 0, units.shape[2]))
    return Drafts(nothing, nothing, (), None), state

  def step(carry, i):
    unit, state = carry
    h, state = drafter.step(state, unit, count + i)
    law = drafter.law(h[:, 0], count + i)
    own = place_keys.keys_at(keys, count + i)
    sample, known = rule.draw(law, own)
    unit = rule.unit(law, sample)
    return (unit[:, None], state), (h[:, 0], unit, sample, known)

  (_, state), found = jax.lax.scan(
    step, (_last(units, count), state), jnp.arange(k + 1)
  )
  h, unit, sample, known = jax.tree.map(
    lambda x: jnp.moveaxis(x[:k], 0, 1), found
  )
  place = _flat(count[:, None] + jnp.arange(k)[None])
  law = lambda rows: drafter.law(_flat(h)[rows], place[rows])
  return Drafts(unit, sample, known, law), state


def _score(
  target: Model, state: Any, units: Array, count: Array, drafts: Array
) -> tuple[Any, Any]:
  """One forward of the target over the last unit and the drafts."""
  both = jnp.concatenate([_last(units, count), drafts], axis=1)
  h, state = target.step(state, both, count)
  place = _flat(count[:, None] + jnp.arange(both.shape[1])[None])
  return lambda rows: target.law(_flat(h)[rows], place[rows]), state


def _check(target: Model, drafter: Model) -> None:
  of = lambda model: (
    model.program.length,
    model.program.net.head.channels,
    type(model.program.net.head),
  )
  for what, ours, theirs in zip(
    ("units", "channels", "kind of head"), of(drafter), of(target), strict=True
  ):
    if ours != theirs:
      raise UserError(
        f"the drafter has {ours} {what}, the target {theirs}: both need the "
        "same tokenizer and the same kind of law"
      )
  for model in (target, drafter):
    temperature = dict(model.program.law).get("temperature", 1.0)
    densities.check_temperature(temperature)
