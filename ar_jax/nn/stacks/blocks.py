"""The layers of a transformer: pre-norm blocks, with or without a condition
that modulates them.

Shapes: B batch, T positions, D width, N layers.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.plans.plan import Plan
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.norms import LayerNorm, RMSNorm, layer_norm, rms_norm

Array = jax.Array


class Block(nn.Module):
  """x += gate mixer(norm(x) (1 + scale) + shift), then the same with an MLP.

  Attributes:
    mixer: mixes positions; called and answering as `Attention`.
    mlp: acts on each position.
    eps: of the norms.
    rms: whether the norms are RMS norms and not layer norms; neither has
      parameters.
    dropout: share of the features of both branches that training drops.
  """

  mixer: nn.Module
  mlp: nn.Module
  eps: float = 1e-6
  rms: bool = False
  dropout: float = 0.0

  def __call__(
    self,
    x: Array,
    mod: Array,
    mask: Array | Plan | None,
    *,
    pos: Array | None = None,
    cache: Any = None,
    layer: Array | int = 0,
    keys: Array | None = None,
  ) -> tuple[Array, Any]:
    """One layer.

    Args:
      x: [B, T, D].
      mod: [B, 6, D]: gates, scales, shifts, of the mixer and the MLP each;
        or [B, E, 6, D], one for each of E runs of T / E positions.
      mask: what the mixer sees.
      pos: where the positions are, for the mixer.
      cache: of all layers.
      layer: which of them is ours.
      keys: Key[B] of this layer for dropout, or None.

    Returns:
      [B, T, D] and the new cache.
    """
    gate1, gate2, scale1, scale2, shift1, shift2 = parts(mod, x.shape[1])
    h = self._modulated(x, scale1, shift1)
    h, cache = self.mixer(h, mask, pos=pos, cache=cache, layer=layer)
    x = x + (gate1 * dropout(h, keys, self.dropout, 0)).astype(x.dtype)
    h = self.mlp(self._modulated(x, scale2, shift2))
    x = x + (gate2 * dropout(h, keys, self.dropout, 1)).astype(x.dtype)
    return x, cache

  def empty(self, *sizes) -> Cache:
    """See `Attention.empty`."""
    return self.mixer.empty(*sizes)

  def _modulated(self, x: Array, scale: Array, shift: Array) -> Array:
    norm = rms_norm if self.rms else layer_norm
    return modulate(norm(x, self.eps), scale, shift).astype(x.dtype)


def parts(mod: Array, positions: int) -> tuple[Array, ...]:
  """The parts of modulations, each [B, 1 | T, D], for T positions.

  Args:
    mod: [B, P, D], the same for all positions; or [B, E, P, D], one for each
      of E runs of T / E positions.
    positions: T.
  """
  if mod.ndim == 3:
    return tuple(mod[:, None, i] for i in range(mod.shape[1]))
  runs = positions // mod.shape[1]
  mod = jnp.repeat(mod, runs, axis=1) if runs > 1 else mod
  return tuple(mod[:, :, i] for i in range(mod.shape[2]))


class PlainBlock(nn.Module):
  """x += mixer(norm(x)), then the same with an MLP; unconditional (Llama).

  Attributes:
    mixer: mixes positions; called and answering as `Attention`.
    mlp: acts on each position.
    eps: of the norms.
    dropout: share of the features of both branches that training drops.
    rms: whether the norms are RMS norms and not layer norms with a bias (ViT).
  """

  mixer: nn.Module
  mlp: nn.Module
  eps: float = 1e-5
  dropout: float = 0.0
  rms: bool = True

  def setup(self):
    norm = RMSNorm if self.rms else LayerNorm
    self.norm1 = norm(self.eps)
    self.norm2 = norm(self.eps)

  def __call__(
    self,
    x: Array,
    mod: Array | None,
    mask: Array | Plan | None,
    *,
    pos: Array | None = None,
    cache: Any = None,
    layer: Array | int = 0,
    keys: Array | None = None,
  ) -> tuple[Array, Any]:
    """One layer; arguments as those of `Block`, and

    Args:
      mod: factors on the two branches, [B, 2, 1], or None.
      keys: Key[B] of this layer for dropout, or None.
    """
    factors = (1, 1) if mod is None else (mod[:, None, 0], mod[:, None, 1])
    h, cache = self.mixer(
      self.norm1(x), mask, pos=pos, cache=cache, layer=layer
    )
    x = x + (factors[0] * dropout(h, keys, self.dropout, 0)).astype(x.dtype)
    h = self.mlp(self.norm2(x))
    x = x + (factors[1] * dropout(h, keys, self.dropout, 1)).astype(x.dtype)
    return x, cache

  def empty(self, *sizes) -> Cache:
    """See `Attention.empty`."""
    return self.mixer.empty(*sizes)


def dropout(x: Array, keys: Array | None, rate: float, place: int) -> Array:
  """Zeroes a share `rate` of x [B, ...] and scales up the rest.

  Args:
    x: activations.
    keys: Key[B]; None changes nothing.
    rate: in [0, 1).
    place: tells the dropouts apart that have the same keys.
  """
  if keys is None or not rate:
    return x

  def kept(key):
    key = jax.random.fold_in(key, place)
    return jax.random.bernoulli(key, 1 - rate, x.shape[1:])

  return jnp.where(jax.vmap(kept)(keys), x / (1 - rate), 0)


def modulate(x: Array, scale: Array, shift: Array) -> Array:
  """x (1 + scale) + shift, for x [B, T, D] and the others [B, 1, D]."""
  return x * (1 + scale) + shift


def drop_path(
  keys: Array,
  rate: float,
  depth: int,
  *,
  first: float = 0.0,
  branches: int = 2,
) -> Array:
  """Gate factors f32[N, B, branches] of stochastic depth, one draw per example.

  Layer n of N is dropped with probability first + (rate - first) n / (N - 1),
  n from 0, each of its branches on its own; what stays is divided by 1 -
  probability.
  """
  keep = 1 - jnp.linspace(first, rate, depth)[:, None]
  draw = lambda key: jax.random.uniform(key, (depth, branches)) < keep
  stays = jax.vmap(draw, out_axes=1)(keys)
  return stays / keep[:, None]
