"""Where the codes of an image lie among other symbols: starts, sizes, ends of
rows, which are known beforehand.

Shapes: B batch, N codes of an image, L units, V codes.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan

Array = jax.Array
NAMES = ("codes", "rows", "chameleon")


@dataclasses.dataclass(frozen=True)
class Layout:
  """What stands where. Units are numbers below `vocab`.

  Attributes:
    grid: sides of the map of codes.
    codes: V.
    vocab: of codes and symbols, and perhaps of words.
    first: the unit of code 0; that of code i is i more.
    before: symbols before the first row.
    newline: the symbol behind each row; None for none.
    after: symbols behind the last row.
  """

  grid: tuple[int, int]
  codes: int
  vocab: int
  first: int = 0
  before: tuple[int, ...] = ()
  newline: int | None = None
  after: tuple[int, ...] = ()

  @functools.cached_property
  def template(self) -> np.ndarray:
    """i32[L]: the symbol at each place, -1 where a code is."""
    across = [-1] * self.grid[1]
    row = across if self.newline is None else [*across, self.newline]
    every = [*self.before, *row * self.grid[0], *self.after]
    return np.array(every, np.int32)

  @property
  def places(self) -> np.ndarray:
    """i64[N]: where the codes are."""
    return np.flatnonzero(self.template < 0)

  @property
  def plain(self) -> bool:
    """Whether there is nothing but codes."""
    return len(self.template) == len(self.places)

  @property
  def plan(self) -> Plan:
    """One unit a step: on a grid where all are codes, else on a line."""
    if self.plain:
      return makers.raster(*self.grid)
    return makers.blocks(len(self.template), 1)

  @property
  def forced(self) -> tuple[int, ...] | None:
    """What `TokenProgram.forced` is; None where nothing is known."""
    return None if self.plain else tuple(self.template.tolist())

  def units(self, codes: Array) -> Array:
    """i32[B, L] of codes i32[B, N], row by row."""
    own = jnp.asarray(np.maximum(self.template, 0))[None]
    units = jnp.repeat(own, len(codes), axis=0)
    return units.at[:, self.places].set(codes + self.first)

  def of_units(self, units: Array) -> Array:
    """Codes i32[B, N] of units i32[B, L]; what is none becomes the nearest."""
    return jnp.clip(units[:, self.places] - self.first, 0, self.codes - 1)

  def bias(self) -> Array | None:
    """f32[vocab], which forbids all that is no code; None where all are."""
    if self.codes == self.vocab:
      return None
    ids = np.arange(self.vocab) - self.first
    inside = (ids >= 0) & (ids < self.codes)
    return jnp.asarray(np.where(inside, 0.0, -1e30), jnp.float32)

  def allowed(self, logits: Array) -> Array:
    """Logits f32[B, L, vocab], -inf where a unit cannot be: what is drawn."""
    if self.plain and self.codes == self.vocab:
      return logits
    ids, known = np.arange(self.vocab)[None], self.template[:, None]
    code = (ids >= self.first) & (ids < self.first + self.codes)
    free = np.where(known < 0, code, ids == known)
    return jnp.where(jnp.asarray(free)[None], logits, -jnp.inf)


def layout(name: str, codec: Any) -> Layout:
  """A layout by its name, of the codes of a tokenizer.

  Args:
    name: "codes", nothing else; "rows", a newline behind each row and an end;
      "chameleon", as Lumina-mGPT and ARRA write an image in the vocabulary of
      Chameleon (arXiv 2405.09818): its height and width in 32 pixels, rows
      with newlines, its end and the end of the turn. What begins an image is
      the last symbol of the prompt.
    codec: of codes on one grid.

  Raises:
    UserError: there is no such layout, or it does not fit.
  """
  check_choice("layout", name, NAMES)
  if not hasattr(codec, "grid") or codec.vocab is None:
    raise UserError(f"layout={name!r}: it is of codes on one grid")
  grid, vocab = tuple(codec.grid), codec.vocab
  if name == "codes":
    return Layout(grid, vocab, vocab)
  if name == "rows":
    return Layout(grid, vocab, vocab + 2, newline=vocab, after=(vocab + 1,))
  if vocab > CHAMELEON["codes"] or any(side % 2 for side in grid):
    raise UserError(
      f"layout='chameleon': {vocab} codes on {grid[0]} x {grid[1]}; it has "
      f"room for {CHAMELEON['codes']}, on even sides"
    )
  sizes = tuple(CHAMELEON["size"] + side // 2 for side in grid)
  return Layout(
    grid,
    vocab,
    CHAMELEON["vocab"],
    CHAMELEON["first"],
    sizes,
    CHAMELEON["newline"],
    CHAMELEON["after"],
  )


# Units of Chameleon's vocabulary: code i is 4 + i, a side of 32 n pixels is
# 8804 + n, `after` are the ends of an image and of a turn, and `hybrid` is one
# that is reserved.
CHAMELEON = dict(
  vocab=65_536,
  codes=8_192,
  first=4,
  size=8_804,
  newline=8_803,
  after=(8_196, 8_710),
  start=8_197,
  pad=1,
  hybrid=8_799,
)
