"""Generators of pixels: one after the other, from all that are drawn.

Nothing is cached. A convolution sees a window of earlier pixels, and each step
computes the map again: L passes for an image, or L c where the net has a pass
for every channel.

Shapes: B batch, L pixels in raster order, c channels, V levels, M known pixels.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.decoding import pairs, pick, steps
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Generator
from ar_jax.families.pixel.net import PixelNet


class PixelWise(Generator):
  """A generator of levels i32[B, L, c]. Variables: `params`; the collection
  `tokenizer` is empty. A subclass is a frozen dataclass.

  Attributes:
    net: the network.
    tokenizer: `tokenizers.given` of form "pixels".
    label_dropout: as there.
  """

  net: PixelNet
  tokenizer: nn.Module
  label_dropout: float
  takes = ("prompt", "known")

  @property
  def needs(self) -> tuple[str, ...]:
    return ("label",) if self.net.labels else ()

  @property
  def classes(self) -> int | None:
    return super().classes if self.net.labels else None

  @property
  def plan(self) -> Plan:
    return makers.raster(*self.tokenizer.grid)

  def forwards(self, **options: Any) -> int:
    """Passes of the network for one image, each of two rows if guided."""
    del options
    return len(self.plan) * self.net.passes

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The tokenizer knows all shapes.
    shape = 1, len(self.plan), self.net.channels
    label, units = jnp.zeros(1, jnp.int32), jnp.zeros(shape, jnp.int32)
    every = lambda net, *args: net.nll(net(*args), units)
    params = self.net.init(key, label, units, method=every)["params"]
    return {"params": params, "tokenizer": {}}

  def condition(self, cond: Batch | Array) -> Array | None:
    """Labels i32[B]; None where there are none."""
    if not self.net.labels:
      return None
    return jnp.asarray(cond["label"] if hasattr(cond, "keys") else cond)

  def logits(
    self,
    variables: Vars,
    cond: Batch | Array | None,
    units: Array,
    hidden: Array | None = None,
  ) -> Array:
    """f32[B, L, c, V] of every channel, given earlier pixels and channels.

    Args:
      variables: as `init` makes them.
      cond: labels, where there are any.
      units: i32[B, L, c].
      hidden: bool[B], examples whose label is not shown.
    """
    label = None if cond is None else self.condition(cond)
    if hidden is not None and label is not None:
      label = jnp.where(hidden, self.null, label)
    net = self.net.bind({"params": variables["params"]})
    return net.logits(net(label, units), units)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch, keys = self.encode(variables, batch), None
    label, units = self.condition(batch), batch["units"]
    if train:
      keys = system.example_keys(key, batch)
      keys, hide = jax.vmap(jax.random.split, out_axes=1)(keys)
      label = None if label is None else self.drop_labels(label, hide)
    net = self.net.bind({"params": variables["params"]})
    nll = net.nll(net(label, units, keys), units)
    each = jnp.mean(nll, 1) / self.net.channels
    return Loss(each, {"bits": each / math.log(2)}, nll=nll)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    guidance: float | None = 1.0,
    schedule: str = "constant",
    **law: Any,
  ) -> Array:
    """Draws the levels of one image per key, i32[B, L, c].

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B], where there are classes. Images that are known in
        part also have `prompt` i32[B, M, c], their first pixels, and `known`
        i32[B], how many of these to keep.
      keys: Key[B].
      guidance: scale, of the logits; 1.0 or None is off.
      schedule: a key of `pick.SCHEDULES`.
      **law: temperature, top_k, top_p, min_p, see `pick.law`, of each channel.

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        without a null class.
    """
    scale, net = self.scale(guidance), self.net
    scales = pick.schedule(schedule, scale, len(self.plan))
    guided, c, label = scale != 1.0, net.channels, self.condition(cond)
    if guided:
      label = self.with_null(label)
    bound = net.bind({"params": variables["params"]})
    units, known = self._given(cond, len(keys))

    def step(units, t, keys):
      s = t // net.passes
      h = bound(label, pairs.double(units, guided))[:, s]
      for i in range(c // net.passes):  # channels of this pass
        j = t % net.passes + i
        logits = bound.logits(h, pairs.double(units[:, s], guided))
        logits = jnp.take(logits, j, axis=1)
        if guided:
          logits = pick.guide(*pairs.split(logits), jnp.asarray(scales)[s])
        new = pick.draw(pick.law(logits, **law), steps.fold(keys, i))
        new = jnp.where(s < known, units[:, s, j], new)
        units = units.at[:, s, j].set(new)
      return units, units[:, s, 0]

    count = len(self.plan) * net.passes
    return steps.scan_steps(step, units, count, keys)[0]

  def _given(self, cond: Batch, batch: int) -> tuple[Array, Array]:
    """Levels to begin with, 0 where nothing is known; and how many pixels are,
    i32[B]."""
    length, c = len(self.plan), self.net.channels
    units = jnp.zeros((batch, length, c), jnp.int32)
    if "prompt" not in cond:
      return units, jnp.zeros(batch, jnp.int32)
    prompt = jnp.asarray(cond["prompt"])
    if prompt.ndim != 3 or prompt.shape[2] != c or prompt.shape[1] > length:
      raise UserError(
        f"prompt of shape {prompt.shape[1:]}: the first pixels of an image of "
        f"{length}, {c} levels each"
      )
    return units.at[:, : prompt.shape[1]].set(prompt), jnp.asarray(
      cond["known"]
    )
