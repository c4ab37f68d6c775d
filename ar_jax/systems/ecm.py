"""ECM: a frozen VAR that follows a picture, by adapters between its layers.

Efficient Conditional Generation on Scale-based Visual Autoregressive Models
(arXiv 2510.05610; no code is published). New in it:
  - adapters read the hidden states of the frozen net beside features of the
    picture, and add to them; each has attention of its own, all share one MLP,
    of which each has a gate;
  - a step of training sees the first maps alone, K' of them, drawn anew each
    time: less than half of the units;
  - late maps, which so are trained less, are drawn at a lower temperature.

Ours, since what we have of the paper does not say it: M = N / 4 adapters, each
before as many layers; their last map begins as 0 and their gates as 1; K' is
even over the last five lists of maps; the temperature falls linearly; class
and control are hidden by draws of their own. The encoder of pictures begins
untrained, or as a published one.

Shapes: B batch, L units, K maps, M adapters, N layers, V codes, H W sides of a
picture, c channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import system
from ar_jax.core.decoding import pairs, pick
from ar_jax.core.plans import makers
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.encoders.vit import encoder as make_encoder
from ar_jax.families.base import hidden_conditions, of_target
from ar_jax.families.scale import draw
from ar_jax.families.scale.adapters import (
  Adapters,
  Steered,
  cut,
  cut_params,
  fresh,
)
from ar_jax.families.scale.net import NextScale
from ar_jax.families.scale.system import ScaleWise
from ar_jax.nn.heads.categorical import cross_entropy
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.stacks.blocks import Block
from ar_jax.nn.stacks.transformer import Backbone

COOLED = 0.8  # temperature of the last map, as a share of that of the first
LISTS = 5  # of the last lists of maps, one of which a step of training sees


@dataclasses.dataclass(frozen=True)
class ECM(ScaleWise):
  """The system. Variables: `params` of the adapters, the frozen `target`, which
  are the `params` of a VAR, and the frozen `tokenizer`.

  Attributes:
    net: of the target.
    tokenizer: of the target.
    adapters: what is trained.
    control: the field of a batch that holds the control pictures, u8[B, H, W,
      c]; of one channel they are read as grey.
    label_dropout: how often training hides the class: as it was for the
      target, whose table of classes has a row for none, or not.
    control_dropout: how often training hides the control.
    kept: how many of the first maps a step of training sees: one of these, each
      as often; () for all maps always.
    maps: how many this program sees; None for all.
  """

  net: NextScale
  tokenizer: nn.Module
  adapters: Adapters
  control: str = "edges"
  label_dropout: float = 0.1
  control_dropout: float = 0.1
  kept: tuple[int, ...] = ()
  maps: int | None = None

  @property
  def needs(self) -> tuple[str, ...]:
    return ("label", self.control)

  def at(self, step: int) -> ECM:
    if not self.kept:
      return self
    drawn = np.random.default_rng(step).integers(len(self.kept))
    maps = self.kept[drawn]
    return dataclasses.replace(
      self, maps=None if maps == self.plan.steps else maps
    )

  def init(self, key: Array, batch: Batch) -> Vars:
    own, rest = jax.random.split(key)
    rest = super().init(rest, batch)
    frozen = {"target": rest.pop("params"), **rest}
    return {"params": self.own(own), **frozen}

  def own(self, key: Array) -> Vars:
    """Fresh `params`."""
    encoder, width = self.adapters.encoder, self.net.width
    side = encoder.patch * encoder.side
    picture = jnp.zeros((1, side, side, encoder.in_channels))
    cond, x = jnp.zeros((1, width)), jnp.zeros((1, len(self.plan), width))
    return self.adapters.init(key, picture, cond, x)["params"]

  def adopt(self, collection: str, given: Any) -> Any:
    """For `params` also those of an encoder of `encoders.vit`: it becomes that
    of the pictures, and adapters begin fresh, from the same seed always."""
    known = collection == "params" and "encoder" in given
    if not known or "gates" in given or "mixers_0" in given:
      return given
    return {**self.own(jax.random.key(0)), "encoder": given["encoder"]}

  def condition(self, cond: Batch) -> dict[str, Array]:
    return {k: jnp.asarray(cond[k]) for k in self.needs}

  def bound(self, variables: Vars) -> NextScale:
    """The frozen net alone."""
    return super().bound(of_target(variables, "target"))

  def steered(
    self,
    variables: Vars,
    picture: Array,
    hidden: Array | None = None,
    strength: float = 1.0,
  ) -> Steered:
    """The frozen net with its adapters, for control pictures [B, H, W, c];
    without control where `hidden` bool[B]. Gradients go through the net, and
    none into it."""
    count = len(self.adapters.mixers)
    frozen = jax.lax.stop_gradient(variables["target"])
    net = cut(self.net, count).bind({"params": cut_params(frozen, count)})
    own = self.adapters.bind({"params": variables["params"]})
    return Steered(net, own, own.rows(picture, hidden), strength)

  def logits(
    self,
    variables: Vars,
    cond: Batch,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, L, V] of every unit, given the maps before its own; `cond` is what
    `condition` returns, other arguments as those of every `ScaleWise`. The
    class alone is hidden."""
    del keys  # no stochastic depth in a frozen net
    label = cond["label"]
    if hidden is not None:
      label = jnp.where(hidden, self.null, label)
    net = self.steered(variables, cond[self.control])
    return net.head.logits(net(label, self.codec(variables).embed(units)))

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """The mean cross-entropy of all units of the maps that are seen: in
    training the first `maps`, else all."""
    batch = self.encode(variables, batch)
    label, hidden, maps = batch["label"], None, None
    if train:
      keys = system.example_keys(key, batch)
      keys, other = jax.vmap(jax.random.split, out_axes=1)(keys)
      label = self.drop_labels(label, keys)
      hidden = hidden_conditions(other, self.control_dropout)
      maps = self.maps
    net = self.steered(variables, batch[self.control], hidden)
    h = net(label, self.codec(variables).embed(batch["units"]), maps)
    units, logits = batch["units"][:, : h.shape[1]], net.head.logits(h)
    nll = cross_entropy(logits, units)
    hits = (jnp.argmax(logits, -1) == units).astype(jnp.float32)
    metrics = {"accuracy": jnp.mean(hits, 1)}
    if not train:
      for s in range(self.plan.steps):
        metrics[f"ce/scale_{s + 1}"] = jnp.mean(nll[:, self.plan.span(s)], 1)
    # Programs of fewer maps have no likelihood of the whole.
    return Loss(jnp.mean(nll, 1), metrics, nll=None if maps else nll)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    guidance: float | None = 1.0,
    schedule: str = "ramp",
    guide_control: bool = False,
    strength: float = 1.0,
    temperature: float = 1.0,
    last_temperature: float | None = None,
    force_first_scales: int | None = None,
    coarse: str = "bilinear",
    **law: float,
  ) -> tuple[Array, Array]:
    """Draws the units of one image per key.

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B] and the control pictures; also `given`, `keep` and
        `bias`, as of VAR.
      keys: Key[B].
      guidance: scale at the last map, against no class; 1.0 or None is off.
      schedule: "ramp" rises from 1.0 at the first map; "constant".
      guide_control: guidance is against neither class nor control.
      strength: a factor on what the adapters add; 0 is the target alone.
      temperature: of the first map.
      last_temperature: of the last map; 0.8 times the first if None. It
        changes evenly between them.
      force_first_scales, coarse: of a given image; see `ScaleWise.edit`.
      **law: top_k, top_p, min_p; see `pick.law`.

    Returns:
      Units i32[B, L]; and their latent, f32[B, h, w, C].

    Raises:
      UserError: an option is out of range.
    """
    guidance, steps = self.scale(guidance), self.plan.steps
    guided = guidance != 1.0
    label, hidden = jnp.asarray(cond["label"]), None
    picture = pairs.double(jnp.asarray(cond[self.control]), guided)
    if guided:
      label = self.with_null(label)
      hidden = pairs.without(len(keys)) if guide_control else None
    if last_temperature is None:
      last_temperature = COOLED * temperature
    law = {**law, "temperature": temperature}
    return draw.generate(
      self.steered(variables, picture, hidden, strength),
      self.codec(variables),
      label,
      keys,
      scales=pick.schedule(schedule, guidance, steps),
      laws=draw.cooled(law, last_temperature, steps),
      edit=self.edit(variables, cond, force_first_scales, coarse),
      bias=cond.get("bias"),
    )


def build(
  *,
  target: Mapping[str, Any],
  adapters: int | None = None,
  encoder: Mapping[str, Any] | None = None,
  control: str = "edges",
  shared: bool = True,
  control_dropout: float = 0.1,
  kept: Sequence[int] | None = None,
) -> ECM:
  """Builds ECM.

  Args:
    target: the frozen net, `{"name": "var", **arguments}`.
    adapters: M, a divisor of its layers; a quarter of them if None.
    encoder: of control pictures, arguments of `encoders.vit.encoder`; of what
      it does not name, those of a small one that sees a patch for each unit of
      the last map.
    control: see `ECM`.
    shared: whether the adapters share one MLP; else each has its own.
    control_dropout: see `ECM`.
    kept: see `ECM`; if None the last five numbers of maps, as far as there are
      so many.

  Raises:
    UserError: the target is no VAR, or sizes do not fit together.
  """
  inner = system.part(target)
  net, codes = getattr(inner, "net", None), getattr(inner, "tokenizer", None)
  stack = getattr(net, "backbone", None)
  alike = isinstance(inner, ScaleWise) and isinstance(net, NextScale)
  alike = alike and isinstance(stack, Backbone) and not net.grid
  if not (alike and isinstance(stack.block, Block)):
    raise UserError(
      f"target={target['name']!r}: adapters are of VAR, or of what has its net"
    )
  if net.plan != makers.scales(codes.scales):
    raise UserError(
      f"target={target['name']!r}: its maps must see earlier ones"
    )
  steps = net.plan.steps
  if kept is None:
    kept = range(max(1, steps + 1 - LISTS), steps + 1)
  kept = tuple(int(k) for k in kept)
  if any(not 1 <= k <= steps for k in kept):
    raise UserError(f"kept={kept}: the target has {steps} maps")
  count = max(1, stack.depth // 4) if adapters is None else adapters
  cut(net, count)  # says what does not divide
  small = dict(depth=2, width=64, heads=4, in_channels=1)
  small |= dict(patch=codes.stride, side=makers.pair(codes.scales[-1])[0])
  mlp = lambda: Mlp(stack.block.mlp.hidden, dtype=stack.dtype)
  own = Adapters(
    make_encoder(**small | dict(dtype=str(stack.dtype)) | dict(encoder or {})),
    tuple(mlp() for _ in range(1 if shared else count)),
    tuple(fresh(stack.block.mixer) for _ in range(count)),
    tuple(codes.scales),
    net.width,
    stack.dtype,
  )
  hidden = inner.label_dropout
  return ECM(net, codes, own, control, hidden, control_dropout, kept)
