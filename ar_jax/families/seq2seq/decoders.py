"""Decoders of symbols that look at what an encoder has read.

`Causal` says each symbol given those before it; `Parallel` says all at once,
each place from a vector of its own. Both look at the same kind of memory, so
they differ in nothing else: the baselines of each other.

Shapes: B batch, L symbols at most, T places, S rows of the memory, C features
of it, D width, V symbols.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import pick, steps
from ar_jax.core.plans import makers
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.layers.cross_attention import Memory
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


def sinusoids(
  places: Array | np.ndarray, width: int, *, shared: bool = True
) -> Array:
  """f32[..., D] of places [...]: sines, then cosines, of angles that fall from
  1 to 1e-4 radians a place (arXiv 1706.03762, in halves).

  Args:
    places: where, from 0 or 1.
    width: D, even.
    shared: whether the last angle is exactly 1e-4, as in ESPnet and FunASR,
      10000^(-i / (D/2 - 1)); else 10000^(-i / (D/2)).
  """
  half = width // 2
  last = max(half - 1, 1) if shared else half
  rates = np.exp(-np.log(1e4) * np.arange(half) / last).astype(np.float32)
  places = jnp.asarray(places, jnp.float32)
  angle = places[..., None] * rates.reshape((1,) * places.ndim + (-1,))
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


def padding(there: Array | None) -> Array | None:
  """bool[B, 1, 1, T], the mask of attention among places of which only those
  `there` bool[B, T] are seen; the first always is, so that none sees
  nothing."""
  if there is None:
    return None
  return there.at[:, 0].set(True)[:, None, None]


class Causal(nn.Module):
  """Symbol after symbol, with a cache.

  Attributes:
    stack: layers that look at a memory (`vit(..., cross=True)`).
    width: D.
    vocab: V.
    length: L.
    stddev: initial standard deviation of the tables and the head.
  """

  stack: Backbone
  width: int
  vocab: int
  length: int
  stddev: float = 0.02

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    self.symbols = nn.Embed(self.vocab, self.width, embedding_init=init)
    self.start = self.param("start", init, (1, self.width))
    self.places = self.param("places", init, (self.length, self.width))
    self.head = Categorical(self.vocab, self.stddev)

  def remember(self, features: Array, seen: Array | None = None) -> Memory:
    """What the layers read of features [B, S, C], of the rows that are `seen`
    bool[B, S]; once for all calls."""
    return self.stack.remember(features, seen)

  def read(self, ids: Array) -> Array:
    """[..., D] of symbols i32[...], without their places."""
    return self.symbols(ids)

  def first(self, batch: int) -> Array:
    """[B, D]: what stands before the first symbol where nothing else does."""
    return jnp.broadcast_to(self.start, (batch, self.width))

  def features(
    self, ids: Array, memory: Memory, first: Array | None = None
  ) -> Array:
    """f32[B, L, D], before each symbol; arguments as in the call."""
    b, count = ids.shape
    first = self.first(b) if first is None else first
    x = jnp.concatenate([first[:, None], self.read(ids[:, :-1])], 1)
    x = x + self.places[None, :count]
    plan = makers.blocks(count, 1)
    return self.stack(x, plan, memory=memory)[0]

  def __call__(
    self, ids: Array, memory: Memory, first: Array | None = None
  ) -> Array:
    """Logits f32[B, L, V] of each symbol given those before it.

    Args:
      ids: i32[B, L].
      memory: what `remember` returns.
      first: [B, D], what stands before the first symbol; learned if None.
    """
    return self.head.logits(self.features(ids, memory, first))

  def begin(
    self, memory: Memory, batch: int, first: Array | None = None
  ) -> tuple[Array, Any]:
    """(logits f32[B, V] of the first symbol, the cache that `step` takes)."""
    cache = self.stack.cache(batch, self.length, self.width, memory)
    cache = dataclasses.replace(cache, index=jnp.int32(0))
    first = self.first(batch) if first is None else first
    return self._next(first, cache)

  def step(self, ids: Array, cache: Any) -> tuple[Array, Any]:
    """(logits f32[B, V] of the symbol after ids i32[B], the cache)."""
    return self._next(self.read(ids), cache)

  def _next(self, x: Array, cache: Any) -> tuple[Array, Any]:
    place = jnp.minimum(cache.index, self.length - 1)
    x = (x + self.places[place][None])[:, None]
    h, cache = self.stack(x, cache.causal(1), cache=cache)
    return self.head.logits(h)[:, 0], cache


class Parallel(nn.Module):
  """All symbols at once, each from a vector of its own; every place sees every
  other.

  Attributes:
    stack: layers that look at a memory.
    vocab: V.
    stddev: initial standard deviation of the head.
  """

  stack: Backbone
  vocab: int
  stddev: float = 0.02

  def setup(self):
    self.head = Categorical(self.vocab, self.stddev)

  def remember(self, features: Array, seen: Array | None = None) -> Memory:
    """As `Causal.remember`."""
    return self.stack.remember(features, seen)

  def __call__(
    self, x: Array, memory: Memory, there: Array | None = None
  ) -> Array:
    """Logits f32[B, T, V].

    Args:
      x: [B, T, D], with their places if order is to be known by these.
      memory: what `remember` returns.
      there: bool[B, T], the places that are no padding; None for all.
    """
    return self.head.logits(self.features(x, memory, there))

  def features(
    self, x: Array, memory: Memory, there: Array | None = None
  ) -> Array:
    """f32[B, T, D] behind the layers; arguments as in the call."""
    return self.stack(x, padding(there), memory=memory)[0]


def draw(
  decoder: Causal,
  memory: Memory,
  keys: Array,
  *,
  stop: int | None = 0,
  first: Array | None = None,
  **law: Any,
) -> steps.Until:
  """Draws symbols step by step until every example has drawn `stop`, L at
  most.

  Args:
    decoder: bound to its parameters.
    memory: what `remember` returns.
    keys: Key[B].
    stop: ends an example; None draws all L.
    first: see `Causal`.
    **law: see `pick.law`; temperature 0 takes the likeliest.
  """
  net, variables = decoder.unbind()
  carry = decoder.begin(memory, len(keys), first)

  def step(carry, s, keys):
    logits, cache = carry
    ids = pick.draw(pick.law(logits, **law), keys)
    carry = net.apply(variables, ids, cache, method="step")
    ends = jnp.zeros(len(keys), bool) if stop is None else ids == stop
    return carry, ids, ends

  return steps.until_steps(step, carry, decoder.length, keys)
