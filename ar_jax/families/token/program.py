"""How a `NextToken` draws: one unit a step, guided, cached, ragged.

Shapes: B examples, P positions of the prefix, L units, M known units, V codes.
The rows of the net are the examples or, with guidance, their
`core.decoding.pairs`.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pairs, pick, programs, steps
from ar_jax.core.errors import UserError
from ar_jax.core.system import Vars
from ar_jax.families.token.net import NextToken
from ar_jax.nn.layers.cache import Cache

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class TokenProgram:
  """A `programs.Program`; `variables` are those of the net, `cond` is what its
  prefix takes.

  Attributes:
    net: the transformer.
    scales: of guidance, one for each unit; None is off.
    law: arguments of `pick.law`, as a tuple of pairs.
  """

  net: NextToken
  scales: tuple[float, ...] | None = None
  law: tuple[tuple[str, float], ...] = ()

  @property
  def length(self) -> int:
    """L."""
    return len(self.net.plan)

  def begin(self, variables: Vars, cond: Array, keys: Array) -> tuple:
    """(carry, i32[B]): reads the condition and draws the first unit."""
    h, cache, valid = self.read(variables, cond)
    first = self._draw(variables, h[:, -1:], 0, keys)
    return (cache, first, valid), first

  def step(self, variables: Vars, carry: tuple, s: Array, keys: Array) -> tuple:
    """(carry, i32[B]): reads unit s - 1 and draws unit s, s i32[] or i32[B].

    The carry is the cache, the unit that is not yet in it, and which
    positions of the prefix are no padding.
    """
    cache, units, valid = carry
    rows = self.rows(units[:, None])
    h, cache = self.net.bind(variables).step(rows, cache, valid)
    units = self._draw(variables, h, s, keys)
    return (cache, units, valid), units

  def run(self, variables: Vars, cond: Array, keys: Array) -> Array:
    """Units i32[B, L]; the null rows are dropped where guidance stops."""
    alone = dataclasses.replace(self, scales=None)
    guided = self._guided()
    variables = self.net.ready(variables, len(keys) * (1 + bool(guided)))
    if not guided:
      return programs.run(alone, variables, cond, keys)
    if guided == self.length:
      return programs.run(self, variables, cond, keys)
    carry, first = self.begin(variables, cond, steps.fold(keys, 0))
    step = functools.partial(self.step, variables)
    carry, early = steps.scan_steps(step, carry, guided - 1, keys, start=1)
    cache, units, valid = carry
    valid = None if valid is None else valid[::2]
    cache = cache.rows(slice(None, None, 2))
    step = functools.partial(alone.step, variables)
    _, late = steps.scan_steps(
      step,
      (cache, units, valid),
      self.length - guided,
      keys,
      start=guided,
    )
    return jnp.concatenate([first[:, None], early, late], axis=1)

  def complete(
    self,
    variables: Vars,
    cond: Array,
    prompt: Array,
    known: Array,
    keys: Array,
  ) -> Array:
    """Units i32[B, L] of images that are known in part.

    A ragged batch: every row goes on from where its own prompt ends, and
    what it draws is what it would draw alone.

    Args:
      variables, cond: as above.
      prompt: i32[B, M], the first units of each image.
      known: i32[B], how many of them to keep, 0 ... M.
      keys: Key[B].

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
    first = self._draw(variables, h, known, steps.fold(keys, known))
    rest = ((0, 0), (0, self.length - prompt.shape[1]))
    units = jnp.pad(prompt, rest).at[jnp.arange(len(known)), known].set(first)
    step = functools.partial(self.step, variables)
    stop = self.length - jnp.min(known)
    return steps.fill_steps(
      step, (cache, first, valid), units, 1, stop, keys, known
    )[1]

  def rows(self, x: Array) -> Array:
    """What belongs to the examples, [B, ...], for the rows of the net."""
    return pairs.double(x, self.scales is not None)

  def _guided(self) -> int:
    """The units up to the last one with guidance."""
    on = [s for s, scale in enumerate(self.scales or ()) if scale != 1.0]
    return on[-1] + 1 if on else 0

  def read(
    self,
    variables: Vars,
    cond: Array,
    units: Array | None = None,
    spare: int = 0,
  ) -> tuple[Array, Cache, Array | None]:
    """Reads the condition, and units behind it, into a new cache.

    Args:
      variables, cond: as above.
      units: i32[B, M], M < L; None for none.
      spare: rows of the cache beyond those of an image.

    Returns:
      Hidden states [rows, P + M, D], the cache, and what is no padding.

    Raises:
      UserError: M is not below L.
    """
    if units is not None and units.shape[1] >= self.length:
      raise UserError(
        f"a prompt of {units.shape[1]} units: an image has {self.length}, "
        "and at least one must be left to draw"
      )
    net, cond, hidden = self.net.bind(variables), jnp.asarray(cond), None
    if self.scales is not None:
      hidden = pairs.without(len(cond))
    cond = self.rows(cond)
    units = None if units is None else self.rows(units)
    h, cache = net.read(cond, units, hidden, spare)
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
    if self.scales is not None:
      # The head is linear: guiding its input guides the logits, at half the
      # cost.
      scale = jnp.asarray(self.scales)[place]
      scale = scale[..., None] if scale.ndim == 2 else scale.reshape(-1, 1, 1)
      h = pick.guide(*pairs.split(h.astype(jnp.float32)), scale)
    return head.logits(h)

  def _draw(
    self, variables: Vars, h: Array, s: Array | int, keys: Array
  ) -> Array:
    """Unit s of each example, i32[B], after hidden states [rows, 1, D]."""
    logp = pick.law(self.logits(variables, h, s), **dict(self.law))
    return pick.draw(logp, keys)[:, 0]
