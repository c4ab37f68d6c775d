"""An encoder of mass spectra, and masses as waves.

Shapes: B batch, P peaks, D width, S rows of the memory.
"""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.families.seq2seq.decoders import padding
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array
_PART = 64  # whole numbers below it, and multiples of it, have a table each
_MOST = 10_000  # Da, and m/z
FRONTS = ("token", "peaks")


@dataclasses.dataclass(frozen=True)
class Waves:
  """Numbers as sines, then cosines, of wavelengths that grow evenly in
  logarithms.

  The shortest wavelength is a thousandth, so a float32 of a mass does not know
  its phase: it is read as a whole number, whose phases are looked up in tables
  made on the host in float64, and the rest.

  Attributes:
    width: D, even.
    least, most: wavelengths.
    released: phases of float32 quotients, as published weights were trained
      with: their error is up to half a radian, and it is the same everywhere.
    exact: the wavelengths over 2 pi of a published file, of one or several
      widths: a last bit of them is half a radian, too. () for those that
      float32 makes of the formula.
  """

  width: int
  least: float = 1e-3
  most: float = 1e4
  released: bool = False
  exact: tuple[tuple[float, ...], ...] = ()

  @property
  def terms(self) -> np.ndarray:
    """f64[D / 2], or f32[D / 2] if `released`: the wavelengths over 2 pi."""
    half = self.width // 2
    if self.released:
      for own in self.exact:
        if len(own) == half:
          return np.asarray(own, np.float32)
      power = np.arange(half, dtype=np.float32) / np.float32(max(half - 1, 1))
      growth = np.float32(self.most / self.least) ** power
      return np.float32(self.least / (2 * np.pi)) * growth
    power = np.arange(half) / max(half - 1, 1)
    return self.least / (2 * np.pi) * (self.most / self.least) ** power

  def __call__(self, x: Array) -> Array:
    """f32[..., D] of numbers f32[..., 2], their whole part and the rest."""
    shape = x.shape[:-1]
    whole, rest = x[..., 0].reshape(-1), x[..., 1].reshape(-1)
    angle = self._published(whole + rest) if self.released else None
    if angle is None:
      fine, coarse = _tables(self)
      at = jnp.clip(whole.astype(jnp.int32), 0, _MOST - 1)
      cycles = jnp.take(fine, at % _PART, 0) + jnp.take(coarse, at // _PART, 0)
      rate = np.asarray(1 / (2 * np.pi * self.terms), np.float32)
      cycles += rest[:, None] * rate[None]
      angle = 2 * jnp.pi * (cycles - jnp.floor(cycles))
    found = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
    return found.reshape(*shape, self.width)

  def _published(self, x: Array) -> Array:
    """The angles of x f32[n] over the terms, less whole turns."""
    quotient = quotient_of(jnp.abs(x)[:, None], jnp.asarray(self.terms)[None])
    part = jnp.floor(quotient / _PART)
    rest = quotient - _PART * part  # exact
    turns = _turns(int(_MOST / self.terms[0] / _PART) + 2)
    angle = jnp.take(turns, part.astype(jnp.int32), 0) + rest
    return jnp.where(x[:, None] < 0, -angle, angle)  # losses of mass


def quotient_of(x: Array, y: Array) -> Array:
  """x / y of f32, x at least 0 and y above it, rounded to the nearest float32.

  A division of XLA may be off by a last bit. What it leaves, x - q y, is less
  than one of y's, so whole numbers of 32 bits that wrap around know it.
  """
  found = x / y
  x, y, q = (
    jax.lax.bitcast_convert_type(v.astype(jnp.float32), jnp.uint32)
    for v in jnp.broadcast_arrays(x, y, found)
  )
  mantissa = lambda v: (v & 0x7FFFFF) | 0x800000
  exponent = lambda v: (v >> 23).astype(jnp.int32) - 150
  shift = exponent(x) - exponent(q) - exponent(y)
  whole = mantissa(x) << jnp.clip(shift, 0, 31).astype(jnp.uint32)
  left = (whole - mantissa(q) * mantissa(y)).astype(jnp.int32)
  half = mantissa(y).astype(jnp.int32)
  more = (2 * left > half).astype(jnp.int32) - (2 * left < -half)
  exact = jax.lax.bitcast_convert_type(
    (q.astype(jnp.int32) + more).astype(jnp.uint32), jnp.float32
  )
  return jnp.where(x == 0, 0.0, exact)


@functools.lru_cache(maxsize=8)
def _tables(waves: Waves) -> tuple[np.ndarray, np.ndarray]:
  """The cycles of whole numbers below _PART and of its multiples."""
  length = 2 * np.pi * waves.terms[None]
  cycles = lambda n: np.asarray((n[:, None] / length) % 1.0, np.float32)
  coarse = np.arange(-(-_MOST // _PART)) * _PART
  return cycles(np.arange(_PART)), cycles(coarse)


@functools.lru_cache(maxsize=2)
def _turns(count: int) -> np.ndarray:
  """Multiples of _PART in radians, less whole turns."""
  return np.asarray((np.arange(count) * float(_PART)) % (2 * np.pi), np.float32)


def divided(x: Array) -> Array:
  """f32[..., 2]: the whole part and the rest of numbers f32[..., 2] that are
  sums of such."""
  more = jnp.floor(x[..., 1])
  return jnp.stack([x[..., 0] + more, x[..., 1] - more], -1)


class PeakEncoder(nn.Module):
  """A transformer over peaks: waves of their m/z and a line of their
  intensity; no further places.

  Attributes:
    stack: layers without a memory.
    width: D.
    waves: of m/z.
    front: what stands before the peaks: "token", a learned one; or "peaks", one
      at 0 and one at the mass of the precursor, of learned intensities.
  """

  stack: Backbone
  width: int
  waves: Waves
  front: str = "token"

  @nn.compact
  def __call__(
    self, mz: Array, intensity: Array, mass: Array
  ) -> tuple[Array, Array]:
    """(the memory f32[B, S, D], which rows are there, bool[B, S]).

    Args:
      mz: f32[B, P, 2], whole numbers and the rest; zeros behind the last.
      intensity: f32[B, P]; 0 behind the last.
      mass: f32[B, 2], of the precursor, in the same way.
    """
    there = (mz.sum(-1) > 0) | (intensity > 0)
    ones = jnp.ones((len(mz), 1), bool)
    if self.front == "peaks":
      free = nn.initializers.normal(1.0)
      own = [self.param(f"front_{i}", free, (1, 1)) for i in range(2)]
      own = [jnp.broadcast_to(x, (len(mz), 1)) for x in own]
      intensity = jnp.concatenate([*own, intensity], 1)
      mz = jnp.concatenate([0 * mass[:, None], mass[:, None], mz], 1)
      there = jnp.concatenate([ones, ones, there], 1)
    line = nn.Dense(self.width, use_bias=False, name="intensity")
    x = self.waves(mz) + line(intensity[..., None])
    if self.front == "token":
      init = nn.initializers.normal(1.0)
      token = self.param("token", init, (1, 1, self.width))
      token = jnp.broadcast_to(token, (len(x), 1, self.width))
      x = jnp.concatenate([token, x], 1)
      there = jnp.concatenate([ones, there], 1)
    return self.stack(x, padding(there))[0], there
