"""Bits of residual maps of growing size: multi-scale binary spherical
quantisation, and its correction of wrong bits (Infinity, arXiv 2412.04431).

From S_0 = 0 map k codes the signs of what is left, R_k = down(F - S_{k-1}), by
areas, as vectors +-1 / sqrt(d) of unit length, and these are added at full
size: S_k = S_{k-1} + up(q_k), bilinear. There is no codebook. Where a generator
folds 2 x 2 cells into one unit, maps have twice its sides.

Shapes: B batch, d bits of a cell, K bits of a unit (d, or folded 4 d), N maps
of h_k x w_k units, L units of all, H W sides of the finest map in cells.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import check_choice
from ar_jax.core.signals.resize import resize
from ar_jax.nn.quantize.bits import BSQ
from ar_jax.nn.quantize.vq import commitment, straight_through

Array = jax.Array
INPUTS = ("bilinear", "area")


class Coded(NamedTuple):
  """What `ScaledBits.code` says.

  Attributes:
    units: i32[B, L, K] in {0, 1}, the true bits of every residual.
    inputs: f32[B, L, K], what a generator reads at every unit: the sum before
      its map; zeros at the first map.
    sums: f32[B, H, W, d] S_1 ... S_N.
    residuals: f32[B, h_k, w_k, d] in cells, R_1 ... R_N.
  """

  units: Array
  inputs: Array
  sums: list[Array]
  residuals: list[Array]


@dataclasses.dataclass(frozen=True)
class ScaledBits:
  """The quantiser; it has no parameters.

  Attributes:
    bits: d.
    shapes: (h_k, w_k) of the maps, in units, coarse first.
    fold: whether 2 x 2 cells are one unit.
    inputs: how the sum is resized to what a generator reads: "bilinear" without
      antialiasing, as Infinity's, or "area", as NSARM's sampler.
  """

  bits: int
  shapes: tuple[tuple[int, int], ...]
  fold: bool = False
  inputs: str = "bilinear"

  def __post_init__(self):
    check_inputs(self.inputs)

  @property
  def width(self) -> int:
    """K."""
    return self.bits * (4 if self.fold else 1)

  @property
  def grids(self) -> tuple[tuple[int, int], ...]:
    """The sides of the maps in cells."""
    times = 2 if self.fold else 1
    return tuple((times * h, times * w) for h, w in self.shapes)

  @property
  def sizes(self) -> tuple[int, ...]:
    """Units of the maps."""
    return tuple(h * w for h, w in self.shapes)

  def split(self, units: Array) -> list[Array]:
    """[B, L, ...] into one [B, h_k w_k, ...] for each map."""
    return jnp.split(units, np.cumsum(self.sizes)[:-1], 1)

  def folded(self, x: Array) -> Array:
    """Units [B, h w, K] of a map of cells [B, H', W', d]: row by row, bit c of
    the cell (dy, dx) of a unit is its bit 4 c + 2 dy + dx."""
    b, h, w, d = x.shape
    if self.fold:
      x = x.reshape(b, h // 2, 2, w // 2, 2, d).transpose(0, 1, 3, 5, 2, 4)
    return x.reshape(b, -1, self.width)

  def unfolded(self, units: Array, k: int) -> Array:
    """The map of cells [B, H', W', d] of the units [B, h_k w_k, K] of map k."""
    (b, _, _), (h, w) = units.shape, self.shapes[k]
    if not self.fold:
      return units.reshape(b, h, w, self.bits)
    x = units.reshape(b, h, w, self.bits, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(b, 2 * h, 2 * w, self.bits)

  def start(self, batch: int) -> Array:
    """S_0 = 0, f32[B, H, W, d]."""
    return jnp.zeros((batch, *self.grids[-1], self.bits), jnp.float32)

  def code_of(self, bits: Array) -> Array:
    """Vectors f32[..., d] of unit length of bits [..., d]."""
    return BSQ().embed(bits)

  def add(self, total: Array, k: int, units: Array) -> Array:
    """S_k of S_{k-1} and the units [B, h_k w_k, K] of map k, static."""
    return self.add_cells(total, self.code_of(self.unfolded(units, k)))

  def add_cells(self, total: Array, code: Array) -> Array:
    """S_{k-1} and the vectors f32[B, h, w, d] of a map of cells, at full
    size."""
    return total + resize(code, self.grids[-1], "bilinear")

  def seen(self, total: Array, k: int) -> Array:
    """What a generator reads of S_{k-1} at map k, f32[B, h_k w_k, K]."""
    return self.folded(resize(total, self.grids[k], self.inputs))

  def residual(self, f: Array, total: Array, k: int) -> Array:
    """R_k, f32[B, h, w, d] in cells, of F and S_{k-1}."""
    return resize(f - total, self.grids[k], "area")

  def code(
    self,
    f: Array,
    flips: Sequence[Array | None] = (),
    given: Sequence[Array] = (),
  ) -> Coded:
    """Codes latents, perhaps with wrong bits that the maps behind them repair.

    Args:
      f: F, f32[B, H, W, d].
      flips: of the first maps, bool[B, h, w, d] in cells, where the bit that is
        added is not the true one (bitwise self-correction, section 3.3): units
        are the true ones, and what is left counts from the sum as it is.
      given: of the first maps, bits i32[B, h, w, d] in cells that are added
        whatever F is; they are the units, too.
    """
    f = jax.lax.stop_gradient(f.astype(jnp.float32))
    total = self.start(len(f))
    units, inputs, sums, residuals = [], [], [], []
    for k in range(len(self.shapes)):
      inputs.append(self.seen(total, k))
      rest = self.residual(f, total, k)
      bits = given[k] if k < len(given) else (rest > 0).astype(jnp.int32)
      used = bits
      if k < len(flips) and flips[k] is not None:
        used = jnp.where(flips[k], 1 - bits, bits)
      total = self.add_cells(total, self.code_of(used))
      units.append(self.folded(bits))
      sums.append(total)
      residuals.append(rest)
    every = lambda parts: jnp.concatenate(parts, 1)
    return Coded(every(units), every(inputs), sums, residuals)

  def walk(self, units: Array) -> list[Array]:
    """S_1 ... S_N of units i32[B, L, K]."""
    total, sums = self.start(len(units)), []
    for k, own in enumerate(self.split(units)):
      total = self.add(total, k, own)
      sums.append(total)
    return sums

  def embed(self, units: Array) -> Array:
    """`Coded.inputs` of units i32[B, L, K]."""
    known = [self.start(len(units)), *self.walk(units)[:-1]]
    return jnp.concatenate([self.seen(s, k) for k, s in enumerate(known)], 1)

  def flips(
    self, keys: Array, strength: Array, maps: int | None = None
  ) -> list[Array]:
    """Which bits of the first maps are wrong, bool[B, h, w, d] each.

    Args:
      keys: Key[B].
      strength: how often, f32[N], or by example f32[B, N].
      maps: how many; None for all.
    """
    strength = jnp.broadcast_to(strength, (len(keys), len(self.shapes)))
    found = []
    for k, grid in enumerate(self.grids[:maps]):
      shape = (*grid, self.bits)
      own = jax.vmap(lambda key, k=k: jax.random.fold_in(key, k))(keys)
      draw = lambda key, p, shape=shape: jax.random.bernoulli(key, p, shape)
      found.append(jax.vmap(draw)(own, strength[:, k]))
    return found

  def quantized(
    self, f: Array, *, beta: float, entropy: float, group: int = 1
  ) -> tuple[Array, dict[str, Array], Array]:
    """Quantises latents F, f32[B, H, W, d], for training.

    Args:
      f: see above.
      beta: weight of the distance of F to S_N.
      entropy: weight of the entropy term of `bits.BSQ`, the mean over maps.
      group: see `bits.mean_entropy`.

    Returns:
      S_N with the gradient of F; the losses f32[B] "commit_loss" and, where it
      counts, "entropy"; units i32[B, L, K].
    """
    f = f.astype(jnp.float32)
    coded = self.code(f)
    last = coded.sums[-1]
    losses = {"commit_loss": commitment(f, last, beta)}
    if entropy:
      before = [self.start(len(f)), *coded.sums[:-1]]
      rests = [self.residual(f, s, k) for k, s in enumerate(before)]
      terms = [BSQ(group=group)(rest)[1]["entropy"] for rest in rests]
      losses["entropy"] = entropy * sum(terms) / len(terms)
    return straight_through(f, last), losses, coded.units


def check_inputs(inputs: str) -> None:
  """Raises UserError unless there is such a rule; see `ScaledBits`."""
  check_choice("inputs", inputs, INPUTS)


def strengths(key: Array, maps: int, most: float, step: float = 0.01) -> Array:
  """How often the bits of each of so many maps are wrong, f32[maps]: drawn
  evenly from 0, step, ..., most."""
  count = math.floor(most / step + 0.5) + 1
  return jax.random.randint(key, (maps,), 0, count) * np.float32(step)
