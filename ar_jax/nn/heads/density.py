"""Laws of vectors of numbers whose density is known in closed form.

  Mixture    of normal laws with diagonal covariances (GIVT, arXiv 2312.02116)
  Logistics  of logistic laws over equally spaced levels, the channels of a unit
             one after the other (PixelCNN++, arXiv 1701.05517)

They are used as those of `nn.heads.categorical` are.

Shapes: B batch, T units, C channels of a unit, D width, M components.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick
from ar_jax.core.errors import UserError
from ar_jax.core.flows.chains import log_normal
from ar_jax.core.plans.plan import Plan

Array = jax.Array


class Mixed(NamedTuple):
  """A mixture of normal laws, a `core.decoding.densities.Density`.

  Attributes:
    logits: f32[..., M], log weights, normalised.
    mean: f32[..., M, C].
    log_std: f32[..., M, C].
  """

  logits: Array
  mean: Array
  log_std: Array

  def log_prob(self, sample: Array) -> Array:
    """f32[...] of f32[..., C]."""
    each = log_normal(sample[..., None, :], self.mean, self.log_std)
    return jax.nn.logsumexp(self.logits + each, -1)

  def draw(self, keys: Array) -> Array:
    """f32[B, ..., C], by keys Key[B]."""
    keys, own = jax.vmap(jax.random.split, out_axes=1)(keys)
    which = pick.draw(self.logits, keys)[..., None, None]
    own_part = lambda x: jnp.take_along_axis(x, which, -2)[..., 0, :]
    mean, log_std = own_part(self.mean), own_part(self.log_std)
    fresh = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(own)
    return mean + jnp.exp(log_std) * fresh

  def unit(self, sample: Array) -> Array:
    """A sample is a unit."""
    return sample


class DensityHead(nn.Module):
  """What both heads share: a linear map, in float32, to the numbers that say
  what the law is. They have `law`; a guided law is that of guided numbers.

  Attributes:
    channels: C.
    components: M.
    stddev: initial standard deviation of the map.
  """

  channels: int
  components: int = 4
  stddev: float = 0.02

  def setup(self):
    # Components that begin alike would stay so for long.
    count, means = self.components, self.components * self.channels

    def bias(key, shape, dtype=jnp.float32):
      spread = jax.random.normal(key, (means,), dtype)
      return jnp.zeros(shape, dtype).at[count : count + means].set(spread)

    self.linear = nn.Dense(
      self.numbers,
      kernel_init=nn.initializers.normal(self.stddev),
      bias_init=bias,
      dtype=jnp.float32,
    )

  @property
  def numbers(self) -> int:
    """Of a law: weights, means, scales."""
    return self.components * (1 + 2 * self.channels)

  def _numbers(
    self, h: Array, h_null: Array | None, scale: Array | float
  ) -> tuple[Array, Array, Array, Array]:
    """Weights f32[..., M], means and scales f32[..., M, C], and the rest."""
    h = h.astype(jnp.float32)
    if h_null is not None:
      # Linear: guiding the input guides the numbers, at half the cost.
      h = pick.guide(h, h_null.astype(jnp.float32), scale)
    x, m, c = self.linear(h), self.components, self.channels
    part = lambda i: x[..., m + i * m * c : m + (i + 1) * m * c]
    matrix = lambda x: x.reshape(*x.shape[:-1], m, c)
    return x[..., :m], matrix(part(0)), matrix(part(1)), x[..., m + 2 * m * c :]

  def loss(
    self,
    h: Array,
    target: Array,
    keys: Array | None = None,
    *,
    plan: Plan | None = None,
    pos: Array | None = None,
  ) -> Array:
    """As `nll`; nothing is random here, and every unit is alone."""
    del keys, plan, pos
    return self.nll(h, target)

  def nll(self, h: Array, target: Array) -> Array:
    """-log p in nats, f32[B, T], of target f32[B, T, C]: of a density for a
    `Mixture`, of levels for `Logistics`."""
    return -self.law(h).log_prob(target)

  def draw(
    self, h: Array, keys: Array, *, pos: Array | None = None, **options
  ) -> Array:
    """Units f32[B, T, C], drawn with keys Key[B]; options as in `law`."""
    del pos
    return self.law(h, **options).draw(keys)


class Mixture(DensityHead):
  """Normal laws with diagonal covariances.

  Attributes:
    channels, components, stddev: as there.
    least: the smallest deviation. The density of data that lie on points or
      planes has no bound without it.
  """

  least: float = 1e-3

  def law(
    self,
    h: Array,
    *,
    h_null: Array | None = None,
    scale: Array | float = 1.0,
    temperature: float = 1.0,
  ) -> Mixed:
    """The law of units, of h [..., D].

    Args:
      h: [..., D].
      h_null: the same without the condition; None if guidance is off.
      scale: of guidance of the numbers of the law, the deviations before their
        softplus; 1.0 is off. (GIVT guides densities, which leaves no mixture.)
      temperature: multiplies the deviations.
    """
    weights, mean, raw, _ = self._numbers(h, h_null, scale)
    # A raw number of 0 is a deviation of 1.
    std = self.least + nn.softplus(raw + math.log(math.e - 1))
    log_std = jnp.log(std) + jnp.log(jnp.float32(temperature))
    return Mixed(jax.nn.log_softmax(weights, -1), mean, log_std)


class Levelled(NamedTuple):
  """A mixture of logistic laws over L levels from -1 to 1, 2 / (L - 1) apart,
  to whose bins of half a width of 1 / (L - 1) it gives its mass; the outermost
  are unbounded.

  The mean of channel j of a component is moved by the channels before it,
  sum_i coupling_ji x_i; all channels are of one component.

  Attributes:
    logits: f32[..., M], log weights, normalised.
    mean: f32[..., M, C].
    log_scale: f32[..., M, C].
    coupling: f32[..., M, C, C], strictly lower.
    levels: L.
  """

  logits: Array
  mean: Array
  log_scale: Array
  coupling: Array
  levels: int

  def log_prob(self, sample: Array) -> Array:
    """f32[...], log of the mass of levels f32[..., C]."""
    each = self._log_mass(sample[..., None, :], self._moved(sample))
    return jax.nn.logsumexp(self.logits + jnp.sum(each, -1), -1)

  def by_channel(self, sample: Array) -> Array:
    """f32[..., C, L], log of the mass of every level of a channel, given the
    channels before it in levels f32[..., C]. The chain rule: they add up to
    `log_prob`."""
    mean = self._moved(sample)
    own = self._log_mass(sample[..., None, :], mean)
    before = jnp.cumsum(own, -1)[..., :-1]  # not less `own`, which it rounds by
    before = jnp.pad(before, ((0, 0),) * (own.ndim - 1) + ((1, 0),))
    weight = jax.nn.log_softmax(self.logits[..., None] + before, -2)
    levels = jnp.linspace(-1.0, 1.0, self.levels)
    levels = levels.reshape((1,) * mean.ndim + (-1,))
    every = self._log_mass(levels, mean[..., None], self.log_scale[..., None])
    return jax.nn.logsumexp(weight[..., None] + every, -3)

  def _moved(self, sample: Array) -> Array:
    """f32[..., M, C]: means behind the channels before."""
    return self.mean + jnp.sum(self.coupling * sample[..., None, None, :], -1)

  def _log_mass(
    self, x: Array, mean: Array, log_scale: Array | None = None
  ) -> Array:
    """Log of the mass of levels of single channels of single components."""
    log_scale = self.log_scale if log_scale is None else log_scale
    z = (x - mean) * jnp.exp(-log_scale)
    half = jnp.exp(-log_scale) / (self.levels - 1)
    low, high = z - half, z + half
    # sigmoid(high) - sigmoid(low); where that is lost to rounding, the density
    # at the middle times the width.
    mass = jax.nn.sigmoid(high) - jax.nn.sigmoid(low)
    middle = jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z) - log_scale
    middle = middle + math.log(2 / (self.levels - 1))
    inner = jnp.where(mass > 1e-5, jnp.log(jnp.maximum(mass, 1e-12)), middle)
    edge = 1 - 1 / (self.levels - 1)
    each = jnp.where(x > edge, jax.nn.log_sigmoid(-low), inner)
    return jnp.where(x < -edge, jax.nn.log_sigmoid(high), each)

  def draw(self, keys: Array) -> Array:
    """Levels f32[B, ..., C], by keys Key[B]."""
    keys, own = jax.vmap(jax.random.split, out_axes=1)(keys)
    which = pick.draw(self.logits, keys)[..., None, None]
    own_part = lambda x: jnp.take_along_axis(x, which, -2)[..., 0, :]
    mean, log_scale = own_part(self.mean), own_part(self.log_scale)
    index = which[..., None]
    coupling = jnp.take_along_axis(self.coupling, index, -3)[..., 0, :, :]
    fresh = jax.vmap(
      lambda key: jax.random.uniform(
        key, mean.shape[1:], minval=1e-5, maxval=1 - 1e-5
      )
    )(own)
    fresh = jnp.exp(log_scale) * (jnp.log(fresh) - jnp.log1p(-fresh))
    channels = []
    for j in range(mean.shape[-1]):
      x = mean[..., j] + fresh[..., j]
      for i, before in enumerate(channels):
        x = x + coupling[..., j, i] * before
      step = (self.levels - 1) / 2
      x = jnp.clip(x, -1.0, 1.0)
      channels.append(jnp.round((x + 1) * step) / step - 1)
    return jnp.stack(channels, -1)

  def unit(self, sample: Array) -> Array:
    """A sample is a unit."""
    return sample


class Logistics(DensityHead):
  """Logistic laws over levels.

  Attributes:
    channels, components, stddev: as there; 10 components as published.
    levels: L, of a channel, 2 at least.
  """

  levels: int = 256

  @property
  def numbers(self) -> int:
    pairs = self.channels * (self.channels - 1) // 2
    return super().numbers + self.components * pairs

  def law(
    self,
    h: Array,
    *,
    h_null: Array | None = None,
    scale: Array | float = 1.0,
    temperature: float = 1.0,
  ) -> Levelled:
    """The law of units, of h [..., D]; arguments as those of `Mixture.law`.

    Raises:
      UserError: there are fewer than two levels.
    """
    if self.levels < 2:
      raise UserError(f"levels={self.levels}: a channel has at least 2")
    weights, mean, raw, rest = self._numbers(h, h_null, scale)
    c = self.channels
    below = [(j, i) for j in range(c) for i in range(j)]
    pairs = jnp.tanh(
      rest.reshape(*rest.shape[:-1], self.components, len(below))
    )
    coupling = jnp.zeros((*mean.shape, c))
    for n, (j, i) in enumerate(below):
      coupling = coupling.at[..., j, i].set(pairs[..., n])
    log_scale = jnp.maximum(raw, -7.0) + jnp.log(jnp.float32(temperature))
    weights = jax.nn.log_softmax(weights, -1)
    return Levelled(weights, mean, log_scale, coupling, self.levels)
