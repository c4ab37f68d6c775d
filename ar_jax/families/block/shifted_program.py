"""How a `NextBlock` draws: its first block by units, then a block a forward.

Units of a block are drawn independently of each other, so what is drawn does
not follow the law of one unit after the other: only that of each unit given
the blocks before is learned.

Shapes: B examples, rows of the net (B, or 2 B pairs where guided), L units, N
units of a block, M known units, V codes.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pairs, pick, steps
from ar_jax.core.errors import UserError
from ar_jax.core.system import Vars
from ar_jax.families.block.shifted import NextBlock
from ar_jax.families.token.prefix import Cond

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class NextBlockProgram:
  """Hashable; `variables` are those of the net, `cond` is what its prefix
  takes.

  Attributes:
    net: the transformer.
    scales: of guidance, one for each step of the plan; None is off.
    law: arguments of `pick.law`, as a tuple of pairs.
    merged: whether ids of texts and of what is special may be drawn as well,
      as the published samplers have it; else they are impossible.
  """

  net: NextBlock
  scales: tuple[float, ...] | None = None
  law: tuple[tuple[str, float], ...] = ()
  merged: bool = False

  def run(
    self,
    variables: Vars,
    cond: Cond,
    keys: Array,
    known: Array | None = None,
    bias: Array | None = None,
  ) -> Array:
    """The ids i32[B, L] of the units of one example per key.

    Args:
      variables, cond: as above.
      keys: Key[B].
      known: i32[B, M], the ids of first blocks that are given; None for none.
      bias: f32[V] or f32[B, V], see `pick.biased`.

    Raises:
      UserError: M is not whole blocks, or not below L, or 0 where the first
        block must be given.
    """
    net, size, length = self.net, self.net.block, len(self.net.plan)
    if known is None:
      known = jnp.zeros((len(keys), 0), jnp.int32)
    count = known.shape[1]
    if count % size or count >= length or not (count or net.hybrid):
      raise UserError(
        f"{count} known units: blocks are of {size}, and an example of {length}"
        ", of which one block at least must be left to draw"
        + ("" if net.hybrid else " and one be given")
      )
    rows = pairs.double(keys, self.scales is not None)
    variables = net.ready(variables, len(rows) * size)
    bound, hidden = net.bind(variables), None
    if self.scales is not None:
      hidden = pairs.without(len(keys))
    cond = self._rows({k: jnp.asarray(v) for k, v in cond.items()})
    valid = net.prefix.valid(cond)
    h, cache = bound.begin(cond, self._rows(known), hidden)
    draw = functools.partial(self._draw, bound, bias)

    def step(carry, s, keys):
      ids, cache = carry
      h, cache = bound.step(self._rows(ids), cache, valid)
      ids = draw(h, s, keys)
      return (ids, cache), ids

    run = functools.partial(steps.scan_steps, step)
    at = count // size + (size - 1 if net.hybrid else 0) if count else 0
    parts, ids = [known], draw(h, at, steps.fold(keys, at))
    parts.append(ids)
    if not count and size > 1:
      (ids, cache), more = run((ids, cache), size - 1, keys, start=1)
      parts.append(more.reshape(len(keys), -1))
      at = size - 1
      # The rows m once, and from then on what is drawn.
      ids = jnp.concatenate([ids, net.middle(len(keys))], 1)
    left = length // size - (count or size) // size - (count > 0)
    if left:
      _, more = run((ids, cache), left, keys, start=at + 1)
      parts.append(more.reshape(len(keys), -1))
    return jnp.concatenate(parts, axis=1)

  def _rows(self, x):
    return pairs.double(x, self.scales is not None)

  def _draw(
    self,
    net: NextBlock,
    bias: Array | None,
    h: Array,
    s: Array | int,
    keys: Array,
  ) -> Array:
    """i32[B, T]: ids of step s after hidden states [rows, T, D]."""
    scale = None if self.scales is None else jnp.asarray(self.scales)[s]
    logits = net.head.logits(pairs.guided(h.astype(jnp.float32), scale))
    if not self.merged:
      logits = logits.at[..., : net.first].set(-1e30)
    if bias is not None:
      room = [(0, 0)] * (jnp.ndim(bias) - 1) + [(net.first, 0)]
      bias = jnp.pad(jnp.asarray(bias, jnp.float32), room)
    law = dict(self.law)
    logits = pick.biased(logits, bias, law.get("temperature", 1.0))
    return pick.draw(pick.law(logits, **law), keys)
