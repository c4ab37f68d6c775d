"""A prefix of what an encoder sees in images, and the words of a question.

Shapes: B batch, N places of all images, P positions, C channels of features, D
width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError
from ar_jax.families.token.prefix import Cond, Prefix

Array = jax.Array


class Looking(Prefix):
  """Features through linear, exact GELU, linear (LLaVA-1.5, arXiv 2310.03744),
  and behind them ids of words, each with a row for its place; a text is filled
  up with `stop`, which nothing sees.

  Attributes:
    count: N.
    channels: C.
    words: ids at most.
    width: D.
    reader: of the ids, the very module that the net has.
    stop: the id that ends a question.
    stddev: initial standard deviation.
  """

  count: int
  channels: int
  words: int
  width: int
  reader: nn.Module
  stop: int = 0
  stddev: float = 0.02
  fields = ("features", "question")
  labels = None

  @property
  def length(self) -> int:
    """P."""
    return self.count + self.words

  def example(self) -> Cond:
    return {
      "features": jnp.zeros((1, self.count, self.channels)),
      "question": jnp.full((1, self.words), self.stop, jnp.int32),
    }

  def valid(self, cond: Cond) -> Array:
    words = jnp.cumsum(self._ids(cond) == self.stop, axis=1) == 0
    return jnp.pad(words, ((0, 0), (self.count, 0)), constant_values=True)

  @nn.compact
  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[B, P, D]; nothing is hidden."""
    del hidden
    given = cond["features"]
    if given.shape[1:] != (self.count, self.channels):
      raise UserError(
        f"features of shape {given.shape[1:]}: this model looks at "
        f"{self.count} places of {self.channels} numbers"
      )
    init = nn.initializers.normal(self.stddev)
    dense = lambda name: nn.Dense(self.width, kernel_init=init, name=name)
    seen = dense("fc2")(nn.gelu(dense("fc1")(given), approximate=False))
    asked = self.reader(self._ids(cond))
    asked = asked + self._rows("places", self.words)[None]
    return jnp.concatenate([seen, asked], axis=1)

  def _ids(self, cond: Cond) -> Array:
    ids = cond["question"]
    spare = self.words - ids.shape[1]
    if spare < 0 or not jnp.issubdtype(ids.dtype, jnp.integer):
      raise UserError(
        f"question: {ids.dtype} of {ids.shape[1]} positions; this model reads "
        f"at most {self.words} ids of words"
      )
    return jnp.pad(ids, ((0, 0), (0, spare)), constant_values=self.stop)
