"""Diffusion over discrete noise levels, with a learned variance.

Improved DDPM (arXiv 2102.09672) as MAR (arXiv 2406.11838) uses it for a single
unit. Level 0 is nearly data and level T - 1 nearly noise; in the time of
`core.flows.flow`, which counts the other way, level i is t = 1 - (i + 1) / T.

  x_i = sqrt(abar_i) x + sqrt(1 - abar_i) e

A network gives (e~, r) with e~ an estimate of e and r in about [-1, 1], which
places the log-variance of a step down between its two bounds.

Shapes: x is f32[..., C], a level i32[...], one for each vector of C numbers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.flows import solvers

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Levels:
  """A chain of noise levels; hashable.

  Attributes:
    betas: b_i, how much noise level i adds to the one before.
    names: the number of each level that the network is told: its place in
      the chain that it was trained on.
  """

  betas: tuple[float, ...]
  names: tuple[int, ...]

  def __len__(self) -> int:
    return len(self.betas)

  @functools.cached_property
  def tables(self) -> dict[str, np.ndarray]:
    """What depends on the level alone, f64[T]."""
    beta = np.array(self.betas)
    kept = np.cumprod(1 - beta)
    before = np.append(1.0, kept[:-1])
    # The variance of x_{i-1} given x_i and x. It is 0 at level 0, whose
    # logarithm is taken of the next.
    least = beta * (1 - before) / (1 - kept)
    return {
      "signal": np.sqrt(kept),
      "noise": np.sqrt(1 - kept),
      "of_data": beta * np.sqrt(before) / (1 - kept),
      "of_x": (1 - before) * np.sqrt(1 - beta) / (1 - kept),
      "least": np.log(np.append(least[1:2], least[1:])),
      "most": np.log(beta),
    }

  def respaced(self, n: int) -> Levels:
    """n of these levels, evenly chosen, the first and the last among them.

    Raises:
      UserError: n is not in 2..T.
    """
    if not 2 <= n <= len(self):
      raise UserError(f"{n} denoising steps: must be in 2..{len(self)}")
    index = np.round(np.arange(n) * (len(self) - 1) / (n - 1)).astype(int)
    return self.only(index.tolist())

  def only(self, levels: Sequence[int]) -> Levels:
    """The chain of these levels alone, which rise."""
    index = np.array(levels)
    kept = np.cumprod(1 - np.array(self.betas))[index]
    betas = 1 - kept / np.append(1.0, kept[:-1])
    names = np.array(self.names)[index]
    return Levels(tuple(betas.tolist()), tuple(names.tolist()))

  def at(self, name: str, level: Array) -> Array:
    """f32[..., 1]: an entry of `tables`, beside the C numbers."""
    table = jnp.asarray(self.tables[name], jnp.float32)
    return table[jnp.asarray(level)][..., None]

  def noisy(self, x: Array, noise: Array, level: Array) -> Array:
    """x_i of data and noise f32[..., C]."""
    signal, deviation = self.at("signal", level), self.at("noise", level)
    return signal * x + deviation * noise

  def down(
    self, noise: Array, r: Array, xi: Array, level: Array
  ) -> tuple[Array, Array]:
    """Mean and log-variance of x_{i-1}, f32[..., C], by a prediction.

    Args:
      noise: e~, f32[..., C].
      r: f32[..., C].
      xi: x_i.
      level: i.
    """
    data = xi - self.at("noise", level) * noise
    data = data / self.at("signal", level)
    mean = self._mean(data, xi, level)
    share = (r + 1) / 2
    most, least = self.at("most", level), self.at("least", level)
    return mean, share * most + (1 - share) * least

  def _mean(self, data: Array, xi: Array, level: Array) -> Array:
    return self.at("of_data", level) * data + self.at("of_x", level) * xi

  def gap(
    self, noise: Array, r: Array, x: Array, xi: Array, level: Array
  ) -> Array:
    """Terms of the variational bound in nats, f32[..., C].

    The divergence of the true law of x_{i-1} given x from the predicted one;
    at level 0, -log of the predicted density of x.

    Args:
      noise: e~; with r, xi and level as in `down`.
      x: the data.
    """
    mean, log_variance = self.down(noise, r, xi, level)
    true_mean = self._mean(x, xi, level)
    true_log = self.at("least", level)
    square = jnp.square(true_mean - mean) + jnp.exp(true_log)
    divergence = log_variance - true_log - 1 + square * jnp.exp(-log_variance)
    scaled = jnp.square(x - mean) * jnp.exp(-log_variance)
    density = log_variance + scaled + math.log(2 * math.pi)
    first = jnp.asarray(level)[..., None] == 0
    return 0.5 * jnp.where(first, density, divergence)

  def losses(
    self, noise: Array, r: Array, x: Array, true: Array, level: Array
  ) -> tuple[Array, Array]:
    """MAR's two terms, f32[...] each, means over the C numbers.

    The squared error of the noise, and the variational term in bits, which
    teaches r alone. Its value at level 0 is that of the published code: the
    mass of a bin of x of width 2 / 255, as for pixels, though x are latents.

    Args:
      noise: e~.
      r: f32[..., C].
      x: the data.
      true: the noise e that made x_i.
      level: i.
    """
    error = jnp.mean(jnp.square(true - noise), -1)
    xi = self.noisy(x, true, level)
    held = jax.lax.stop_gradient(noise)
    gap = self.gap(held, r, x, xi, level)
    mean, log_variance = self.down(held, r, xi, level)
    first = jnp.asarray(level)[..., None] == 0
    gap = jnp.where(first, -_log_mass(x, mean, 0.5 * log_variance), gap)
    return error, jnp.mean(gap, -1) / math.log(2)

  def sample(
    self,
    predict: Callable[[Array, Array], tuple[Array, Array]],
    keys: Array,
    shape: tuple[int, ...],
    *,
    temperature: float = 1.0,
    before: Callable[[Array, Array], Array] | None = None,
  ) -> Array:
    """Walks from noise down to data, f32[B, *shape], in one loop.

    Args:
      predict: (x_i, the level's name i32[]) -> (e~, r), already guided.
      keys: Key[B].
      shape: of one example, (..., C).
      temperature: multiplies the noise of every step, not that of the start.
      before: (x_i, i i32[]) -> x_i, what is done to it before each step: parts
        that are known written back.
    """
    names = np.array(self.names, np.int32)

    def step(x, row):
      level, name = row
      x = x if before is None else before(x, level)
      at = jnp.full(x.shape[:-1], level)
      mean, log_variance = self.down(*predict(x, name), x, at)
      fresh = temperature * solvers.noise(keys, shape, level)
      spread = jnp.where(level > 0, jnp.exp(0.5 * log_variance), 0.0)
      return mean + spread * fresh, None

    x = solvers.noise(keys, shape, len(self))
    rows = np.arange(len(self), dtype=np.int32)[::-1], names[::-1]
    return jax.lax.scan(step, x, rows)[0]

  def bound(
    self,
    predict: Callable[[Array, Array], tuple[Array, Array]],
    x: Array,
    keys: Array,
  ) -> Array:
    """An upper bound of -log p(x) in nats, f32[B, ...]: the sum of all terms,
    one draw of the noise for each.

    It is the negative evidence bound in expectation over the keys, of the law
    that `sample` of this chain draws from, if level 0 added noise, too.

    Args:
      predict: as in `sample`.
      x: f32[B, ..., C].
      keys: Key[B].
    """
    names = np.array(self.names, np.int32)

    def add(total, row):
      level, name = row
      noise = solvers.noise(keys, x.shape[1:], level)
      at = jnp.full(x.shape[:-1], level)
      xi = self.noisy(x, noise, at)
      gap = self.gap(*predict(xi, name), x, xi, at)
      return total + jnp.sum(gap, -1), None

    rows = np.arange(len(self), dtype=np.int32), names
    total, _ = jax.lax.scan(add, jnp.zeros(x.shape[:-1]), rows)
    signal = self.tables["signal"][-1] ** 2
    last = signal * jnp.square(x) - signal - math.log(1 - signal)
    return total + 0.5 * jnp.sum(last, -1)


@functools.cache
def cosine(n: int = 1000, most: float = 0.999) -> Levels:
  """n levels, abar_i / abar_{i-1} by a squared cosine, betas up to `most`."""
  kept = lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
  betas = (1 - kept((i + 1) / n) / kept(i / n) for i in range(n))
  return Levels(tuple(min(b, most) for b in betas), tuple(range(n)))


def _log_mass(x: Array, mean: Array, log_scale: Array) -> Array:
  """log of the mass that a normal law gives to the bin of x, by the tanh form
  of its distribution; the outermost bins, beyond +-0.999, are unbounded."""
  half = 1 / 255

  def below(edge):
    z = (edge - mean) * jnp.exp(-log_scale)
    return 0.5 * (1 + jnp.tanh((2 / math.pi) ** 0.5 * (z + 0.044715 * z**3)))

  log = lambda mass: jnp.log(jnp.maximum(mass, 1e-12))
  low, high = below(x - half), below(x + half)
  return jnp.where(
    x < -0.999,
    log(high),
    jnp.where(x > 0.999, log(1 - low), log(high - low)),
  )
