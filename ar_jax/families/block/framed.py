"""A transformer over a text and the frames of a video, some codes of which are
masks: causal from frame to frame, each frame whole (Lumos-1, arXiv 2507.08801).

The state at a place says the law of the code of that place.

Shapes: B batch, P ids of a text, T frames of N codes, C content of a frame, S
ids of a frame, D width, V codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.system import Vars
from ar_jax.families.block.frame_layout import FrameLayout
from ar_jax.families.block.ids import class_names
from ar_jax.families.token.masks import hide_padding, padding_mask
from ar_jax.families.token.prefix import Cond, Prefix
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.linear import TRANSPOSED
from ar_jax.nn.layers.volume_positions import turns
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class Caption(Prefix):
  """The ids in front: a class, or a text that `pad` fills up. No condition is a
  text of no ids; there are no parameters.

  Attributes:
    count: P.
    words: ids there are.
    field: where they are in a batch: "label" i32[B], or i32[B, n].
    guided: whether the class behind all others is none.
    pad: the id behind a text.
    names: the ids of the text of every class, which is then given by "label";
      None where it is read from the batch.
  """

  count: int
  words: int
  field: str = "label"
  guided: bool = True
  pad: int = 0
  names: tuple[tuple[int, ...], ...] | None = None

  @classmethod
  def of(
    cls, classes: int, text: Mapping[str, Any] | None, guided: bool
  ) -> Caption:
    """Of so many classes; or of a text that has "length" and "words", perhaps
    "pad", and perhaps "names", a file of the ids of every class.

    Raises:
      UserError: `text` has something else, or its file cannot be read.
    """
    if not text:
      return cls(int(classes > 0), classes, "label", guided)
    rest = dict(text)
    try:
      count, words = rest.pop("length"), rest.pop("words")
      field, path = "text", rest.pop("names", "")
      if path:
        field, rest["names"] = "label", class_names(path, count, words)
      return cls(count, words, field, guided, **rest)
    except (KeyError, TypeError) as e:
      raise UserError(
        f"text={dict(text)}: has length and words, perhaps pad and names"
      ) from e

  @property
  def _classes(self) -> int:
    return self.words if self.names is None else len(self.names)

  @property
  def fields(self) -> tuple[str, ...]:
    return (self.field,) if self.count else ()

  @property
  def length(self) -> int:
    return self.count

  @property
  def labels(self) -> int | None:
    """Classes, and none; of texts None."""
    return self._classes + self.guided if self.fields == ("label",) else None

  def example(self) -> Cond:
    if not self.count:
      return {}
    shape = (1,) if self.field == "label" else (1, self.count)
    return {self.field: jnp.zeros(shape, jnp.int32)}

  def ids(
    self, cond: Cond, hidden: Array | None, batch: int
  ) -> tuple[Array, Array]:
    """i32[B, P], and how many of them stand, i32[B]: none where `hidden`
    bool[B]."""
    if not self.count:
      return jnp.zeros((batch, 0), jnp.int32), jnp.zeros(batch, jnp.int32)
    ids = jnp.asarray(cond[self.field])
    if self.field == "label" and self.names is None:
      ids = ids[:, None]
      count = (ids[:, 0] < self.words).astype(jnp.int32)
    else:
      none = jnp.zeros(len(ids), bool)
      if self.field == "label":
        none = ids >= self._classes
        ids = jnp.take(jnp.asarray(self.names), ids, axis=0, mode="clip")
      spare = self.count - ids.shape[1]
      if spare < 0 or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise UserError(
          f"{self.field}: {ids.dtype} of {ids.shape[1]} positions; this model "
          f"reads at most {self.count} ids"
        )
      room = ((0, 0), (0, spare))
      ids = jnp.pad(ids, room, constant_values=self.pad)
      real = jnp.cumsum(ids == self.pad, axis=1) == 0
      count = jnp.where(none, 0, jnp.sum(real, 1, dtype=jnp.int32))
    if hidden is not None:
      count = jnp.where(hidden, 0, count)
    return jnp.minimum(ids, self.words - 1), count


class Framed(nn.Module):
  """The transformer.

  Attributes:
    layout: how ids lie on a line.
    units: the table of all ids.
    width: D.
    prefix: the text.
    backbone: the stack.
    head: the law of an id, of which codes alone are asked for.
    rope: which features turn by what, see `volume_positions.channel_axes`.
    base: of the frequencies.
  """

  layout: FrameLayout
  units: nn.Module
  width: int
  prefix: Caption
  backbone: Backbone
  head: Categorical
  rope: str = "interleaved"
  base: float = 1e4

  @property
  def vocab(self) -> int:
    """V."""
    return self.units.vocab - self.layout.first

  def frames(self, content: Array) -> Array:
    """Ids i32[B, T', S] of the content i32[B, T', C] of frames."""
    template = jnp.asarray(self.layout.template, jnp.int32)
    whole = jnp.broadcast_to(
      template[None, None], (*content.shape[:2], len(template))
    )
    return whole.at[:, :, 3:-1].set(content)

  def content(self, units: Array) -> Array:
    """Content i32[B, T', C] of codes i32[B, T', N]."""
    layout = self.layout
    inside = jnp.full(
      (*units.shape[:2], layout.content), layout.id("line_end"), jnp.int32
    )
    return inside.at[:, :, layout.codes].set(units + layout.first)

  def masked(self, content: Array, hide: Array) -> Array:
    """Content with masks where `hide` bool[B, T', C] is set."""
    return jnp.where(hide, self.layout.id("mask"), content)

  def states(
    self,
    cond: Cond,
    content: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """Hidden states f32[B, rows, D] of all ids in one pass.

    Args:
      cond: what `prefix` takes.
      content: i32[B, T, C], with its masks.
      hidden: bool[B], examples whose condition is not shown; None for none.
      keys: Key[B] for dropout, or None.
    """
    b = len(content)
    text, count = self.prefix.ids(cond, hidden, b)
    front = jnp.tile(jnp.asarray(self.layout.front, jnp.int32)[None], (b, 1))
    inside = self.frames(content).reshape(b, -1)
    ids = jnp.concatenate([text, front, inside], axis=1)
    mask = self.layout.plan
    if self.prefix.length:
      mask = jnp.asarray(mask.mask())[None, None]
      mask = hide_padding(mask, self.valid(count))
    pos = self.turns(count, slice(None))
    return self.backbone(self.units(ids), mask, pos=pos, keys=keys)[0]

  def every(self, cond: Cond, content: Array) -> Array:
    """Touches all parameters, for `init`."""
    return self.head.logits(self.states(cond, content))

  def logits(self, h: Array) -> Array:
    """f32[..., T', N, V] of the codes of frames, after states [..., T', S, D]
    of their ids."""
    own = h[..., 3:-1, :][..., self.layout.codes, :]
    lead = own.shape[:-1]
    logits = self.head.logits(own.reshape(len(own), -1, own.shape[-1]))
    return logits[..., self.layout.first :].reshape(*lead, -1)

  def of_frames(self, h: Array) -> Array:
    """[B, T, S, D] of the states [B, rows, D] of all ids."""
    layout = self.layout
    inside = h[:, layout.head :]
    return inside.reshape(len(h), layout.frames, layout.segment, -1)

  def valid(self, count: Array) -> Array:
    """bool[B, P]: the ids of a text that stand, so many of each."""
    return jnp.arange(self.prefix.length)[None] < count[:, None]

  def turns(self, count: Array, at: Array | slice) -> Array:
    """Rotations f32[B, n, K / 2, 2] of ids by their numbers, behind texts of so
    many ids i32[B]."""
    places, behind = self.layout.places
    if self.rope == "line":  # content lies as all else does
      line = np.arange(len(places)) - self.layout.text * behind
      places = np.tile(line[:, None], (1, 3))
    places = jnp.asarray(places, jnp.float32)[at][None]
    move = jnp.asarray(behind)[at][None] * count[:, None]
    places = places + move[..., None].astype(jnp.float32)
    features = self.backbone.head_width(self.width)
    return turns(places, features, self.rope, self.base)

  def ready(self, variables: Vars, rows: int) -> Vars:
    """The variables, made ready for a loop of steps of so many rows."""
    stack = self.backbone.ready(variables["params"]["backbone"], rows)
    return {**variables, TRANSPOSED: {"backbone": stack}}

  def begin(
    self, cond: Cond, batch: int, hidden: Array | None = None
  ) -> tuple[Array, Cache]:
    """Reads the text and what is before the first frame into a new cache.

    Returns:
      How long the texts are, i32[B], and the cache, whose index is traced.
    """
    text, count = self.prefix.ids(cond, hidden, batch)
    front = jnp.asarray(self.layout.front, jnp.int32)[None]
    ids = jnp.concatenate([text, jnp.tile(front, (batch, 1))], axis=1)
    cache = self.backbone.cache(batch, self.layout.rows, self.width)
    mask = cache.causal(ids.shape[1])
    if self.prefix.length:
      mask = hide_padding(mask, self.valid(count))
    pos = self.turns(count, slice(0, ids.shape[1]))
    _, cache = self.backbone(self.units(ids), mask, pos=pos, cache=cache)
    cache = dataclasses.replace(cache, index=jnp.int32(cache.index))
    if jax.default_backend() == "cpu":
      cache = cache.unstacked()
    return count, cache

  def step(
    self, content: Array, cache: Cache, count: Array
  ) -> tuple[Array, Cache]:
    """One frame, i32[B, C] with its masks, behind a cache.

    Returns:
      Hidden states f32[B, S, D], and the cache with the frame; who wants it
      without keeps the one that was given.
    """
    ids = self.frames(content[:, None])[:, 0]
    mask = cache.mask(self.layout.segment)
    if self.prefix.length:
      mask = mask & padding_mask(mask, self.valid(count))
    at = cache.index + jnp.arange(self.layout.segment)
    pos = self.turns(count, at)
    return self.backbone(self.units(ids), mask, pos=pos, cache=cache)
