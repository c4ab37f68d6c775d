"""How a `NextToken` draws: one unit a step, guided, cached, ragged.

Shapes: B examples, P positions of the prefix, L units, M known units, V codes.
Units are i32[B, L], or [B, L, ...] where they are no codes. The rows of the
net are the examples or, with guidance, their `core.decoding.pairs`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pairs, programs, steps
from ar_jax.core.errors import UserError
from ar_jax.core.system import Vars
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.prefix import Cond
from ar_jax.nn.layers.cache import Cache

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class TokenProgram:
  """A `programs.Program`; `variables` are those of the net, `cond` is what its
  prefix takes.

  A `bias`, where one is given, is f32[V] or f32[B, V]: it is added to guided
  logits after temperature and before all filters, see `pick.biased`.

  Attributes:
    net: the transformer.
    scales: of guidance, one for each unit; None is off.
    law: arguments of the head's `draw`, for a `Categorical` those of
      `pick.law`; as a tuple of pairs.
    forced: L codes that stand whatever is drawn, -1 where a unit is free; None
      for none.
    stop: the code that ends an example: `run` and `complete` are over when all
      have ended, and what is behind is 0. None for no such code.
  """

  net: NextToken
  scales: tuple[float, ...] | None = None
  law: tuple[tuple[str, float], ...] = ()
  forced: tuple[int, ...] | None = None
  stop: int | None = None

  def __post_init__(self):
    if self.forced is None:
      return
    if len(self.forced) != self.length:
      raise UserError(
        f"{len(self.forced)} forced units: there must be one for each of "
        f"{self.length} places, -1 where it is free"
      )
    if self.net.vocab is None or max(self.forced) >= self.net.vocab:
      raise UserError(
        f"forced units up to {max(self.forced)}: the units of this model are "
        + ("no codes" if self.net.vocab is None else f"below {self.net.vocab}")
      )

  @property
  def length(self) -> int:
    """L."""
    return len(self.net.plan)

  def begin(
    self, variables: Vars, cond: Cond, keys: Array, bias: Array | None = None
  ) -> tuple:
    """(carry, [B, ...]): reads the condition and draws the first unit."""
    blank = self.net.units.blank(len(keys), 0)
    h, cache, valid = self.read(variables, cond, blank)
    first = self._draw(variables, h[:, -1:], 0, keys, bias)
    return (cache, first, valid, bias), first

  def step(self, variables: Vars, carry: tuple, s: Array, keys: Array) -> tuple:
    """(carry, [B, ...]): reads unit s - 1 and draws unit s, s i32[] or i32[B].

    The carry is the cache, the unit that is not yet in it, which positions of
    the prefix are no padding, and the bias.
    """
    cache, units, valid, bias = carry
    rows = self.rows(units[:, None])
    h, cache = self.net.bind(variables).step(rows, cache, valid)
    units = self._draw(variables, h, s, keys, bias)
    return (cache, units, valid, bias), units

  def run(
    self, variables: Vars, cond: Cond, keys: Array, bias: Array | None = None
  ) -> Array:
    """Units [B, L, ...]; the null rows are dropped where guidance stops."""
    alone = dataclasses.replace(self, scales=None)
    guided = self._guided()
    variables = self.net.ready(variables, len(keys) * (1 + bool(guided)))
    head = self if guided else alone
    if self.stop is None and guided in (0, self.length):
      return programs.run(head, variables, cond, keys, bias=bias)
    carry, first = head.begin(variables, cond, steps.fold(keys, 0), bias)
    guided = guided or self.length
    ended = None if self.stop is None else first == self.stop
    carry, early, ended = head._some(variables, carry, 1, guided, keys, ended)
    parts = [first[:, None], early]
    if guided < self.length:
      cache, units, valid, bias = carry
      valid = None if valid is None else valid[::2]
      carry = cache.rows(slice(None, None, 2)), units, valid, bias
      parts.append(
        alone._some(variables, carry, guided, self.length, keys, ended)[1]
      )
    return jnp.concatenate(parts, axis=1)

  def _some(
    self,
    variables: Vars,
    carry: tuple,
    start: int,
    stop: int,
    keys: Array,
    ended: Array | None,
  ) -> tuple[tuple, Array, Array | None]:
    """The carry after units start .. stop - 1, these units, and which examples
    have ended; they do where `stop` is drawn."""
    step, n = functools.partial(self.step, variables), stop - start
    if ended is None:
      return *steps.scan_steps(step, carry, n, keys, start=start), None

    def until(carry, s, keys):
      carry, units = step(carry, s, keys)
      return carry, units, units == self.stop

    found = steps.until_steps(until, carry, n, keys, start=start, done=ended)
    return found.carry, found.units, found.done

  def complete(
    self,
    variables: Vars,
    cond: Cond,
    prompt: Array,
    known: Array,
    keys: Array,
    bias: Array | None = None,
  ) -> Array:
    """Units [B, L, ...] of examples that are known in part.

    A ragged batch: every row goes on from where its own prompt ends, and
    what it draws is what it would draw alone.

    Args:
      variables, cond: as above.
      prompt: [B, M, ...], the first units of each example.
      known: i32[B], how many of them to keep, 0 ... M.
      keys: Key[B].
      bias: as above.

    Raises:
      UserError: M is not below L.
    """
    rows = len(keys) * (1 + (self.scales is not None))
    variables = self.net.ready(variables, rows)
    known = jnp.clip(known, 0, prompt.shape[1])
    h, cache, valid = self.read(variables, cond, prompt)
    # A row is as long as what it knows; what lies behind is written again.
    rows = self.net.prefix.length + self.rows(known)
    h = jnp.take_along_axis(h, rows[:, None, None] - 1, axis=1)
    cache = dataclasses.replace(cache, index=rows)
    first = self._draw(variables, h, known, steps.fold(keys, known), bias)
    units = self.net.units.blank(len(keys), self.length)
    units = units.at[:, : prompt.shape[1]].set(prompt)
    units = units.at[jnp.arange(len(known)), known].set(first)
    step = functools.partial(self.step, variables)
    carry, stop = (cache, first, valid, bias), self.length - jnp.min(known)
    if self.stop is None:
      return steps.fill_steps(step, carry, units, 1, stop, keys, known)[1]
    # What is behind `known` in the prompt must not stay where all end early.
    behind = jnp.arange(self.length)[None] > known[:, None]
    units = jnp.where(behind, 0, units)
    ends: Callable = lambda new: new == self.stop
    return steps.fill_steps(
      step, carry, units, 1, stop, keys, known, ends=ends, done=ends(first)
    )[1]

  def rows(self, x: Array) -> Array:
    """What belongs to the examples, [B, ...], for the rows of the net."""
    return pairs.double(x, self.scales is not None)

  def _guided(self) -> int:
    """The units up to the last one with guidance."""
    on = [s for s, scale in enumerate(self.scales or ()) if scale != 1.0]
    return on[-1] + 1 if on else 0

  def read(
    self, variables: Vars, cond: Cond, units: Array, spare: int = 0
  ) -> tuple[Array, Cache, Array | None]:
    """Reads the condition, and units behind it, into a new cache.

    Args:
      variables, cond: as above.
      units: [B, M, ...], M < L, and perhaps 0.
      spare: rows of the cache beyond those of an example.

    Returns:
      Hidden states [rows, P + M, D], the cache, and what is no padding.

    Raises:
      UserError: M is not below L.
    """
    if units.shape[1] >= self.length:
      raise UserError(
        f"a prompt of {units.shape[1]} units: an example has {self.length}, "
        "and at least one must be left to draw"
      )
    net, hidden = self.net.bind(variables), None
    if self.scales is not None:
      hidden = pairs.without(len(units))
    cond = self.rows({k: jnp.asarray(v) for k, v in cond.items()})
    h, cache = net.read(cond, self.rows(units), hidden, spare)
    return h, cache, net.prefix.valid(cond)

  def logits(self, variables: Vars, h: Array, place: Array | int) -> Array:
    """Guided logits f32[B, T, V] after hidden states [rows, T, D].

    Args:
      variables: as above.
      h: of the rows of the net.
      place: of the units that these are the laws of: int or i32[] for all,
        i32[B] for each example, or i32[B, T].
    """
    head = self.net.bind(variables).head
    if self.scales is None:
      return head.logits(h)
    return head.guided(*self._states(h), self._scale(place))

  def _states(self, h: Array) -> tuple[Array, Array]:
    """Hidden states with the condition and without."""
    return pairs.split(h.astype(jnp.float32))

  def _scale(self, place: Array | int) -> Array:
    """f32[1 | B, 1 | T, 1]: of guidance at these places."""
    scale = jnp.asarray(self.scales)[place]
    return scale[..., None] if scale.ndim == 2 else scale.reshape(-1, 1, 1)

  def _draw(
    self,
    variables: Vars,
    h: Array,
    s: Array | int,
    keys: Array,
    bias: Array | None,
  ) -> Array:
    """Unit s of each example, [B, ...], after hidden states [rows, 1, D]."""
    options = dict(self.law)
    if bias is not None:
      options["bias"] = bias
    if self.scales is not None:
      h, null = self._states(h)
      options.update(h_null=null, scale=self._scale(s))
    units = self.net.bind(variables).head.draw(h, keys, **options)[:, 0]
    if self.forced is None:
      return units
    given = jnp.asarray(self.forced)[s]
    given = given.reshape(-1, *(1,) * (units.ndim - 1))
    return jnp.where(given >= 0, given, units)
