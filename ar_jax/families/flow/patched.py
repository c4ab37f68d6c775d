"""Generators whose positions are patches of the units of a tokenizer.

Shapes: B batch, L units of C channels on a grid, p side of a patch, n = L / p^2
patches of p p C numbers.
"""

from __future__ import annotations

import jax.numpy as jnp

from ar_jax.core.signals.patches import cut, join
from ar_jax.core.system import Array, UserError, Vars
from ar_jax.families.base import Generator


class Patched(Generator):
  """A generator of patches of continuous units. Its units, as `encode` gives
  them, are the moments of the patches, f32[B, n, 2 p p C].

  Attributes:
    patch: p; 1 for units as they are, which need no grid.
  """

  patch: int

  @property
  def classes(self) -> int | None:
    labels = self.net.labels
    return labels and labels - (self.label_dropout > 0)

  def tokenize(self, variables: Vars, x: Array) -> Array:
    moments = self.codec(variables).moments(x)
    halves = jnp.split(moments, 2, -1)
    return jnp.concatenate([self._cut(half) for half in halves], -1)

  def decode(self, variables: Vars, units: Array) -> Array:
    if self.patch > 1:
      h, w = shape(self.tokenizer, self.patch)[1]
      units = join(units.reshape(len(units), h, w, -1), self.patch)
      units = units.reshape(len(units), -1, units.shape[-1])
    return super().decode(variables, units)

  def _cut(self, x: Array) -> Array:
    if self.patch == 1:
      return x
    x = cut(x.reshape(len(x), *self.tokenizer.grid, -1), self.patch)
    return x.reshape(len(x), -1, x.shape[-1])


def shape(tokenizer, patch: int) -> tuple[int, tuple[int, int] | None, int]:
  """(n, their grid or None, p p C) of the patches of a tokenizer.

  Raises:
    UserError: its units are codes, or do not divide into such patches.
  """
  if tokenizer.vocab is not None:
    raise UserError(
      "tokenizer: its units are codes; a flow draws vectors, as of kl_vae, "
      "patches or series"
    )
  grid = getattr(tokenizer, "grid", None)
  if patch > 1 and (grid is None or grid[0] % patch or grid[1] % patch):
    raise UserError(f"patch={patch}: does not divide the units {grid}")
  channels = patch**2 * tokenizer.channels
  if grid is None:
    return tokenizer.length, None, channels
  grid = grid[0] // patch, grid[1] // patch
  return grid[0] * grid[1], grid, channels
