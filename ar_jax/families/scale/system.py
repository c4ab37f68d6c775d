"""What all systems share that draw an image map by map with a `NextScale`.

A batch becomes `Targets`: the units of a list of maps and how much the error at
each slot counts. The inputs of the slots come from the maps before them: the
true ones (teacher forcing) or drawn ones (student forcing, as SAR has it).

Shapes: B batch, L slots, T some of them, K maps of sides h_k w_k, C latent
channels, V codes, H W image sides.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import system
from ar_jax.core.decoding import editing, pick
from ar_jax.core.plans.makers import pair
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Generator
from ar_jax.families.scale.draw import generate
from ar_jax.families.scale.net import NextScale, Slots
from ar_jax.nn.heads.categorical import cross_entropy


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Targets:
  """What a batch asks of a model that draws map by map.

  Attributes:
    label: i32[B], some of them hidden in training; or what else the net reads
      of a condition.
    units: i32[B, L], the true ones; of bits i32[B, L, K].
    level: i32[L], the map of each slot, from 0; -1 is a pad.
    weight: f32[L], what the error at a slot counts; the sum is 1.
    keys: Key[B] for stochastic depth, or None.
    at: the slots, if they are not those of the system's plan.
    layout: what the system itself must know of them.
  """

  label: Array
  units: Array
  level: Array
  weight: Array
  keys: Array | None = None
  at: Slots | None = None
  layout: Any = None


def weighted_sum(x: Array, weight: Array) -> Array:
  """f32[B]: the sum of x f32[B, L] by weight f32[L]; no product of matrices,
  which a TPU rounds to bfloat16."""
  return jnp.sum(x * weight[None], axis=1)


class ScaleWise(Generator):
  """A generator that draws one map of units a step. A subclass is a frozen
  dataclass with at least the fields of `Generator`.

  Attributes:
    smoothing: of labels in the cross-entropy.
    scale_weights: weight of each map's mean in the loss; None weighs all units
      alike.
  """

  net: NextScale
  tokenizer: nn.Module
  label_dropout: float
  smoothing = 0.0
  scale_weights = None

  takes = ("given", "keep", "bias")
  schedule = "ramp"

  @property
  def plan(self) -> Plan:
    return self.net.plan

  @property
  def widest(self) -> int:
    """The most slots that a map of a targets can have."""
    return max(self.plan.sizes)

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The plan and the tokenizer know all shapes.
    key, frozen = jax.random.split(key)
    label = jnp.zeros((1,), jnp.int32)
    embedding = jnp.zeros((1, len(self.plan), self.tokenizer.channels))
    every = lambda net, *args: net.head.logits(net(*args))
    params = self.net.init(key, label, embedding, method=every)["params"]
    return {"params": params, "tokenizer": self.init_tokenizer(frozen)}

  def bound(self, variables: Vars) -> NextScale:
    """The net with its weights."""
    return self.net.bind({"params": variables["params"]})

  # Training.

  def label_and_keys(
    self, batch: Batch, key: Array, *, train: bool
  ) -> tuple[Array, Array | None]:
    """Labels i32[B], some hidden in training, and keys for stochastic depth."""
    if not train:
      return batch["label"], None
    keys = system.example_keys(key, batch)
    keys, hide = jax.vmap(jax.random.split, out_axes=1)(keys)
    return self.drop_labels(batch["label"], hide), keys

  def targets(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Targets:
    """The targets of the plan."""
    batch = self.encode(variables, batch)
    label, keys = self.label_and_keys(batch, key, train=train)
    p = self.plan
    shares = self.scale_weights or np.divide(p.sizes, len(p))
    weight = np.repeat(np.divide(shares, p.sizes), p.sizes)
    weight = jnp.asarray(weight, jnp.float32)
    level = jnp.asarray(p["step"])
    return Targets(label, batch["units"], level, weight, keys)

  def teacher_inputs(self, variables: Vars, targets: Targets) -> Array:
    """f32[B, L, C]: inputs of the slots when all maps are the true ones."""
    return self.codec(variables).embed(targets.units)

  def student_inputs(
    self, variables: Vars, targets: Targets, units: Array
  ) -> Array:
    """The same when the map right before a slot's own is that of units i32[B,
    L] and those before it are the true ones."""
    codec, p = self.codec(variables), self.plan
    state = codec.start(len(units))
    shape = (len(units), p.sizes[0], self.tokenizer.channels)
    inputs = [jnp.zeros(shape)]
    for s in range(p.steps - 1):
      at = p.span(s)
      inputs.append(codec.advance(state, s, units[:, at])[1])
      state, _ = codec.advance(state, s, targets.units[:, at])
    return jnp.concatenate(inputs, axis=1)

  def last(
    self, variables: Vars, targets: Targets, inputs: Array
  ) -> tuple[Targets, Array, Array]:
    """The first slot and the last map alone, which then sees no other.

    Returns:
      The targets, the inputs of the slots, and which slots they are, i32[T].
    """
    at = targets.at or self.bound(variables).plan_slots()
    final = jnp.max(targets.level)
    count = jnp.sum(targets.level == final)
    n = jnp.arange(self.widest)
    index = jnp.argmax(targets.level == final) + n
    index = jnp.append(0, jnp.minimum(index, len(targets.level) - 1))
    level = jnp.append(0, jnp.where(n < count, 1, -1))
    part = dataclasses.replace(
      targets,
      units=targets.units[:, index],
      level=level,
      weight=(level == 1) / count,
      at=at.take(index, level),
    )
    return part, inputs[:, index], index

  def predict(
    self,
    variables: Vars,
    targets: Targets,
    inputs: Array,
    *,
    start: bool = True,
  ) -> Array:
    """Logits f32[B, L, V] of all slots by their inputs; `start` as in
    `NextScale`."""
    net = self.bound(variables)
    h = net(targets.label, inputs, targets.keys, at=targets.at, start=start)
    return net.head.logits(h)

  def logits(
    self,
    variables: Vars,
    cond: Array,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, L, V] of every unit of the plan, given the maps before its own.

    Args:
      variables: as `init` makes them.
      cond: label i32[B].
      units: i32[B, L].
      hidden: bool[B], examples whose label is not shown.
      keys: Key[B] for stochastic depth, or None.
    """
    if hidden is not None:
      cond = jnp.where(hidden, self.null, cond)
    net = self.bound(variables)
    return net.head.logits(net(cond, self.codec(variables).embed(units), keys))

  def unconditional(self, targets: Targets) -> Targets:
    """The same, all conditions hidden."""
    null = jnp.full_like(targets.label, self.null)
    return dataclasses.replace(targets, label=null)

  def error(self, logits: Array, units: Array) -> Array:
    """f32[B, L]: the error at each unit, of which `Targets.weight` is the
    weight."""
    return cross_entropy(logits, units)

  def loss_of(self, targets: Targets, logits: Array) -> Loss:
    """The loss of logits f32[B, L, V]."""
    nll = cross_entropy(logits, targets.units, smoothing=self.smoothing)
    hits = (jnp.argmax(logits, -1) == targets.units).astype(jnp.float32)
    live = (targets.level >= 0).astype(jnp.float32)
    metrics = {"accuracy": weighted_sum(hits, live) / jnp.sum(live)}
    if targets.at is None:
      spans = map(self.plan.span, range(self.plan.steps))
      for s, at in enumerate(spans):
        metrics[f"ce/scale_{s + 1}"] = jnp.mean(nll[:, at], 1)
    return Loss(weighted_sum(nll, targets.weight), metrics, nll=nll)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    targets = self.targets(variables, batch, key, train=train)
    inputs = self.teacher_inputs(variables, targets)
    return self.loss_of(targets, self.predict(variables, targets, inputs))

  # Sampling.

  def rates(self, schedule: str, guidance: float) -> tuple[float, ...]:
    """The scale of guidance at each map, by a schedule of `pick.SCHEDULES`."""
    return pick.schedule(schedule, guidance, self.plan.steps)

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    paste: bool = False,
    **options,
  ) -> Array:
    """Draws one image per key, f32[B, H, W, c] in [0, 1].

    Args:
      variables: as `init` makes them.
      cond: as in `generate`.
      keys: Key[B].
      paste: puts the kept pixels of the given image back as they are; what
        is drawn does not depend on it.
      **options: of `generate`.
    """
    _, latent = self.generate(variables, cond, keys, **options)
    return self.pictured(variables, cond, latent, paste=paste)

  def pictured(
    self, variables: Vars, cond: Batch, latent: Array, *, paste: bool = False
  ) -> Array:
    """What `sample` makes of the latent that `generate` drew; arguments as
    there.

    Raises:
      UserError: there is nothing to paste.
    """
    image = self.decode_latent(variables, latent)
    if not paste:
      return image
    if "keep" not in cond:
      raise UserError("paste: there is no mask of what to keep")
    return editing.paste(image, cond["given"], cond["keep"])

  def decode_latent(self, variables: Vars, latent: Array) -> Array:
    """Images in [0, 1] of latents f32[B, h, w, C], finished or not."""
    return (self.codec(variables).decode_latent(latent) + 1) / 2

  def edit(
    self,
    variables: Vars,
    cond: Batch,
    first: int | None = None,
    coarse: str = "bilinear",
  ) -> editing.Edit | None:
    """What a sampler overwrites, as `cond` says; None if it gives no image.

    Args:
      variables: as `init` makes them.
      cond: perhaps `given` u8[B, H, W, c], an image, and `keep` [B, H, W], 1
        where its pixels are kept. Without `keep`, the maps that the given
        image is large enough for are kept, and the others refine it.
      first: see `editing.kept`.
      coarse: see `editing.kept`.

    Raises:
      UserError: the image is of another size, or nothing is left to draw.
    """
    if "given" not in cond:
      if first is not None:
        raise UserError(f"force_first_scales={first}: there is no given image")
      return None
    given, stride = cond["given"], self.tokenizer.stride
    shapes = list(map(pair, self.tokenizer.scales))
    size = tuple(stride * side for side in shapes[-1])
    if "keep" in cond and given.shape[1:3] != size:
      raise UserError(
        f"given image of {given.shape[1]}x{given.shape[2]}: to keep a part of "
        f"it, it must be of {size[0]}x{size[1]}, as what is drawn"
      )
    if "keep" not in cond and first is None:
      h, w = (side // stride for side in given.shape[1:3])
      first = sum(p <= h and q <= w for p, q in shapes)
      if first == len(shapes):
        raise UserError(
          "the given image is as large as what is drawn: say what to keep, by "
          "a mask, a box or force_first_scales"
        )
    x = given.astype(jnp.float32) / 127.5 - 1
    keep = editing.kept(
      cond.get("keep"), shapes, batch=len(given), first=first, coarse=coarse
    )
    return editing.Edit(self.codec(variables).encode(x), keep)

  def drawn(
    self, variables: Vars, label: Array, keys: Array, *, guided: bool, **options
  ) -> tuple[Array, Any]:
    """`draw.generate` for labels i32[B], in pairs if guided."""
    label = self.with_null(label) if guided else label
    return generate(
      self.bound(variables), self.codec(variables), label, keys, **options
    )
