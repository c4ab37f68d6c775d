"""A `NextToken` that follows a picture: a row for each unit, added to the
position that predicts it, at several depths (ControlAR, arXiv 2410.02705); or,
for comparison, the same rows in front of the sequence.

Shapes: B batch, H W sides of the picture, h w cells, L = h w units, P positions
of the prefix, T positions, K parts of the stack, E features, D width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core import forms
from ar_jax.core.errors import UserError
from ar_jax.core.plans.makers import raster
from ar_jax.core.plans.plan import Plan
from ar_jax.core.signals.resize import resize
from ar_jax.encoders.vit import Encoder
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.prefix import Cond, Prefix
from ar_jax.nn.layers.cache import Cache, Joint

Array = jax.Array

STARTS = ("zero_last", "released")


class Unbiased(nn.Module):
  """Linear, tanh-GELU, linear, without biases: of 0 it makes 0.

  Attributes:
    width: D.
    zero: whether the second matrix begins with zeros.
    stddev: initial standard deviation else; None for 1 / sqrt(E).
    dtype: of the computation.
  """

  width: int
  zero: bool = False
  stddev: float | None = None
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., D] of x [..., E]."""
    init = nn.initializers.lecun_normal()
    if self.stddev is not None:
      init = nn.initializers.normal(self.stddev)
    last = nn.initializers.zeros if self.zero else init
    dense = lambda name, init: nn.Dense(
      self.width, use_bias=False, kernel_init=init, dtype=self.dtype, name=name
    )
    return dense("fc2", last)(nn.gelu(dense("fc1", init)(x), approximate=True))


class Control(nn.Module):
  """A picture -> a row for each unit, and of each row one for each part of a
  stack. No picture is rows of 0: the features of the encoder are 0, which a
  black picture's are not.

  Attributes:
    encoder: of pictures, which sees a patch for each unit.
    width: D.
    parts: K; 0 for rows that are added nowhere.
    stride: pixels of a unit on either side.
    fit: how pictures are brought to the patches of the encoder, where these
      are not of `stride` pixels: a method of `core.signals.resize`.
    start: of STARTS: "zero_last" begins without control, the last maps being
      0; "released" is normal noise of 0.02 everywhere, which is what the
      published training in fact begins with.
    dtype: of the maps.
  """

  encoder: Encoder
  width: int
  parts: int
  stride: int
  fit: str = "nearest"
  start: str = "zero_last"
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    zero = self.start == "zero_last"
    own = dict(stddev=None if zero else 0.02, dtype=self.dtype)
    self.adapter = Unbiased(self.width, **own)
    self.joint = Unbiased(self.width, **own)
    self.layers = [
      Unbiased(self.width, zero=zero, **own) for _ in range(self.parts)
    ]

  def features(self, picture: Array) -> Array:
    """f32[B, L, E] of pictures u8[B, H, W, c], or f32 in [-1, 1]."""
    x = forms.raw(jnp.asarray(picture))
    h, w = cells(x.shape[1:3], self.stride)
    patch = self.encoder.patch
    if patch != self.stride:
      x = resize(x, (h * patch, w * patch), self.fit)
    return self.encoder(x).grid.reshape(len(x), h * w, -1)

  def rows(self, picture: Array, hidden: Array | None) -> Array:
    """[B, L, D]; 0 where `hidden` bool[B]."""
    x = self.features(picture)
    if hidden is not None:
      x = jnp.where(hidden[:, None, None], 0, x)
    return self.joint(self.adapter(x))

  def __call__(self, picture: Array, hidden: Array | None = None) -> Array:
    """[K, B, L, D], of each part."""
    x = self.rows(picture, hidden)
    return jnp.stack([layer(x) for layer in self.layers])


def cells(sides: tuple[int, int], stride: int) -> tuple[int, int]:
  """(h, w) of a picture of these sides.

  Raises:
    UserError: they are no multiples of the stride.
  """
  height, width = sides
  if height % stride or width % stride or not height or not width:
    raise UserError(
      f"a control picture of {height}x{width}: both sides must be multiples of "
      f"{stride}, the pixels of a unit"
    )
  return height // stride, width // stride


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Controls(Joint):
  """The caches of a stack in parts, and what is added before each.

  Attributes:
    every: [K, B, L, D], of all units.
    now: [K, B, T, D], of the units of this call; None between calls.
  """

  every: Any = None
  now: Any = None

  def rows(self, rows: slice) -> Controls:
    """As `Cache.rows`."""
    some = super().rows(rows)
    return dataclasses.replace(some, every=self.every[:, rows])

  def tree_flatten(self):
    static = self.index if isinstance(self.index, int) else None
    traced = () if static is not None else (self.index,)
    return (self.parts, self.every, self.now, *traced), static

  @classmethod
  def tree_unflatten(cls, index, children):
    parts, rows, now, *traced = children
    return cls(parts, *(traced or (index,)), rows, now)

  def _each(self, change: Any) -> Controls:
    return dataclasses.replace(self, parts=tuple(map(change, self.parts)))

  def at(self, places: Array) -> Controls:
    """With `now` of the units at places i32[1 | B, T]; of those that are not
    there, which finished examples may ask for, the nearest."""
    places = jnp.broadcast_to(places, (self.every.shape[1], places.shape[1]))
    now = jnp.take_along_axis(
      self.every, places[None, :, :, None], axis=2, mode="clip"
    )
    return dataclasses.replace(self, now=now)


class Controlled(NextToken):
  """See above: position P - 1 + i, which predicts unit i, gets row i.

  Attributes: as `NextToken`, whose `backbone` is `Segments` of K parts, and
    control: of pictures.
    field: where they are in a batch.
    strength: factor of what is added, 1 in training.
    rope_side: side of a square grid whose rotations the units take one after
      the other, whatever their own grid; None for those of their own.
  """

  control: Control | None = None
  field: str = "edges"
  strength: float = 1.0
  rope_side: int | None = None

  def example(self) -> Cond:
    picture = blank(self.plan, self.control)
    return {**super().example(), self.field: picture}

  def beside(self, cond: Cond, hidden: Array | None = None) -> Array:
    return self.control(cond[self.field], hidden)[0] * self.strength

  @property
  def ground(self) -> Plan:
    if self.rope_side is None:
      return self.plan
    if len(self.plan) > self.rope_side**2:
      raise UserError(
        f"{len(self.plan)} units: this model knows the places of "
        f"{self.rope_side}x{self.rope_side}; draw smaller images"
      )
    return raster(self.rope_side, self.rope_side)

  def step(
    self,
    units: Array,
    cache: Controls,
    valid: Array | None = None,
    tree: tuple[Array, Array] | None = None,
  ) -> tuple[Array, Controls]:
    at = self.places(cache, units.shape[1], tree) - (self.prefix.length - 1)
    return super().step(units, cache.at(at), valid, tree)

  def _embed(
    self, cond: Cond, units: Array, hidden: Array | None
  ) -> tuple[Array, Array]:
    x, _ = super()._embed(cond, units, hidden)
    return x, self.control(cond[self.field], hidden) * self.strength

  def _stack(
    self, x: Array, mask: Any, rows: Array | None, **options
  ) -> tuple[Array, Cache | None]:
    cache, first = options.pop("cache", None), 0
    if rows is None:
      rows, now = cache.every, cache.now
    else:
      first = self.prefix.length - 1
      now = rows[:, :, : x.shape[1] - first]
    add = lambda i, x: x.at[:, first:].add(now[i].astype(x.dtype))
    h, cache = self.backbone(x, mask, cache=cache, between=add, **options)
    if cache is None:
      return h, None
    return h, Controls(cache.parts, cache.index, rows)


class Prefilled(Prefix):
  """The rows of a picture, at the places of their units, and behind them
  another prefix: what a `Controlled` is compared with.

  Attributes:
    front: the prefix behind the rows.
    control: of pictures.
    grid: (h, w).
    field: where pictures are in a batch.
  """

  front: nn.Module
  control: Control
  grid: tuple[int, int]
  field: str = "edges"

  @property
  def fields(self) -> tuple[str, ...]:
    return (*self.front.fields, self.field)

  @property
  def count(self) -> int:
    """L."""
    return self.grid[0] * self.grid[1]

  @property
  def length(self) -> int:
    return self.count + self.front.length

  @property
  def labels(self) -> int | None:
    return self.front.labels

  @property
  def slots(self) -> tuple[int, ...]:
    return (*range(self.count), *(-1,) * self.front.length)

  def example(self) -> Cond:
    picture = blank(raster(*self.grid), self.control)
    return {**self.front.example(), self.field: picture}

  def valid(self, cond: Cond) -> Array | None:
    own = self.front.valid(cond)
    if own is None:
      return None
    return jnp.pad(own, ((0, 0), (self.count, 0)), constant_values=True)

  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[B, L + P, D]; where `hidden` bool[B], rows of 0 and no condition."""
    picture = cond[self.field]
    found = cells(picture.shape[1:3], self.control.stride)
    if found != self.grid:
      raise UserError(
        f"a control picture of {found[0]}x{found[1]} units: with "
        f"fusion='prefilled' it must be {self.grid[0]}x{self.grid[1]}"
      )
    rows = self.control.rows(picture, hidden)
    front = self.front(cond, hidden)
    front = jnp.broadcast_to(front, (len(rows), *front.shape[1:]))
    return jnp.concatenate([rows, front], axis=1)


def blank(plan: Plan, control: Control) -> Array:
  """A black picture u8[1, H, W, c] for the units of a plan."""
  h, w = grid(plan)
  sides = h * control.stride, w * control.stride
  return jnp.zeros((1, *sides, control.encoder.in_channels), jnp.uint8)


def grid(plan: Plan) -> tuple[int, int]:
  """(h, w) of a plan of rows and columns."""
  return int(plan["row"].max()) + 1, int(plan["col"].max()) + 1
