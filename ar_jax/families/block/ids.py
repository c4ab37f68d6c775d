"""Ids in front of the blocks of a video, in the very vocabulary of its units:
a class, or the ids of a text.

Shapes: B batch, P ids, W of them that there are, D width.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.families.token.prefix import Cond, Nothing, Prefix, shown

Array = jax.Array


class Ids(Prefix):
  """Rows of the table of the units, all of which see each other.

  Attributes:
    count: P.
    words: W.
    offset: the row of the first id.
    reader: of the units, the very module that the net has.
    width: D.
    field: where they are in a batch, i32[B, n] with n at most P; or "label",
      i32[B], a class in place of a text.
    guided: whether there are rows that stand for no condition, `null`.
    pad: the id that fills up a text; 0 if None.
    sees_padding: whether it is read as all others are. So do the published
      models, by a slip in their mask.
    names: the ids of the text of every class, which is then given by "label";
      None where it is read from the batch.
  """

  count: int
  words: int
  offset: int
  reader: nn.Module
  width: int
  field: str = "label"
  guided: bool = True
  pad: int | None = None
  sees_padding: bool = True
  names: tuple[tuple[int, ...], ...] | None = None
  stddev: float = 0.02
  causal = False

  def setup(self):
    if self.guided:
      self.null = self._rows("null", self.count)

  @property
  def fields(self) -> tuple[str, ...]:
    return (self.field,)

  @property
  def length(self) -> int:
    return self.count

  @property
  def labels(self) -> int | None:
    """Classes, and none; of texts None."""
    if self.field != "label":
      return None
    return self._classes + self.guided

  @property
  def _classes(self) -> int:
    return self.words if self.names is None else len(self.names)

  def example(self) -> Cond:
    shape = (1,) if self.field == "label" else (1, self.count)
    return {self.field: jnp.zeros(shape, jnp.int32)}

  def valid(self, cond: Cond) -> Array | None:
    if self.sees_padding or (self.field == "label" and self.names is None):
      return None
    return self._ids(cond) != (self.pad or 0)

  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[B, P, D]; where `hidden` bool[B], of no condition."""
    ids = self._ids(cond)
    x = self.reader(self.offset + jnp.clip(ids, 0, self.words - 1))
    if not self.guided:
      return x
    if self.field == "label":  # the one behind all classes is none
      none = cond["label"] == self._classes
      hidden = none if hidden is None else hidden | none
    return shown(x, hidden, self.null)

  def _ids(self, cond: Cond) -> Array:
    ids = jnp.asarray(cond[self.field])
    if self.field == "label" and self.names is None:
      return ids[:, None]
    if self.field == "label":
      ids = jnp.take(jnp.asarray(self.names), ids, axis=0, mode="clip")
    spare = self.count - ids.shape[1]
    if spare < 0 or not jnp.issubdtype(ids.dtype, jnp.integer):
      raise UserError(
        f"{self.field}: {ids.dtype} of {ids.shape[1]} positions; this model "
        f"reads at most {self.count} ids"
      )
    return jnp.pad(ids, ((0, 0), (0, spare)), constant_values=self.pad or 0)


def prefix(
  table: nn.Module,
  offset: int,
  classes: int,
  text: Mapping[str, Any] | None,
  guided: bool,
) -> Prefix:
  """The condition of a net.

  Args:
    table: of all ids.
    offset: the row of the first id of a condition.
    classes: how many there are, 0 for none.
    text: in place of them, "length" and "words", perhaps "pad" and
      "sees_padding", see `Ids`; and perhaps "names", a file of the ids of every
      class.
    guided: whether there are rows that stand for no condition.

  Raises:
    UserError: `text` has something else, or its file cannot be read.
  """
  if not (classes or text):
    return Nothing(table.width)
  if not text:
    return Ids(1, classes, offset, table, table.width, "label", guided)
  rest = dict(text)
  try:
    count, words = rest.pop("length"), rest.pop("words")
    field, path = "text", rest.pop("names", "")
    if path:
      field, rest["names"] = "label", class_names(path, count, words)
    return Ids(count, words, offset, table, table.width, field, guided, **rest)
  except (KeyError, TypeError) as e:
    raise UserError(
      f"text={dict(text)}: has length and words, perhaps pad, sees_padding and "
      "names"
    ) from e


def class_names(
  path: str, length: int, words: int
) -> tuple[tuple[int, ...], ...]:
  """The ids of the text of every class, of a .npy file i32[classes, P].

  Raises:
    UserError: there is no such file, or it holds something else.
  """
  try:
    ids = np.load(pathlib.Path(path).expanduser(), allow_pickle=False)
  except (OSError, ValueError) as e:
    raise UserError(f"text.names={path!r}: cannot be read ({e})") from e
  whole = np.issubdtype(ids.dtype, np.integer) and ids.ndim == 2
  if not whole or ids.shape[1] != length or not len(ids):
    raise UserError(
      f"text.names={path!r}: {ids.dtype} of shape {ids.shape}; it must hold a "
      f"row of {length} ids for each class"
    )
  if ids.min() < 0 or ids.max() >= words:
    raise UserError(
      f"text.names={path!r}: ids {ids.min()} to {ids.max()}; text.words={words}"
    )
  return tuple(map(tuple, ids.tolist()))
