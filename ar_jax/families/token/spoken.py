"""What CLEAR (arXiv 2508.19098) has around the units of a `NextToken`: a text
to be spoken before them, and a flag that ends them; and how it draws.

Shapes: B batch, W symbols of a text at most, P = W + 2 positions of the prefix,
L units at most, C channels of a unit, D width.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import steps
from ar_jax.core.errors import UserError
from ar_jax.core.system import Vars
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.prefix import Cond, Prefix
from ar_jax.families.token.program import TokenProgram

Array = jax.Array


class Script(Prefix):
  """A learned row, the symbols of a text, and another learned row.

  A text stands at the front and is filled up with `stop`, which nothing sees.
  What stands for no text are zeros in the place of its symbols: as many, so
  that everything behind them lies where it lay.

  Attributes:
    symbols: W.
    vocab: rows of the table of symbols.
    width: D.
    field: where the ids i32[B, n] are in a batch, n at most W.
    stop: the id that ends a text.
    stddev: initial standard deviation.
  """

  symbols: int
  vocab: int
  width: int
  field: str = "text"
  stop: int = 0
  stddev: float = 0.02
  labels = None

  @property
  def length(self) -> int:
    return self.symbols + 2

  @property
  def fields(self) -> tuple[str, ...]:
    return (self.field,)

  def example(self) -> Cond:
    return {self.field: jnp.full((1, self.symbols), self.stop, jnp.int32)}

  def valid(self, cond: Cond) -> Array:
    text = jnp.cumsum(self._ids(cond) == self.stop, axis=1) == 0
    return jnp.pad(text, ((0, 0), (1, 1)), constant_values=True)

  @nn.compact
  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[B, P, D]; where `hidden` bool[B], of no text."""
    ids = self._ids(cond)
    init = nn.initializers.normal(self.stddev)
    table = nn.Embed(self.vocab, self.width, embedding_init=init, name="text")
    x = table(ids)
    if hidden is not None:
      x = jnp.where(hidden[:, None, None], 0.0, x)
    ends = jnp.broadcast_to(self._rows("ends", 2), (len(x), 2, self.width))
    return jnp.concatenate([ends[:, :1], x, ends[:, 1:]], axis=1)

  def _ids(self, cond: Cond) -> Array:
    ids = cond[self.field]
    spare = self.symbols - ids.shape[1]
    if spare < 0 or not jnp.issubdtype(ids.dtype, jnp.integer):
      raise UserError(
        f"{self.field}: {ids.dtype} of {ids.shape[1]} positions; this model "
        f"reads at most {self.symbols} ids of symbols"
      )
    return jnp.pad(ids, ((0, 0), (0, spare)), constant_values=self.stop)


class Ending(NextToken):
  """A `NextToken` whose units are as many as it says: `stop` is read before
  each unit and says whether it is the last.

  Attributes:
    stop: hidden states [..., D] -> logits [..., 1].
  """

  stop: nn.Module | None = None

  def ends(self, h: Array) -> Array:
    """Logits f32[B, T] of hidden states [B, T, D] before units, that these are
    the last ones."""
    return self.stop(h.astype(jnp.float32))[..., 0]


@dataclasses.dataclass(frozen=True)
class UntilStopped(TokenProgram):
  """A `TokenProgram` of an `Ending`, of vectors.

  Attributes:
    threshold: the chance of a stop above which a unit is the last.
    most: units at most; L if None.
  """

  threshold: float = 0.5
  most: int | None = None

  def opened(
    self,
    variables: Vars,
    cond: Cond,
    known: Array | None = None,
    count: Array | None = None,
  ) -> tuple:
    """The carry of `next`: reads the condition and, behind it, units that are
    known already.

    Args:
      variables: of the net.
      cond: what its prefix takes.
      known: f32[B, M, C], M < L; None for none.
      count: i32[B], how many of these each example has.
    """
    b = len(next(iter(cond.values())))
    units = self.net.units.blank(b, 0) if known is None else known
    h, cache, valid = self.read(variables, cond, units)
    room = jnp.full(b, self.most or self.length)
    if known is None:
      return h[:, -1:], cache, valid, room
    count = jnp.clip(count, 0, known.shape[1])
    # A row is as long as what it knows; what lies behind is written again.
    at = self.net.prefix.length + self.rows(count)
    h = jnp.take_along_axis(h, at[:, None, None] - 1, axis=1)
    cache = dataclasses.replace(cache, index=at)
    return h, cache, valid, jnp.minimum(room, self.length - count)

  def next(self, variables: Vars, carry: tuple, s: Array, keys: Array) -> tuple:
    """(carry, f32[B, C], bool[B]): draws unit s, counted behind those that are
    known, says whether it is the last, and reads it."""
    h, cache, valid, room = carry
    net = self.net.bind(variables)
    units = self._draw(variables, h, 0, keys, None)
    own = h if self.scales is None else h[::2]  # that with the condition
    chance = jax.nn.sigmoid(net.ends(own)[:, 0])
    ends = (chance > self.threshold) | (s + 1 >= room)
    h, cache = net.step(self.rows(units[:, None]), cache, valid)
    return (h, cache, valid, room), units, ends

  def until(self, variables: Vars, carry: tuple, keys: Array) -> steps.Until:
    """Units f32[B, L, C] until the stop of each example."""
    rows = len(carry[0])
    ready = self.net.ready(variables, rows)
    step = functools.partial(self.next, ready)
    return steps.until_steps(step, carry, self.length, keys)


def joined(first: Array, second: Array, stop: int, length: int) -> Array:
  """i32[B, length]: two texts i32[B, n] each, the second behind the first, up
  to the `stop` of each. Texts are padded, so it is the caller who sees to it
  that the two have room; what has none is cut.

  Raises:
    UserError: either has places for more than `length`.
  """
  longest = max(first.shape[1], second.shape[1])
  if longest > length:
    raise UserError(
      f"a text of {longest} places: this model reads {length} in all"
    )
  count = jnp.sum(jnp.cumsum(first == stop, axis=1) == 0, axis=1)
  pad = lambda x: jnp.pad(
    x, ((0, 0), (0, length - x.shape[1])), constant_values=stop
  )
  at = jnp.arange(length)[None]
  behind = jnp.take_along_axis(
    pad(second), jnp.maximum(at - count[:, None], 0), axis=1
  )
  return jnp.where(at < count[:, None], pad(first), behind)


def kept(net: Any, x: Array) -> Array:
  """Units [B, T, C] as a net reads them: the codes, where its head has a law
  of codes."""
  snap = getattr(net.head, "snap", None)
  return x if snap is None else snap(x)
