"""A prompt that a decoder reads as it reads any text: causally, and without a
place where the text would be an attachment.

Shapes: B batch, n ids of a text, P positions, D width, V ids.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError
from ar_jax.encoders.text import right_aligned
from ar_jax.families.token.prefix import Cond, Prefix

Array = jax.Array


class Prompt(Prefix):
  """Ids of a text, each a row of a table, with nothing else added to them
  (Janus, arXiv 2410.13848).

  Shorter texts are filled up in front, and no position sees the filling, so
  that with rotary positions a text says the same at any length. Of no text is
  a prompt whose ids between the first and the last are padding, which is seen.

  Attributes:
    length: P, with `begin` and `tag`.
    width: D.
    reader: a table of V rows.
    pad: the id of padding that is seen.
    fill: the id that fills a text up where it comes from, at its end or in
      front.
    begin: the id put before every text; None where texts bring their own.
    tag: the id put behind it, which says that an image begins; likewise.
    field: where the ids i32[B, n] are in a batch.
  """

  length: int
  width: int
  reader: nn.Module
  pad: int
  fill: int = 0
  begin: int | None = None
  tag: int | None = None
  field: str = "text"
  causal = True
  labels = None

  @property
  def fields(self) -> tuple[str, ...]:
    return (self.field,)

  @property
  def room(self) -> int:
    """How long a text may be."""
    own = (self.begin is not None) + (self.tag is not None)
    return self.length - own

  def example(self) -> Cond:
    return {self.field: jnp.full((1, self.room), self.fill, jnp.int32)}

  def valid(self, cond: Cond) -> Array:
    return self.ids(cond)[1]

  def ids(self, cond: Cond, hidden: Array | None = None) -> tuple[Array, Array]:
    """(i32[B, P], bool[B, P] which of them are no filling); where `hidden`
    bool[B], of no text.

    Raises:
      UserError: the text has no ids, or too many.
    """
    text = jnp.asarray(cond[self.field])
    if not jnp.issubdtype(text.dtype, jnp.integer) or text.ndim != 2:
      raise UserError(
        f"{self.field}: {text.dtype} of shape {text.shape}; this model reads "
        f"ids of words, at most {self.room} of an example"
      )
    text = jnp.asarray(text, jnp.int32)
    ids, real = right_aligned(text, text != self.fill, self.room)
    column = lambda value: jnp.full((len(ids), 1), value, jnp.int32)
    if self.begin is not None:  # just before the first word
      ids = jnp.concatenate([column(0), ids], 1)
      real = jnp.concatenate([column(0) > 0, real], 1)
      count = jnp.sum(real, 1, keepdims=True)
      first = jnp.arange(ids.shape[1])[None] == ids.shape[1] - 1 - count
      ids, real = jnp.where(first, self.begin, ids), real | first
    if self.tag is not None:
      ids = jnp.concatenate([ids, column(self.tag)], 1)
      real = jnp.concatenate([real, column(1) > 0], 1)
    if hidden is not None:
      first = real & (jnp.cumsum(real, 1) == 1)
      last = jnp.arange(self.length)[None] == self.length - 1
      inside = real & ~first & ~last
      ids = jnp.where(inside & hidden[:, None], self.pad, ids)
    return jnp.where(real, ids, self.pad), real

  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[B, P, D]."""
    return self.reader(self.ids(cond, hidden)[0])
