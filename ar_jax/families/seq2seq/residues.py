"""Decoders of peptides that look at a spectrum: all slots at once, and residue
after residue (PrimeNovo, ContraNovo).

Symbols are 0 for nothing, 1 to 27 for residues, 28 for the stop; slots say
symbol - 1, or 27 for a blank. Both count from the C-terminus.

Shapes: B batch, T slots, L symbols at most with the stop, V = 29 symbols, D
width.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.domains import peptides
from ar_jax.core.plans import makers
from ar_jax.families.seq2seq.spectra import Waves, divided
from ar_jax.nn.layers.cross_attention import Memory
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array
VOCAB, STOP, BLANK = 29, 28, 27
CHARGES = 10
_PLACES = 2 * math.pi, 1e4  # wavelengths


def split_masses(released: bool) -> np.ndarray:
  """f32[V, 2]: the masses of symbols, whole numbers and the rest; 0 of the
  stop."""
  own = np.zeros(VOCAB)
  own[:STOP] = peptides.masses(released)
  whole = np.floor(own)
  return np.stack([whole, own - whole], -1).astype(np.float32)


def backwards(ids: Array) -> Array:
  """Symbols i32[B, N + 1] of peptides i32[B, N]: from the C-terminus, and a
  stop, 0 behind it."""
  ids = jnp.pad(ids, ((0, 0), (0, 1)))
  count = jnp.sum(jnp.cumprod(ids > 0, 1), 1)[:, None]
  at = jnp.arange(ids.shape[1])[None]
  back = jnp.take_along_axis(ids, jnp.maximum(count - 1 - at, 0), 1)
  return jnp.where(at < count, back, jnp.where(at == count, STOP, 0))


def forwards(symbols: Array) -> Array:
  """Peptides i32[B, N] of symbols i32[B, N + 1] up to their first stop or 0,
  from the N-terminus, 0 behind the end."""
  length = symbols.shape[1] - 1
  real = (symbols > 0) & (symbols != STOP)
  count = jnp.sum(jnp.cumprod(real, 1), 1)[:, None]
  count = jnp.minimum(count, length)
  at = jnp.arange(length)[None]
  back = jnp.take_along_axis(symbols, jnp.maximum(count - 1 - at, 0), 1)
  return jnp.where(at < count, back, 0)


def places(count: int, width: int) -> Array:
  """f32[1, count, D]."""
  at = jnp.arange(count, dtype=jnp.float32)
  at = jnp.stack([at, jnp.zeros(count)], -1)
  return Waves(width, *_PLACES)(at)[None]


class Precursor(nn.Module):
  """Waves of its mass and a row for its charge.

  Attributes:
    waves: of the mass.
  """

  waves: Waves

  @nn.compact
  def __call__(self, mass: Array, charge: Array) -> Array:
    """f32[B, D] of masses f32[B, 2] and charges f32[B], from 1."""
    table = nn.Embed(CHARGES, self.waves.width, name="charge")
    at = jnp.clip(charge.astype(jnp.int32) - 1, 0, CHARGES - 1)
    return self.waves(mass) + table(at)


class Slots(nn.Module):
  """T equal precursors, told apart by their places, that see each other and
  the spectrum.

  Attributes:
    stack: layers that look at a memory.
    width: D.
    slots: T.
    waves: of the precursor's mass.
  """

  stack: Backbone
  width: int
  slots: int
  waves: Waves

  def setup(self):
    self.precursor = Precursor(self.waves)
    self.final = nn.Dense(BLANK + 1)

  def __call__(self, mass: Array, charge: Array, memory: Memory) -> Array:
    """The last hidden states f32[B, T, D]."""
    first = self.precursor(mass, charge)[:, None]
    x = first + places(self.slots, self.width)
    return self.stack(x, None, memory=memory)[0]

  def remember(self, features: Array, seen: Array) -> Memory:
    """What the layers read of a spectrum; once."""
    return self.stack.remember(features, seen)

  def logits(self, h: Array) -> Array:
    """f32[B, T, 28] of hidden states."""
    return self.final(h.astype(jnp.float32))


class Residues(nn.Module):
  """Residue after residue, behind the precursor, with a cache.

  Attributes:
    stack: layers that look at a memory.
    width: D.
    length: L.
    waves: of the precursor's mass; as wide as the layers, or of half of it with
      `masses`.
    masses: whether a symbol is read with the mass so far and the mass that is
      left, a quarter of D each, and said by a product with what its own mass
      and a table make (ContraNovo).
  """

  stack: Backbone
  width: int
  length: int
  waves: Waves
  masses: bool = False

  def setup(self):
    size = self.waves.width
    self.precursor = Precursor(self.waves)
    self.symbols = nn.Embed(VOCAB, size)
    if not self.masses:
      self.final = nn.Dense(VOCAB)
      return
    self.said = nn.Embed(VOCAB, size)
    self.stop_mass = self.param("stop_mass", nn.initializers.normal(1.0), (1,))
    start = nn.initializers.constant(math.log(1 / 0.07))
    self.scale = self.param("scale", start, (1,))
    self.fc = [nn.Dense(n) for n in (512, 1024, 1024, self.width)]
    slope = nn.initializers.constant(0.25)
    self.slopes = self.param("slopes", slope, (3,))

  @property
  def _quarter(self) -> Waves:
    return dataclasses.replace(self.waves, width=self.width // 4)

  def remember(self, features: Array, seen: Array) -> Memory:
    """What the layers read; once for all calls."""
    return self.stack.remember(features, seen)

  def first(self, mass: Array, charge: Array) -> Array:
    """f32[B, D]: what stands before the first symbol."""
    x = self.precursor(mass, charge)
    if not self.masses:
      return x
    nothing = self._quarter(jnp.zeros_like(mass))
    return jnp.concatenate([x, nothing, nothing], -1)

  def read(self, ids: Array, so_far: Array, left: Array) -> Array:
    """f32[..., D] of symbols i32[...], with the masses f32[..., 2] up to them
    and behind them."""
    x = self.symbols(ids)
    if not self.masses:
      return x
    waves = self._quarter
    return jnp.concatenate([x, waves(so_far), waves(left)], -1)

  def sums(self, ids: Array, mass: Array) -> tuple[Array, Array]:
    """(masses f32[B, L, 2] of all symbols up to each of ids i32[B, L], and
    what a precursor of `mass` f32[B, 2] has left); the stop has none."""
    table = jnp.asarray(split_masses(self.waves.released))
    so_far = divided(jnp.cumsum(table[ids], axis=1))
    left = divided(mass[:, None] - so_far)
    real = ((ids != STOP) & (ids != 0))[..., None]
    zero = lambda x: jnp.where(real, x, 0.0)
    return zero(so_far), zero(left)

  def features(
    self,
    ids: Array,
    mass: Array,
    charge: Array,
    memory: Memory,
    sums: tuple[Array, Array] | None = None,
  ) -> Array:
    """f32[B, n + 1, D], before each of ids i32[B, n] and behind them.

    Args:
      ids: i32[B, n].
      mass, charge: of the precursor.
      memory: what `remember` returns.
      sums: what the method of this name returns; None for that.
    """
    so_far, left = self.sums(ids, mass) if sums is None else sums
    first = self.first(mass, charge)[:, None]
    x = jnp.concatenate([first, self.read(ids, so_far, left)], 1)
    count = x.shape[1]
    x = x + places(count, self.width)
    return self.stack(x, makers.blocks(count, 1), memory=memory)[0]

  def logits(self, h: Array) -> Array:
    """f32[..., V] of hidden states f32[..., D]."""
    h = h.astype(jnp.float32)
    if not self.masses:
      return self.final(h)
    table = jnp.asarray(split_masses(self.waves.released))
    stop = jnp.floor(self.stop_mass)
    stop = jnp.concatenate([stop, self.stop_mass - stop])
    table = table.at[STOP].set(stop)
    x = jnp.concatenate([self.waves(table), self.said.embedding], -1)
    for i, layer in enumerate(self.fc):
      x = layer(x)
      if i < 3:
        x = jnp.where(x >= 0, x, self.slopes[i] * x)
    return self.scale[0] * jnp.einsum(
      "...d,vd->...v", h, x, precision=jax.lax.Precision.HIGHEST
    )

  def begin(
    self, mass: Array, charge: Array, memory: Memory
  ) -> tuple[Array, Any]:
    """(logits f32[B, V] of the first symbol, the cache that `step` takes)."""
    cache = self.stack.cache(len(mass), self.length, self.width)
    cache = dataclasses.replace(cache, index=jnp.int32(0))
    return self._next(self.first(mass, charge), cache, memory)

  def step(
    self, ids: Array, so_far: Array, left: Array, cache: Any, memory: Memory
  ) -> tuple[Array, Any]:
    """(logits f32[B, V] of the symbol after ids i32[B], the cache)."""
    return self._next(self.read(ids, so_far, left), cache, memory)

  def _next(self, x: Array, cache: Any, memory: Memory) -> tuple[Array, Any]:
    at = jnp.minimum(cache.index, self.length - 1)
    x = x + places(self.length, self.width)[0, at][None]
    h, cache = self.stack(
      x[:, None], cache.causal(1), cache=cache, memory=memory
    )
    return self.logits(h)[:, 0], cache
