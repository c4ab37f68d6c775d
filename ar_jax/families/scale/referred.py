"""The net of maps behind a text, with a source image in front of the maps.

VAREdit (arXiv 2508.15772) over Infinity (arXiv 2412.04431). Its parameters are
those of `PromptedScales`, but that the first layer stands by itself.

Shapes: B batch, L slots of the maps, N of the source, K bits of a slot, D
width, E features of a head.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.plans import aspects, makers
from ar_jax.families.scale.prompted import Cond, PromptedScales
from ar_jax.nn.layers.aligned_attention import AlignedAttention
from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.cache import Joint
from ar_jax.nn.layers.norms import Identity
from ar_jax.nn.layers.positions import grid_places, rotations
from ar_jax.nn.stacks.segments import Segments
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array
Shape = tuple[int, int]

# What of the source stands in front of the maps: nothing; its finest map; all
# of its maps; its finest map, which the first layer shows to each map at the
# size of that map.
REFERENCES = ("none", "finest", "all", "aligned")
ROPE_INDICES = ("exact", "table_1m")


class OneCondition(Segments):
  """Segments whose layers are modulated as those of one stack.

  Attributes:
    ada, out_ada: as of `Backbone`, of all layers; the parts have none.
  """

  ada: nn.Module | None = None
  out_ada: nn.Module | None = None

  def condition(self, cond: Array) -> tuple[Any, ...]:
    """What the parts need of cond [B, D]; once for all calls with it."""
    mod, out, start, found = self.ada(cond), self.out_ada(cond), 0, []
    for part in self.parts:
      stop = start + part.depth
      found.append((mod[start:stop], out if part is self.parts[-1] else None))
      start = stop
    return tuple(found)


class Referred(PromptedScales):
  """The net.

  A condition has `reference` [B, N, K] as well, the source as a tokenizer has
  it before it is made bits.

  Attributes:
    reference: a name of REFERENCES.
    rope_index: where the source lies: "exact", beside the target, cells as far
      apart as those of the target; or as the released weights have it,
      "table_1m": row n of the sequence takes entry n of a table that was made
      for a megapixel, so below it rows take the places of others.
  """

  reference: str = "aligned"
  rope_index: str = "exact"

  @property
  def source(self) -> tuple[Shape, ...]:
    """The grids of what stands in front."""
    return grids(self.reference, self.shapes)

  @property
  def before(self) -> int:
    """N."""
    return sum(h * w for h, w in self.source)

  def example(self) -> dict[str, Array]:
    """A condition of the right shape, of one example."""
    rows = jnp.zeros((1, self.before, self.head.bits))
    return super().example() | {"reference": rows}

  def __call__(
    self, cond: Cond, embedding: Array, keys: Array | None = None
  ) -> Array:
    """Hidden states f32[B, L, D] of the slots of the maps, for training;
    arguments as of `PromptedScales`."""
    first, (ada, memory) = self.begin(cond)
    x = jnp.concatenate([first, self.latent(embedding[:, 1:])], axis=1)
    x = jnp.concatenate([self.front(cond), x + self.places()[None]], axis=1)
    every = self.plan
    if self.before:
      every = makers.prefixed(self.plan, self.before)
    h, _ = self.backbone(
      x, every, pos=self.every_turn(), cond=ada, memory=memory, keys=keys
    )
    return h[:, self.before :]

  def front(self, cond: Cond) -> Array:
    """[B, N, D], what is read of the source. It counts as of the level of the
    map whose size it has."""
    sizes = [h * w for h, w in self.source]
    last = len(self.shapes)
    level = np.repeat(np.arange(last - len(sizes), last), sizes)
    rows = jnp.take(self.level, jnp.asarray(level, jnp.int32), axis=0)
    return self.latent(cond["reference"]) + rows[None]

  def shown(self, cond: Cond, given: Any, cache: Joint) -> Joint:
    """The cache, with the source in it; `given` is what `begin` gives of the
    condition."""
    if not self.before:
      return cache
    ada, memory = given
    turns = self.every_turn()[: self.before]
    x = self.front(cond)
    return self.backbone(x, pos=turns, cond=ada, memory=memory, cache=cache)[1]

  def turns(self) -> np.ndarray:
    """f32[L, E / 2, 2]: the rotations of the slots of the maps."""
    return self.every_turn()[self.before :]

  def every_turn(self) -> np.ndarray:
    """f32[N + L, E / 2, 2]: those of the source in front of them."""
    length = self.before + len(self.plan)
    if self.rope_index == "exact":
      places = beside(self.source, self.shapes, self.ground)
    else:
      ground = aspects.ground(1.0)
      places = beside((ground,), aspects.maps(1.0), ground)[:, :length]
    if places.shape[1] < length:
      raise UserError(
        f"rope_index={self.rope_index!r}: a table of {places.shape[1]} places "
        f"for {length} rows; use 'exact'"
      )
    return rotations(*places, self.backbone.head_width(self.width))

  def on(
    self, shapes: tuple[Shape, ...], ground: Shape | None = None
  ) -> Referred:
    """The same net on other maps, and perhaps another ground."""
    first, rest = self.backbone.parts
    mixer = first_mixer(first.block.mixer, self.reference, shapes)
    first = first.clone(block=first.block.clone(mixer=mixer))
    backbone = self.backbone.clone(parts=(first, rest))
    return super().on(shapes, ground).clone(backbone=backbone)

  def cache(self, batch: int) -> Joint:
    """An empty cache for the source and all slots."""
    length = self.before + len(self.plan)
    return self.backbone.cache(batch, length, self.width)


def grids(reference: str, shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
  """The grids of what stands in front of maps of these shapes.

  Raises:
    UserError: there is no such reference.
  """
  check_choice("reference", reference, REFERENCES)
  return {"none": (), "all": shapes}.get(reference, shapes[-1:])


def beside(
  source: tuple[Shape, ...], shapes: tuple[Shape, ...], ground: Shape
) -> np.ndarray:
  """Rows and columns f64[2, N + L]: a source on the ground that lies behind
  that of the maps in both directions, and then the maps."""
  apart = np.reshape(ground, (2, 1))
  found = [grid_places((shape,), ground) + apart for shape in source]
  return np.concatenate([*found, grid_places(shapes, ground)], axis=1)


def referred(
  net: PromptedScales, reference: str, rope_index: str = "exact"
) -> Referred:
  """The net with a source in front; arguments as its attributes.

  Raises:
    UserError: there is no such reference or index, or there is one layer only.
  """
  check_choice("rope_index", rope_index, ROPE_INDICES)
  grids(reference, net.shapes)
  stack = net.backbone
  if stack.depth < 2:
    raise UserError(f"depth={stack.depth}: the first layer is not the last")
  same = dict(remat=stack.remat, dtype=stack.dtype)
  mixer = first_mixer(stack.block.mixer, reference, net.shapes)
  # Two blocks that share no module; stochastic depth grows evenly from none in
  # the first layer.
  own = dict(parent=None, _deep_clone=True, _reset_names=True)
  parts = (
    Backbone(
      stack.block.clone(mixer=mixer, **own), 1, out_norm=Identity(), **same
    ),
    Backbone(
      stack.block.clone(**own),
      stack.depth - 1,
      drop=stack.drop,
      drop_from=stack.drop / (stack.depth - 1),
      **same,
    ),
  )
  joint = OneCondition(parts, ada=stack.ada, out_ada=stack.out_ada)
  fields = [f.name for f in dataclasses.fields(PromptedScales)]
  fields = [name for name in fields if name not in ("parent", "name")]
  given = {name: getattr(net, name) for name in fields}
  return Referred(
    **(given | {"backbone": joint}),
    reference=reference,
    rope_index=rope_index,
  )


def first_mixer(
  mixer: Attention, reference: str, shapes: tuple[Shape, ...]
) -> Attention:
  """The attention of the first layer."""
  names = [f.name for f in dataclasses.fields(Attention)]
  given = {n: getattr(mixer, n) for n in names if n not in ("parent", "name")}
  given["norm"] = mixer.norm.clone(parent=None, _reset_names=True)
  given["parent"] = None  # not that of whoever calls
  if reference != "aligned":
    return Attention(**given)
  return AlignedAttention(**given, source=shapes[-1], shapes=shapes)


def from_one_stack(params: Any) -> dict[str, Any]:
  """The parameters of a `Referred` of those of a `PromptedScales`."""
  backbone = dict(params["backbone"])
  block = backbone.pop("block")
  take = lambda rows: jax.tree.map(lambda x: x[rows], block)
  backbone["parts_0"] = {"block": take(slice(0, 1))}
  backbone["parts_1"] = {"block": take(slice(1, None))}
  return {**params, "backbone": backbone}


def to_one_stack(params: Any) -> dict[str, Any]:
  """Undoes `from_one_stack`."""
  backbone = dict(params["backbone"])
  parts = [backbone.pop(f"parts_{i}")["block"] for i in range(2)]
  join = functools.partial(np.concatenate, axis=0)
  backbone["block"] = jax.tree.map(lambda *x: join(x), *parts)
  return {**params, "backbone": backbone}
