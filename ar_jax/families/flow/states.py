"""Networks that read one or more states between noise and data, and a law of
what comes next, unit by unit.

Both networks are used alike: `given` once for a condition and a time, and then
the network itself, of units and of where they are in the sequence of states.

Shapes: B batch, n units of a state, T positions, C channels, D width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick
from ar_jax.core.plans.plan import Plan
from ar_jax.nn.heads.flow import Flow
from ar_jax.nn.heads.flow_nets import TokenMLP
from ar_jax.nn.layers.cross_attention import NullFeatures
from ar_jax.nn.layers.linear import initial
from ar_jax.nn.layers.positions import sine_grid
from ar_jax.nn.layers.times import TimeEmbed
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class Given(NamedTuple):
  """A condition, as the layers take it.

  Attributes:
    mods: of the layers.
    memory: that they look at, or None.
  """

  mods: Any
  memory: Any = None


class Mean(nn.Module):
  """In the place of a law its mean: with it, a transition is a step of Euler's
  along the velocity of flow matching.

  Attributes:
    channels: C.
    linear: whether a linear map, which begins at zero, leads to it; else it is
      the hidden state itself.
  """

  channels: int
  linear: bool = True

  def setup(self):
    if self.linear:
      self.out = nn.Dense(self.channels, kernel_init=nn.initializers.zeros)

  def _mean(self, h: Array) -> Array:
    return self.out(h) if self.linear else h

  def loss(
    self, h: Array, target: Array, keys: Array, *, outer: Array | None = None
  ) -> Array:
    """f32[B, T]: the squared error of each unit, a mean over channels."""
    del keys, outer
    return jnp.square(self._mean(h) - target).mean(-1)

  def draw(
    self,
    h: Array,
    keys: Array,
    *,
    h_null: Array | None = None,
    scale: Array | float = 1.0,
    outer: Array | None = None,
    times: int = 1,
  ) -> Array:
    """f32[B, T, C]; nothing is random."""
    del keys, outer, times
    mean = self._mean(h)
    return (
      mean if h_null is None else pick.guide(mean, self._mean(h_null), scale)
    )


class _Labelled(nn.Module):
  """What both networks have in common: classes. Abstract."""

  def _label(self, cond: dict, hidden: Array | None) -> Array:
    """[B, D] of `label` i32[B]; where `hidden` bool[B], of no class."""
    label = cond["label"]
    if hidden is not None:
      label = jnp.where(hidden, self.labels - 1, label)
    return self.label(label)


class States(_Labelled):
  """A stack of modulated layers over states, each with the same places.

  Time and class modulate the layers; a text is a memory that they look at.

  Attributes:
    length: n.
    grid: of the units, whose places are then fixed sines; None for a learned
      table.
    channels: C.
    width: D.
    backbone: see `dit.dit_zero`.
    head: the law of a unit.
    timed: whether the layers know the time.
    count: states that a sequence has, each marked by a learned row.
    labels: rows of the table of classes, or None.
    text: encoder of a text, or None; see `encoders.text`.
  """

  length: int
  grid: tuple[int, int] | None
  channels: int
  width: int
  backbone: Backbone
  head: Flow | Mean
  timed: bool = True
  count: int = 1
  labels: int | None = None
  text: nn.Module | None = None

  def setup(self):
    rows = nn.initializers.normal(0.02)
    self.latent = nn.Dense(self.width, kernel_init=initial(None))
    if self.timed:
      self.time = TimeEmbed(self.width)
    if self.labels:
      self.label = nn.Embed(self.labels, self.width, embedding_init=rows)
    if not (self.timed or self.labels):
      self.start = self.param("start", rows, (self.width,))
    if self.count > 1:
      self.marks = self.param("marks", rows, (self.count, self.width))
    if self.grid is None:
      self.places = self.param("places", rows, (self.length, self.width))
    if self.text is not None:
      self.read = nn.Dense(self.width, kernel_init=initial(None))
      self.no_text = NullFeatures()

  @property
  def fields(self) -> tuple[str, ...]:
    """What it reads of a batch."""
    return ("label",) * bool(self.labels) + ("text",) * (self.text is not None)

  def example(self) -> dict[str, Array]:
    """A condition of the right shape, of one example."""
    own = {"label": jnp.zeros((1,), jnp.int32)} if self.labels else {}
    return own if self.text is None else own | {"text": self.text.example()}

  def given(
    self, cond: dict, hidden: Array | None, t: Array | None, batch: int
  ) -> Given:
    """What the layers take.

    Args:
      cond: of `fields`.
      hidden: bool[B], examples whose condition is not shown; None for none.
      t: f32[B], the time from 0 to 1, if it is told.
      batch: B.
    """
    parts = []
    if self.timed:
      parts.append(self.time(1000 * t))
    if self.labels:
      parts.append(self._label(cond, hidden))
    vector = sum(parts) if parts else jnp.tile(self.start[None], (batch, 1))
    memory = None
    if self.text is not None:
      features = self.no_text(self.read(self.text(cond["text"])), hidden)
      seen = self.text.align(cond["text"])[1]
      memory = self.backbone.remember(features, seen)
    return Given(self.backbone.condition(vector), memory)

  def __call__(
    self,
    x: Array,
    at: Array,
    given: Given,
    mask: Plan | Array | None = None,
    *,
    cache: Any = None,
    keys: Array | None = None,
  ) -> tuple[Array, Any]:
    """Hidden states [B, T, D], and the cache.

    Args:
      x: f32[B, T, C].
      at: i32[T], places in the sequence: unit `at` mod n of state `at` / n.
      given: what `given` returns.
      mask: who sees whom; None for all, with a cache those in it as well.
      cache: of earlier positions, or None.
      keys: Key[B] for dropout, or None.
    """
    if self.grid is None:
      table = self.places
    else:
      table = jnp.asarray(sine_grid(*self.grid, self.width))
    h = self.latent(x) + jnp.take(table, at % self.length, axis=0)[None]
    if self.count > 1:
      h = h + jnp.take(self.marks, at // self.length, axis=0)[None]
    return self.backbone(
      h, mask, cond=given.mods, memory=given.memory, cache=cache, keys=keys
    )


class Whole(_Labelled):
  """A state as one vector through residual MLPs: for a few numbers.

  Attributes:
    length: n.
    channels: C.
    width: D of the hidden state of each unit.
    net: n C numbers -> n D numbers.
    head: the law of a unit.
    labels: rows of the table of classes, or None.
  """

  length: int
  channels: int
  width: int
  net: TokenMLP
  head: Flow | Mean
  labels: int | None = None

  def setup(self):
    if self.labels:
      init = nn.initializers.normal(0.02)
      self.label = nn.Embed(self.labels, self.net.width, embedding_init=init)

  @property
  def fields(self) -> tuple[str, ...]:
    """What it reads of a batch."""
    return ("label",) * bool(self.labels)

  def example(self) -> dict[str, Array]:
    """A condition of the right shape, of one example."""
    return {"label": jnp.zeros((1,), jnp.int32)} if self.labels else {}

  def given(
    self, cond: dict, hidden: Array | None, t: Array, batch: int
  ) -> Given:
    """As of `States`."""
    vector = jnp.ones((batch, 1))
    if self.labels:
      vector = self._label(cond, hidden)
    return Given((1000 * t[:, None], vector[:, None]))

  def __call__(
    self, x: Array, at: Array, given: Given, *, keys: Array | None = None
  ) -> tuple[Array, None]:
    """As of `States`, of one state; nothing is dropped."""
    del at, keys
    h = self.net(x.reshape(len(x), 1, -1), *given.mods)
    return h.reshape(len(x), self.length, self.width), None
