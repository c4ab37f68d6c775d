"""A text as the ids of the vocabulary that the units have, too, as language
models that also draw read it; without it guidance begins at the image.

Shapes: B batch, P positions of the prefix, n ids of a text, L units, D width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pairs
from ar_jax.core.errors import UserError
from ar_jax.core.system import Vars
from ar_jax.encoders.text import right_aligned
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.prefix import Cond, Prefix
from ar_jax.families.token.program import TokenProgram
from ar_jax.nn.layers.cache import Cache

Array = jax.Array


class Ids(Prefix):
  """Ids of a text and, last, the one that begins an image; read by the table of
  the units, without parameters of its own. The padding is in front, so that
  text and image are one line.

  Attributes:
    length: P.
    reader: of units, the very module that the net has.
    start: the id that begins an image.
    pad: the id that fills a text up.
    field: where the ids i32[B, n] are in a batch, n < P.
  """

  length: int
  reader: nn.Module
  start: int
  pad: int = 1
  field: str = "text"
  labels = None

  @property
  def fields(self) -> tuple[str, ...]:
    return (self.field,)

  def example(self) -> Cond:
    return {self.field: jnp.full((1, self.length - 1), self.pad, jnp.int32)}

  def valid(self, cond: Cond) -> Array:
    return self._ids(cond)[1]

  def without(self, cond: Cond, hidden: Array) -> Cond:
    """The condition with no text where `hidden` bool[B] is set: its positions
    are then padding, as there is no id that stands for none."""
    ids = cond[self.field]
    return {**cond, self.field: jnp.where(hidden[:, None], self.pad, ids)}

  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[B, P, D]."""
    if hidden is not None:
      cond = self.without(cond, hidden)
    return self.reader(self._ids(cond)[0])

  def _ids(self, cond: Cond) -> tuple[Array, Array]:
    ids = jnp.asarray(cond[self.field])
    if not jnp.issubdtype(ids.dtype, jnp.integer) or ids.ndim != 2:
      raise UserError(
        f"{self.field}: {ids.dtype} of shape {ids.shape}; this model reads "
        "ids, i32[B, n]"
      )
    ids, seen = right_aligned(ids, ids != self.pad, self.length - 1)
    behind = ((0, 0), (0, 1))
    ids = jnp.pad(ids, behind, constant_values=self.start)
    return ids, jnp.pad(seen, behind, constant_values=True)


def without(net: NextToken, cond: Cond, hidden: Array | None) -> tuple:
  """(cond, hidden) as the net takes them: where its prefix has ids, what is
  hidden is no part of the sequence."""
  if hidden is None or not isinstance(net.prefix, Ids):
    return cond, hidden
  return net.prefix.without(cond, hidden), None


class PromptProgram(TokenProgram):
  """A `TokenProgram` whose rows without a condition have no text at all, where
  the prefix is `Ids`."""

  def read(
    self, variables: Vars, cond: Cond, units: Array, spare: int = 0
  ) -> tuple[Array, Cache, Array | None]:
    """As there."""
    if self.scales is None or not isinstance(self.net.prefix, Ids):
      return super().read(variables, cond, units, spare)
    both = self.rows({k: jnp.asarray(v) for k, v in cond.items()})
    both = self.net.prefix.without(both, pairs.without(len(units)))
    net = self.net.bind(variables)
    h, cache = net.read(both, self.rows(units), None, spare)
    return h, cache, net.prefix.valid(both)
