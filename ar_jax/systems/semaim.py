"""SemAIM: a vision transformer that learns by predicting patch after patch.

Semantic-Aware Autoregressive Image Modeling for Visual Representation Learning
(AAAI 2024, arXiv 2312.10457). New in it:
  - every image has an order of its own: from the patch that is most similar to
    the class token outwards, by the features of the model itself;
  - two streams predict all patches of any order at once: content, in which a
    patch sees itself and those before it, and queries, which begin as places
    alone and see those before;
  - it is not a generator: what counts is what the content stream, all masks
    off, knows of an image (`features`, see the evaluator `probe`).

Patches are regressed, so `sample` is no draw of images: it fills the later
patches of a given one with means, one after the other.

Shapes: B batch, H W image sides, c channels, p side of a patch, n = H / p, L =
n^2 patches, D width, N layers, C numbers of a target.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core import forms, system
from ar_jax.core.errors import check_choice
from ar_jax.core.plans import ranks
from ar_jax.core.signals.blur import blurred
from ar_jax.core.signals.patches import cut, join
from ar_jax.core.system import Array, Batch, Loss, System, UserError, Vars
from ar_jax.encoders.two_streams import (
  TwoStreamViT,
  centred,
  seen_tokens,
  similar,
  unit,
)
from ar_jax.encoders.vit import ViT
from ar_jax.nn.stacks.two_streams import two_streams

# The published models: arguments of `build`. The release knows the third, too,
# with a depth of the queries that does not divide its own: 16 is ours.
SIZES = {
  "b": dict(depth=12, width=768, heads=12, query_depth=12),
  "l": dict(depth=24, width=1024, heads=16, query_depth=12),
  "h": dict(depth=32, width=1280, heads=16, query_depth=16),
}
SIMILARITIES = ("class", "mean", "attention")
TARGETS = ("pixels", "features")
HEADS = ("mlp", "linear")


@dataclasses.dataclass(frozen=True)
class SemAIM(System):
  """The system. Variables: `params`; with a teacher also `teacher`, those of a
  frozen encoder or the average of its own.

  Attributes:
    net: the network.
    order: of `ranks.ORDERS`.
    similarity: what tells the centre of an image: the features of the "class"
      token, the "mean" of those of all patches, or the "attention" of the class
      token in the last layer.
    target: "pixels", blurred and every patch centred; or "features" of the
      teacher.
    teacher: a frozen encoder, whose features also give the order; None.
    average: decay of the average of its own weights that is the teacher
      instead; None for no such.
    blur: size in pixels and sigma; (0, 0.0) for none.
    centre: whether each patch of pixels is centred.
    shared: whether the queries have the weights of the content.
    mean, std: of pixels in [0, 1], seen as 0 and 1; one number, or one for each
      channel.
    channels: c.
  """

  net: TwoStreamViT
  order: str = "semantic"
  similarity: str = "class"
  target: str = "pixels"
  teacher: ViT | None = None
  average: float | None = None
  blur: tuple[int, float] = (9, 1.0)
  centre: bool = True
  shared: bool = False
  mean: float | tuple[float, ...] = 0.5
  std: float | tuple[float, ...] = 0.5
  channels: int = 3

  needs = ("image",)

  @property
  def moving(self) -> frozenset[str]:
    return frozenset({"teacher"} if self.average else ())

  def init(self, key: Array, batch: Batch) -> Vars:
    own, other = jax.random.split(key)
    net, size = self.net, self.net.side * self.net.patch
    x = jnp.zeros((1, size, size, self.channels))
    params = net.init(own, x, jnp.zeros((1, net.side**2)))["params"]
    if self.shared:
      params["streams"].pop("query")
    found = {"params": params}
    if self.teacher is not None:
      found["teacher"] = self.teacher.init(other, batch)["params"]
    return self.ready(found | ({"teacher": {}} if self.average else {}))

  def ready(self, variables: Vars) -> Vars:
    if not self.average:
      return variables
    # An array may be given away once alone.
    return {**variables, "teacher": jax.tree.map(jnp.copy, variables["params"])}

  def bound(self, params: Any) -> TwoStreamViT:
    """The network with its weights."""
    if self.shared:
      streams = params["streams"]
      query = self.net.streams.as_query(streams["block"])
      params = {**params, "streams": {**streams, "query": query}}
    return self.net.bind({"params": params})

  def normal(self, batch: Batch) -> Array:
    """f32[B, H, H, c]: the images of a batch as the network sees them.

    Raises:
      UserError: they are of another size.
    """
    x, size = batch["image"], self.net.side * self.net.patch
    if x.shape[1:] != (size, size, self.channels):
      raise UserError(
        f"images of {x.shape[1:]}: this model reads "
        f"{(size, size, self.channels)}; set data.size and data.channels, or "
        "model.side, patch and channels"
      )
    shown = (forms.raw(jnp.asarray(x)) + 1) / 2
    return (shown - self._row(self.mean)) / self._row(self.std)

  def _row(self, numbers) -> Array:
    return jnp.asarray(numbers, jnp.float32).reshape(1, 1, 1, -1)

  def seen(self, variables: Vars, batch: Batch, x: Array) -> Array:
    """f32[B, 1 + L, E]: what the teacher sees in images.

    Raises:
      UserError: it cuts them into another number of patches.
    """
    if self.average:
      return self.bound(variables["teacher"]).tokens(x)
    net = self.teacher.net.bind({"params": variables["teacher"]})
    return seen_tokens(net, batch["image"], self.net.side)

  def rank(
    self,
    variables: Vars,
    x: Array,
    keys: Array,
    seen: Array | None = None,
  ) -> Array:
    """f32[B, L]: the order of normal images, by keys Key[B]; `seen` is what
    the teacher sees in them."""
    side = self.net.side
    draw = lambda key: jax.random.uniform(key, (side**2 + 2,))
    noise, found = jax.vmap(draw)(keys), None
    if self.order in ranks.OF_FEATURES:
      own = variables["teacher" if self.average else "params"]
      if self.similarity == "attention":
        found = self.bound(own).attention(x)
      else:
        tokens = self.bound(own).tokens(x) if seen is None else seen
        found = similar(tokens, self.similarity)
    rank = ranks.ranks(self.order, side, noise[:, 2:], noise[:, :2], found)
    return jax.lax.stop_gradient(rank)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """The mean error of all patches, in an order by `index`."""
    x, keys = self.normal(batch), system.example_keys(key, batch)
    seen = None
    if self.teacher is not None or self.target == "features":
      seen = jax.lax.stop_gradient(self.seen(variables, batch, x))
    rank = self.rank(variables, x, keys, seen)
    got = self.bound(variables["params"])(x, rank)[:, 1:]
    if self.target == "features":
      error = jnp.sum(jnp.square(unit(got) - unit(seen[:, 1:])), -1)
    else:
      error = jnp.mean(jnp.square(got - self.pixels(x)), -1)
    first = jnp.take_along_axis(error, jnp.argmin(rank, 1)[:, None], 1)[:, 0]
    updates = {}
    if self.average and train:
      mix = lambda old, new: self.average * old + (1 - self.average) * new
      frozen = jax.lax.stop_gradient(variables["params"])
      updates["teacher"] = jax.tree.map(mix, variables["teacher"], frozen)
    metrics = {"error/first": first}
    return Loss(jnp.mean(error, 1), metrics, updates)

  def pixels(self, x: Array) -> Array:
    """f32[B, L, C]: the targets of normal images."""
    patches = cut(blurred(x, *self.blur), self.net.patch)
    patches = patches.reshape(len(x), -1, patches.shape[-1])
    return centred(patches)[0] if self.centre else patches

  def features(
    self, variables: Vars, batch: Batch, pool: str = "mean"
  ) -> Array:
    """f32[B, D]: what the content stream, all masks off, knows of images: the
    "mean" of their patches, or that of the "class" token."""
    check_choice("pool", pool, ("mean", "class"))
    tokens = self.bound(variables["params"]).tokens(self.normal(batch))
    return tokens[:, 0] if pool == "class" else tokens[:, 1:].mean(1)

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, *, known: float = 0.5
  ) -> Array:
    """Fills in given images, f32[B, H, H, c] in [0, 1]. Regression: what is
    filled in is the mean of what could be there, blurred, and no sample.

    Args:
      variables: as `init` makes them.
      cond: `image` u8[B, H, H, c], of which also the order is.
      keys: Key[B], of the order.
      known: share of the patches, the first in the order, that are given.
        Where patches are centred, all others get the mean and the deviation
        that these have on average.

    Raises:
      UserError: this model predicts features, or the share is none.
    """
    if self.target != "pixels":
      raise UserError("this model predicts features and cannot fill in images")
    if not 0 <= known < 1:
      raise UserError(f"known={known}: must be at least 0 and below 1")
    x, net = self.normal(cond), self.bound(variables["params"])
    seen = self.seen(variables, cond, x) if self.teacher else None
    rank = self.rank(variables, x, keys, seen)
    place, p = ranks.places(rank)[..., None], self.net.patch
    count = round(known * self.net.side**2)
    patches = cut(x, p).reshape(len(x), self.net.side**2, -1)
    given = place < count
    mean, deviation = 0.0, 1.0
    if self.centre and count:
      _, *own = centred(patches)
      mean, deviation = (
        jnp.sum(jnp.where(given, y, 0), 1, keepdims=True) / count for y in own
      )
    grid = lambda y: y.reshape(len(x), self.net.side, self.net.side, -1)

    def step(patches, i):
      new = net(join(grid(patches), p), rank)[:, 1:] * deviation + mean
      return jnp.where(place == i, new, patches), None

    patches = jnp.where(given, patches, 0.0)
    order = jnp.arange(count, self.net.side**2)
    patches, _ = jax.lax.scan(step, patches, order)
    image = join(grid(patches), p)
    return jnp.clip(image * self._row(self.std) + self._row(self.mean), 0, 1)


@system.passes_on(two_streams)
def build(
  *,
  depth: int,
  width: int,
  patch: int = 16,
  side: int = 14,
  channels: int = 3,
  order: str = "semantic",
  similarity: str = "class",
  target: str = "pixels",
  teacher: Mapping[str, Any] | None = None,
  average: float | None = None,
  blur: Sequence[float] = (9, 1.0),
  centre: bool = True,
  head: str = "mlp",
  shared: bool = False,
  normal: Sequence[Any] = (0.5, 0.5),
  **stack,
) -> SemAIM:
  """Builds SemAIM; see SIZES for the published models.

  Args:
    depth: N.
    width: D, a multiple of 4.
    patch: p.
    side: n.
    channels, order, similarity, target, average, centre, shared: see `SemAIM`.
    teacher: `{"name": "vit", **arguments}`; its weights are given by
      `config.weights.teacher`.
    blur: size and sigma; (0, 0) for none.
    head: of the queries, "mlp" or "linear".
    normal: mean and deviation of pixels in [0, 1]; one number each, or one for
      each channel.
    **stack: heads, query_depth, eps, dtype, impl; see `two_streams`.

  Raises:
    UserError: sizes do not fit together, or there is no such choice.
  """
  for name, value, known in (
    ("order", order, tuple(ranks.ORDERS)),
    ("similarity", similarity, SIMILARITIES),
    ("target", target, TARGETS),
    ("head", head, HEADS),
  ):
    check_choice(name, value, known)
  if teacher is not None and average:
    raise UserError("teacher and average: there is one teacher")
  if target == "features" and teacher is None and not average:
    raise UserError("target='features': of what? Give a teacher or average")
  if teacher is not None and similarity == "attention":
    raise UserError("similarity='attention': a teacher gives features alone")
  if similarity == "attention" and depth < 2:
    raise UserError("similarity='attention': depth must be at least 2")
  if average and not 0 < average < 1:
    raise UserError(f"average={average}: must lie between 0 and 1")
  size, sigma = int(blur[0]), float(blur[1])
  if size < 0 or (size and (size % 2 == 0 or sigma <= 0)):
    raise UserError(f"blur={tuple(blur)}: an odd size and a sigma above 0")
  guide = None if teacher is None else system.part(teacher)
  if guide is not None and not isinstance(guide, ViT):
    raise UserError(f"teacher={teacher['name']!r}: must be a vit")
  outputs = patch**2 * channels
  if target == "features":
    outputs = width
    if guide is not None:
      seer = guide.net.encoder
      outputs = seer.projection or seer.width
  streams = two_streams(depth, width, **stack)
  one = lambda x: x if isinstance(x, int | float) else tuple(x)
  return SemAIM(
    TwoStreamViT(
      streams, width, patch, side, outputs, 4 * width * (head == "mlp"),
      streams.block.eps,
    ),
    order,
    similarity,
    target,
    guide,
    average,
    (size, sigma),
    centre,
    shared,
    *map(one, normal),
    channels,
  )  # fmt: skip
