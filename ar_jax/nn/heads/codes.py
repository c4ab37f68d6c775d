"""Units of several parts, each with a law of its own: bits, and codes of a few
bits each.

Shapes: B batch, T positions, D width, K bits, t codes, V = 2^b values of each.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick
from ar_jax.core.plans.plan import Plan
from ar_jax.nn.heads.categorical import cross_entropy

Array = jax.Array


class Bitwise(nn.Module):
  """K independent bits of a unit, each by a linear map in float32 (the
  infinite-vocabulary classifier of Infinity, arXiv 2412.04431).

  Attributes:
    bits: K.
    stddev: initial standard deviation.
    pairs: whether a bit has two logits, of a 0 and of a 1, as published, where
      its log-odds alone are as much.
  """

  bits: int
  stddev: float = 0.02
  pairs: bool = False

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    count = self.bits * (1 + self.pairs)
    self.linear = nn.Dense(count, kernel_init=init, dtype=jnp.float32)

  def logits(self, h: Array) -> Array:
    """f32[B, T, K, 2] of h [B, T, D], of a 0 and of a 1."""
    x = self.linear(h.astype(jnp.float32))
    if self.pairs:
      return x.reshape(*x.shape[:-1], self.bits, 2)
    return jnp.stack([jnp.zeros_like(x), x], -1)

  def nll(self, h: Array, target: Array) -> Array:
    """f32[B, T], summed over the bits of target, i32[B, T, K] in {0, 1}."""
    return cross_entropy(self.logits(h), target).sum(-1)

  def loss(
    self,
    h: Array,
    target: Array,
    keys: Array | None = None,
    *,
    plan: Plan | None = None,
    pos: Array | None = None,
  ) -> Array:
    """As `nll`."""
    del keys, plan, pos
    return self.nll(h, target)

  def law(
    self,
    h: Array,
    *,
    h_null: Array | None = None,
    scale: Array | float = 1.0,
    bias: Array | None = None,
    **law,
  ) -> Array:
    """Log-probabilities f32[B, T, K, 2] from which bits are drawn.

    Args:
      h: [B, T, D].
      h_null: the same without the condition; None if guidance is off.
      scale: of guidance; 1.0 is off.
      bias: f32[2] or f32[B, 2], the same for all bits of a unit, or f32[B, K,
        2]; see `pick.biased`.
      **law: see `pick.law`; of every bit by itself: top-p drops the rarer value
        where it is no more likely than 1 - top_p.
    """
    if h_null is not None:
      h = pick.guide(h.astype(jnp.float32), h_null.astype(jnp.float32), scale)
    logits = self.logits(h)
    if bias is not None:
      bias = bias[:, None] if bias.ndim == 2 else bias
      bias = bias[:, None] if bias.ndim == 3 else bias[None, None, None]
      logits = pick.biased(logits, bias, law.get("temperature", 1.0))
    return pick.law(logits, **law)

  def draw(
    self, h: Array, keys: Array, *, pos: Array | None = None, **options
  ) -> Array:
    """Bits i32[B, T, K], drawn with keys Key[B]; options as in `law`."""
    del pos
    return pick.draw(self.law(h, **options), keys)


class SubCodeEmbed(nn.Module):
  """Reads t codes: each through a table of its own, side by side and brought
  to D by a linear map without bias (ELM, arXiv 2410.16257), or added up.

  Attributes:
    codes: t.
    vocab: V.
    width: D.
    stddev: initial standard deviation.
    added: added up instead; a single code is read by its table alone.
  """

  codes: int
  vocab: int
  width: int
  stddev: float = 0.02
  added: bool = False

  def blank(self, batch: int, count: int) -> Array:
    """Units that say nothing, i32[batch, count, t]."""
    return jnp.zeros((batch, count, self.codes), jnp.int32)

  @nn.compact
  def __call__(self, units: Array) -> Array:
    """[B, T, D] of units i32[B, T, t]."""
    init = nn.initializers.normal(self.stddev)
    shape = (self.codes, self.vocab, self.width)
    table = self.param("embedding", init, shape).reshape(-1, self.width)
    first = self.vocab * jnp.arange(self.codes)
    x = jnp.take(table, units + first[None, None], axis=0)
    if self.codes == 1 or self.added:
      return x.sum(-2)
    linear = nn.Dense(self.width, use_bias=False, kernel_init=init, name="proj")
    return linear(x.reshape(*x.shape[:-2], self.codes * self.width))


class SubCodes(nn.Module):
  """t codes of a unit, independent of each other given the hidden state, each
  by a linear map to V logits in float32 (ELM, arXiv 2410.16257).

  What the codes of a unit have in common beyond the hidden state is lost: the
  law is a product, so its least cross-entropy is the sum of those of the parts.

  Attributes:
    codes: t.
    vocab: V.
    stddev: initial standard deviation; the maps have no bias.
    soften: targets are mixed with their neighbours: the values that differ in
      at most so many bits share the mass as exp(-3 bits); 0 is off.
  """

  codes: int
  vocab: int
  stddev: float = 0.0
  soften: int = 0

  @nn.compact
  def logits(self, h: Array) -> Array:
    """f32[B, T, t, V] of h [B, T, D]."""
    init = nn.initializers.normal(self.stddev)
    shape = (self.codes, h.shape[-1], self.vocab)
    kernel = self.param("kernel", init, shape)
    return jnp.einsum("bsd,tdv->bstv", h.astype(jnp.float32), kernel)

  def each(self, h: Array, target: Array) -> Array:
    """f32[B, T, t], the cross-entropy of every code of target i32[B, T, t]."""
    logits = self.logits(h)
    if not self.soften:
      return cross_entropy(logits, target)
    near = hamming(target, self.vocab, self.soften)
    return -jnp.sum(near * jax.nn.log_softmax(logits, -1), -1)

  def nll(self, h: Array, target: Array, key: Array | None = None) -> Array:
    """f32[B, T], summed over the codes of target, i32[B, T, t]: of a unit, so
    that models with other t compare."""
    del key  # nothing random
    return self.each(h, target).sum(-1)

  def loss(
    self,
    h: Array,
    target: Array,
    keys: Array | None = None,
    *,
    plan: Plan | None = None,
    pos: Array | None = None,
  ) -> Array:
    """As `nll`."""
    del keys, plan, pos
    return self.nll(h, target)

  def law(
    self,
    h: Array,
    *,
    h_null: Array | None = None,
    scale: Array | float = 1.0,
    bias: Array | None = None,
    **law,
  ) -> Array:
    """Log-probabilities f32[B, T, t, V] from which codes are drawn.

    Args:
      h: [B, T, D].
      h_null: the same without the condition; None if guidance is off.
      scale: of guidance; 1.0 is off.
      bias: see `pick.biased`; f32[V] or f32[B, V], the same for all codes of a
        unit, or f32[B, t, V].
      **law: see `pick.law`; of every code by itself.
    """
    logits = self.logits(h) if h_null is None else self.guided(h, h_null, scale)
    if bias is not None:
      bias = bias[:, None] if bias.ndim == 2 else bias
      bias = bias[:, None] if bias.ndim == 3 else bias[None, None, None]
      logits = pick.biased(logits, bias, law.get("temperature", 1.0))
    return pick.law(logits, **law)

  def guided(self, h: Array, h_null: Array, scale: Array | float) -> Array:
    """Logits f32[B, T, t, V] of states with and without the condition; `scale`
    is a number or has three axes."""
    # The maps are linear: guiding their input guides the logits.
    h, h_null = h.astype(jnp.float32), h_null.astype(jnp.float32)
    return self.logits(pick.guide(h, h_null, scale))

  def draw(
    self, h: Array, keys: Array, *, pos: Array | None = None, **options
  ) -> Array:
    """Units i32[B, T, t], drawn with keys Key[B]; options as in `law`."""
    del pos
    return pick.draw(self.law(h, **options), keys)


def hamming(target: Array, vocab: int, most: int) -> Array:
  """Weights f32[..., V] of all values, which sum to 1: exp(-3 d) of those that
  differ from target i32[...] in d <= `most` bits, else 0."""
  other = jnp.arange(vocab).reshape((1,) * target.ndim + (-1,))
  apart = jax.lax.population_count(target[..., None] ^ other)
  weight = jnp.where(apart <= most, jnp.exp(-3.0 * apart), 0.0)
  return weight / weight.sum(-1, keepdims=True)
