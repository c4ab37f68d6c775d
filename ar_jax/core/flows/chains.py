"""Denoising chains as laws: the way from noise to a unit, and how likely each
of its steps is.

The density of what a chain ends at has no closed form, that of the whole way
has: every step down is a normal law. Two chains that share all of their noise
(arXiv 2411.11925) are compared by their last steps and their scales.

Shapes: N units, C channels, T steps down. As in `core.flows.ddpm` a chain
walks from level T - 1 to 0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.flows import solvers
from ar_jax.core.flows.ddpm import Levels

Array = jax.Array


def log_normal(x: Array, mean: Array, log_std: Array) -> Array:
  """log N(x; mean, exp(log_std)), f32[...], summed over the last axis."""
  z = jnp.square((x - mean) * jnp.exp(-log_std))
  return -jnp.sum(0.5 * (z + math.log(2 * math.pi)) + log_std, -1)


class Walk(NamedTuple):
  """What a chain did.

  Attributes:
    states: f32[N, T + 1, C], from noise to the unit.
    mean: f32[N, T, C], of every step.
    log_std: f32[N, T, C], of every step, the temperature in it.
  """

  states: Array
  mean: Array
  log_std: Array

  @property
  def end(self) -> End:
    """The last step, and the scales of those before it."""
    before = jnp.sum(self.log_std[:, :-1], (1, 2))
    return End(self.mean[:, -1], self.log_std[:, -1], before)


class End(NamedTuple):
  """How a chain ends.

  Attributes:
    mean: f32[N, C], of the last step.
    log_std: f32[N, C], of the last step, whether its noise is added or not.
    spread: f32[N], the sum of log deviations over the steps before and over
      channels.
  """

  mean: Array
  log_std: Array
  spread: Array


@dataclasses.dataclass(frozen=True)
class Chain:
  """The law of N ways from noise to a unit; a `densities.Density` whose samples
  are f32[N, T + 1, C] and whose last step adds its noise, too.

  Attributes:
    levels: of noise.
    predict: (x_i f32[N, C], the level's name i32[]) -> (e~, r), see
      `Levels.down`.
    channels: C.
    temperature: multiplies the noise of every step, not that of the start.
  """

  levels: Levels
  predict: Callable[[Array, Array], tuple[Array, Array]]
  channels: int
  temperature: float = 1.0

  def walk(self, keys: Array, *, last: bool = True) -> Walk:
    """Walks down, by keys Key[N], of the numbers that `Levels.sample` takes.

    Args:
      keys: Key[N].
      last: whether the last step adds its noise; the published samplers do
        not.
    """

    def step(x, row):
      level, name = row
      mean, log_std = self._down(x, level, name)
      fresh = solvers.noise(keys, (self.channels,), level)
      on = jnp.where((level > 0) | last, jnp.exp(log_std), 0.0)
      x = mean + on * fresh
      return x, (x, mean, log_std)

    x = solvers.noise(keys, (self.channels,), len(self.levels))
    _, (states, mean, log_std) = jax.lax.scan(step, x, self._rows())
    states = jnp.concatenate([x[None], states])
    return Walk(*(jnp.moveaxis(y, 0, 1) for y in (states, mean, log_std)))

  def draw(self, keys: Array) -> Array:
    """f32[N, T + 1, C], by keys Key[N]."""
    return self.walk(keys).states

  def log_prob(self, sample: Array) -> Array:
    """f32[N]: the log density of ways f32[N, T + 1, C], given where each
    begins, which is the same law for all chains."""
    states = jnp.moveaxis(sample, 1, 0)

    def step(total, row):
      x, down, level, name = row
      return total + log_normal(down, *self._down(x, level, name)), None

    rows = (states[:-1], states[1:], *self._rows())
    return jax.lax.scan(step, jnp.zeros(len(sample)), rows)[0]

  def unit(self, sample: Array) -> Array:
    """f32[N, C], where ways end."""
    return sample[:, -1]

  def _down(self, x: Array, level: Array, name: Array) -> tuple[Array, Array]:
    at = jnp.full(x.shape[:-1], level)
    mean, log_variance = self.levels.down(*self.predict(x, name), x, at)
    return mean, 0.5 * log_variance + math.log(self.temperature)

  def _rows(self) -> tuple[np.ndarray, np.ndarray]:
    count = np.arange(len(self.levels), dtype=np.int32)[::-1]
    return count, np.array(self.levels.names, np.int32)[::-1]
