"""Adapters between the layers of a frozen `NextScale`, which make it follow a
picture (ECM, arXiv 2510.05610).

Shapes: B batch, H W sides of a picture, c channels, L slots, T of them, K maps
of sides p_k, M adapters, N layers, D width, E features of a patch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core import forms
from ar_jax.core.errors import UserError
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.core.signals.resize import resize
from ar_jax.encoders.vit import Encoder
from ar_jax.families.scale.net import NextScale
from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import AdaLN, Identity, layer_norm
from ar_jax.nn.stacks.blocks import modulate, parts
from ar_jax.nn.stacks.segments import Segments

Array = jax.Array


def fresh(module: Any) -> Any:
  """The same module once more, with parameters of its own."""
  return module.clone(parent=None, _deep_clone=True, _reset_names=True)


class Adapters(nn.Module):
  """What is added before M of the layers. With the hidden states h and the
  features u of the control, u = r of the picture at first, an adapter makes

    s = h + u,  a = s + gate1 attention(norm(s)),
    f = a + g gate2 MLP(norm(a)),  h += Z f,  u += f - s,

  both branches modulated by the class. The attention is its own and sees what
  that of the layers sees; the MLP is one for all, of which each adapter has a
  gate g for every feature. Z begins as 0, so h is at first as without.

  Attributes:
    encoder: of control pictures.
    mlps: one, or one for each adapter, which then has no gate g.
    mixers: the M attentions.
    sides: p_1 < ... < p_K.
    width: D.
    dtype: of the computation.
  """

  encoder: Encoder
  mlps: Sequence[Mlp]
  mixers: Sequence[Attention]
  sides: tuple[int, ...]
  width: int
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    count, ones = len(self.mixers), nn.initializers.ones
    self.project = nn.Dense(self.width, use_bias=False, dtype=self.dtype)
    self.ada = AdaLN(count, (0.02,) * 6, self.dtype)
    if len(self.mlps) == 1:
      self.gates = self.param("gates", ones, (count, self.width))
    zeros = nn.initializers.zeros
    self.out = [
      nn.Dense(self.width, kernel_init=zeros, dtype=self.dtype)
      for _ in range(count)
    ]

  def rows(self, picture: Array, hidden: Array | None = None) -> Array:
    """r f32[B, L, D] of pictures u8[B, H, W, c], or f32 in [-1, 1]: the
    features of their patches, averaged over each cell of every map. 0 where
    `hidden` bool[B]. Pictures of other sides than a patch for each unit of the
    last map are resized to it."""
    x = forms.raw(jnp.asarray(picture))
    sides = [makers.pair(p) for p in self.sides]
    seen = tuple(self.encoder.patch * p for p in sides[-1])
    x = jnp.clip(resize(x, seen, "bicubic"), -1, 1)
    grid = self.encoder(x).grid
    flat = lambda x: x.reshape(len(x), -1, x.shape[-1])
    every = [flat(resize(grid, p, "area")) for p in sides]
    r = self.project(jnp.concatenate(every, 1)).astype(jnp.float32)
    return r if hidden is None else jnp.where(hidden[:, None, None], 0.0, r)

  def modulations(self, cond: Array) -> Array:
    """[M, B, 6, D] of the embedding [B, D] of the class: gates, which begin
    about 1, scales and shifts, which begin about 0, of both branches."""
    return self.ada(cond).at[:, :, :2].add(1.0)

  def adapted(
    self,
    m: int,
    s: Array,
    mod: Array,
    mask: Array | Plan | None,
    cache: Cache | None,
  ) -> tuple[Array, Array, Cache | None]:
    """One adapter.

    Args:
      m: which.
      s: [B, T, D].
      mod: [B, 6, D], its modulations.
      mask: what its attention sees; None with a cache, of which it sees all.
      cache: its own, or None.

    Returns:
      f and Z f, [B, T, D]; and the cache with T more rows.
    """
    gate1, gate2, scale1, scale2, shift1, shift2 = parts(mod, s.shape[1])
    normed = lambda x, scale, shift: modulate(
      layer_norm(x), scale, shift
    ).astype(self.dtype)
    h, cache = self.mixers[m](normed(s, scale1, shift1), mask, cache=cache)
    a = s + gate1 * h
    shared = len(self.mlps) == 1
    h = self.mlps[0 if shared else m](normed(a, scale2, shift2))
    f = a + gate2 * (h * self.gates[m][None, None] if shared else h)
    cache = cache and cache.advance(s.shape[1])
    return f, self.out[m](f), cache

  def caches(self, batch: int, length: int) -> tuple[Cache, ...]:
    """Empty ones, of each adapter."""
    sizes = 1, batch, length, self.width, self.dtype
    return tuple(mixer.empty(*sizes) for mixer in self.mixers)

  def __call__(self, picture: Array, cond: Array, x: Array) -> Array:
    """All adapters one behind the other, without layers between them and each
    seeing all: what initialises them.

    Args:
      picture: as in `rows`. cond: [B, D]. x: [B, L, D].
    """
    flow = Flow(self, self.rows(picture), self.modulations(cond))
    for m in range(len(self.mixers)):
      x = flow(m, x)
    return x


class Flow:
  """What runs between the parts of a stack: the control. Called before part m,
  see `Segments`.

  Attributes:
    u: [B, T, D], changed by each adapter.
    caches: of each adapter, or None; changed as well.
  """

  def __init__(
    self,
    adapters: Adapters,
    u: Array,
    mods: Array,
    mask: Array | Plan | None = None,
    caches: Sequence[Cache] | None = None,
    strength: float = 1.0,
  ):
    self.u = u
    self.caches = list(caches or [None] * len(adapters.mixers))
    self._given = adapters, mods, mask, strength

  def __call__(self, m: int, h: Array) -> Array:
    adapters, mods, mask, strength = self._given
    s = h + self.u
    f, more, self.caches[m] = adapters.adapted(
      m, s, mods[m], mask, self.caches[m]
    )
    self.u = self.u + (f - s)
    return h + (more if strength == 1.0 else strength * more).astype(h.dtype)


def cut(net: NextScale, count: int) -> NextScale:
  """The net with its stack in as many parts of equal depth.

  Raises:
    UserError: the layers do not divide so.
  """
  stack = net.backbone
  if count < 1 or stack.depth % count:
    raise UserError(
      f"adapters={count}: the {stack.depth} layers of the target must divide "
      "into so many parts"
    )
  depth = stack.depth // count
  part = lambda m, **end: fresh(stack).clone(
    depth=depth, ada=stack.ada.clone(depth=depth), drop=0.0, **end
  )
  inner = dict(out_ada=None, out_norm=Identity())
  every = [part(m, **(inner if m + 1 < count else {})) for m in range(count)]
  return net.clone(backbone=Segments(tuple(every)))


def cut_params(params: Any, count: int) -> dict[str, Any]:
  """The parameters of `cut(net, count)`, of those of the net."""
  stack, found = params["backbone"], {}
  depth = len(jax.tree.leaves(stack["block"])[0]) // count
  for m in range(count):
    own = lambda x, m=m: x[m * depth : (m + 1) * depth]
    # One linear for all layers, where there is one, is of every part.
    ada = {
      name: leaf if name == "shared" else own(leaf)
      for name, leaf in stack["ada"].items()
    }
    found[f"parts_{m}"] = {"block": jax.tree.map(own, stack["block"])}
    found[f"parts_{m}"]["ada"] = ada
  found[f"parts_{count - 1}"]["out_ada"] = stack["out_ada"]
  return {**params, "backbone": found}


@dataclasses.dataclass
class Steered:
  """A net in parts with its adapters, both bound, for given control pictures:
  to be used where `draw.generate` takes a `NextScale`.

  Attributes:
    net: of `cut`.
    adapters: as many as it has parts.
    rows: f32[B, L, D], what `Adapters.rows` makes of the pictures.
    strength: a factor on what is added; 0 is the net alone.
  """

  net: NextScale
  adapters: Adapters
  rows: Array
  strength: float = 1.0

  @property
  def plan(self) -> Plan:
    return self.net.plan

  @property
  def head(self) -> nn.Module:
    return self.net.head

  def latent(self, x: Array) -> Array:
    return self.net.latent(x)

  def begin(self, label: Array) -> tuple[Array, Any]:
    first, cond = self.net.begin(label)
    return first, (cond, self.adapters.modulations(self.net.label(label)))

  def cache(self, batch: int) -> tuple[Any, tuple[Cache, ...]]:
    own = self.adapters.caches(batch, len(self.plan))
    return self.net.cache(batch), own

  def step(self, s: int, x: Array, cond: Any, cache: Any) -> tuple[Array, Any]:
    """As `NextScale.step`."""
    span = self.plan.span(s)
    x = x + self.net.places(span)[None]
    flow = Flow(
      self.adapters, self.rows[:, span], cond[1], None, cache[1], self.strength
    )
    h, base = self.net.backbone(x, cond=cond[0], cache=cache[0], between=flow)
    return h, (base, tuple(flow.caches))

  def __call__(
    self, label: Array, embedding: Array, maps: int | None = None
  ) -> Array:
    """Hidden states f32[B, T, D] of the slots of the first `maps`, of all if
    None; other arguments as those of `NextScale`."""
    maps = maps or self.plan.steps
    count = sum(self.plan.sizes[:maps])
    first, (cond, mods) = self.begin(label)
    x = jnp.concatenate([first, self.latent(embedding[:, 1:count])], axis=1)
    x = x + self.net.places(slice(0, count))[None]
    mask = makers.scales(self.adapters.sides[:maps])
    flow = Flow(
      self.adapters, self.rows[:, :count], mods, mask, None, self.strength
    )
    return self.net.backbone(x, mask, cond=cond, between=flow)[0]
