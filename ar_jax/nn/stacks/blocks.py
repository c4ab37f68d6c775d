"""The layers of a transformer: pre-norm blocks, with or without a condition
that modulates them.

Shapes: B batch, T positions, D width, N layers.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import check_choice
from ar_jax.core.plans.plan import Plan
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.cross_attention import CrossAttention, Memory
from ar_jax.nn.layers.norms import (
  LayerNorm,
  LayerScale,
  RMSNorm,
  layer_norm,
  rms_norm,
)

Array = jax.Array


class Block(nn.Module):
  """x += gate mixer(norm(x) (1 + scale) + shift), then the same with an MLP.

  Between the two, where there is a memory: x += cross(norm(x)), which nothing
  modulates.

  Attributes:
    mixer: mixes positions; called and answering as `Attention`.
    mlp: acts on each position.
    eps: of the norms.
    rms: whether the norms are RMS norms and not layer norms; neither has
      parameters.
    dropout: share of the features of the branches that training drops.
    cross: looks at a memory; None with stacks that have none.
    cross_norm: the norm before it; if None, one like the others.
  """

  mixer: nn.Module
  mlp: nn.Module
  eps: float = 1e-6
  rms: bool = False
  dropout: float = 0.0
  cross: CrossAttention | None = None
  cross_norm: nn.Module | None = None

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
    memory: Memory | None = None,
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
      memory: of this layer, with `cross`.

    Returns:
      [B, T, D] and the new cache.
    """
    gate1, gate2, scale1, scale2, shift1, shift2 = parts(mod, x.shape[1])
    h = self._modulated(x, scale1, shift1)
    h, cache = self.mixer(h, mask, pos=pos, cache=cache, layer=layer)
    x = x + (gate1 * dropout(h, keys, self.dropout, 0)).astype(x.dtype)
    if memory is not None:
      norm = self.cross_norm or self._norm
      h = self.cross(norm(x).astype(x.dtype), (memory.k, memory.v), memory.seen)
      x = x + dropout(h, keys, self.dropout, 2).astype(x.dtype)
    h = self.mlp(self._modulated(x, scale2, shift2))
    x = x + (gate2 * dropout(h, keys, self.dropout, 1)).astype(x.dtype)
    return x, cache

  def empty(self, *sizes) -> Cache:
    """See `Attention.empty`."""
    return self.mixer.empty(*sizes)

  def _norm(self, x: Array) -> Array:
    return (rms_norm if self.rms else layer_norm)(x, self.eps)

  def _modulated(self, x: Array, scale: Array, shift: Array) -> Array:
    return modulate(self._norm(x), scale, shift).astype(x.dtype)


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
  """x += mixer(norm(x)), then the same with attention to a memory, where there
  is one, and with an MLP; unconditional (Llama).

  Attributes:
    mixer: mixes positions; called and answering as `Attention`.
    mlp: acts on each position.
    eps: of the norms.
    dropout: share of the features of the branches that training drops.
    rms: whether the norms are RMS norms and not layer norms with a bias (ViT).
    cross: looks at a memory; None with stacks that have none.
    cross_norm: its norm; if None, one like the others.
    order: "pre", as above; or "post", x = norm(x + mixer(x)), as in the first
      transformer (arXiv 1706.03762), whose stack needs no last norm.
    layer_scale: what the factors of a `LayerScale` behind each branch begin
      with; None for no such factors.
  """

  mixer: nn.Module
  mlp: nn.Module
  eps: float = 1e-5
  dropout: float = 0.0
  rms: bool = True
  cross: CrossAttention | None = None
  cross_norm: nn.Module | None = None
  order: str = "pre"
  layer_scale: float | None = None

  def setup(self):
    check_choice("order", self.order, ("pre", "post"))
    norm = RMSNorm if self.rms else LayerNorm
    self.norm1 = norm(self.eps)
    self.norm2 = norm(self.eps)
    if self.cross is not None and self.cross_norm is None:
      self.norm3 = norm(self.eps)
    if self.layer_scale is not None:
      start = self.layer_scale
      self.scales = [LayerScale(start) for _ in range(self.branches)]

  @property
  def branches(self) -> int:
    """What stochastic depth may drop."""
    return 2 + (self.cross is not None)

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
    memory: Memory | None = None,
  ) -> tuple[Array, Any]:
    """One layer; arguments as those of `Block`, and

    Args:
      mod: factors on the branches, [B, 2 | 3, 1], or None: on the mixer, the
        MLP and, the third, on the attention to the memory.
      keys: Key[B] of this layer for dropout, or None.
    """

    def add(x, place, norm, branch):
      h, cache = branch(norm(x) if self.order == "pre" else x)
      if self.layer_scale is not None:
        h = self.scales[place](h)
      factor = 1 if mod is None else mod[:, None, place]
      h = factor * dropout(h, keys, self.dropout, place)
      x = x + h.astype(x.dtype)
      return x if self.order == "pre" else norm(x), cache

    mix = lambda h: self.mixer(h, mask, pos=pos, cache=cache, layer=layer)
    x, cache = add(x, 0, self.norm1, mix)
    if memory is not None:
      norm, kv = self.cross_norm or self.norm3, (memory.k, memory.v)
      look = lambda h: (self.cross(h, kv, memory.seen), None)
      x, _ = add(x, 2, norm, look)
    x, _ = add(x, 1, self.norm2, lambda h: (self.mlp(h), None))
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
