"""What all systems share that draw maps of bits of a text (Infinity, its kin).

Training reads the latent itself, not the units alone: with bitwise
self-correction (arXiv 2412.04431, section 3.3) some bits of each map are wrong
in the inputs of the maps behind it, whose targets are what then is left.

Shapes: B batch, L slots, K bits of a unit, N maps of h_k x w_k units, h w sides
of the latent in cells, d bits of a cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import forms, system
from ar_jax.core.decoding import pairs
from ar_jax.core.errors import check_choice
from ar_jax.core.plans import aspects, makers
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import hidden_conditions
from ar_jax.families.scale.correction import Correction
from ar_jax.families.scale.draw import generate
from ar_jax.families.scale.prompted import PromptedScales, prompted_scales
from ar_jax.families.scale.system import ScaleWise, Targets, weighted_sum
from ar_jax.nn.heads.categorical import cross_entropy
from ar_jax.nn.quantize.scaled_bits import Coded
from ar_jax.tokenizers.bitwise import BitMaps, frozen_scales

# How the error at a unit counts: by 1 over the side of its map, or evenly.
WEIGHTS = ("side", "even")


class BitScales(ScaleWise):
  """A generator of maps of bits. A subclass is a frozen dataclass with

  Attributes:
    net: the transformer.
    tokenizer: a `BitMaps`.
    label_dropout: how often training hides the text. 0 is a model without
      guidance.
    correction: wrong bits in training; None for none.
    weights: a name of WEIGHTS.
  """

  net: PromptedScales
  tokenizer: BitMaps
  label_dropout: float = 0.1
  correction: Correction | None = None
  weights: str = "side"

  needs = ("text",)
  schedule = "constant"
  classes = None
  null = None

  # The data.

  def condition(self, cond: Batch | Array) -> dict[str, Array]:
    """The text of a batch, or what is no batch as one."""
    if not isinstance(cond, Mapping):
      cond = {"text": cond}
    return {"text": cond["text"]}

  def shown(self, cond: Batch) -> dict[str, Array]:
    """What the net reads of a condition, see `PromptedScales`."""
    return {"text": cond["text"]}

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """The batch with `units` i32[B, L, K] and, for the correction of wrong
    bits, `latent` f32[B, h, w, d] in place of `image`."""
    rest, field = dict(batch), self.tokenizer.field
    if field not in rest:
      return rest
    codec = self.codec(variables)
    latent = codec.latent(forms.raw(rest.pop(field)))
    rest |= {"units": codec.code(latent).units}
    return rest | ({"latent": latent} if self.correction else {})

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The plan and the tokenizer know all shapes.
    key, frozen = jax.random.split(key)
    params, frozen = self.fresh_net(key), self.init_tokenizer(frozen)
    return {"params": params, "tokenizer": frozen}

  def fresh_net(self, key: Array) -> Any:
    """Fresh parameters of the transformer."""
    # No parameter depends on the list of maps, and a long one takes seconds.
    net = self.net.on(((1, 1), (2, 2)))
    embedding = jnp.zeros((1, len(net.plan), self.tokenizer.channels))
    every = lambda net, *args: net.head.logits(net(*args))
    return net.init(key, net.example(), embedding, method=every)["params"]

  # Training.

  def noise(
    self, batch: Batch, key: Array
  ) -> tuple[Array | None, Array, Array]:
    """Whose text training hides, bool[B] or None; Key[B] for stochastic depth;
    and Key[B] for wrong bits."""
    keys = system.example_keys(key, batch)
    hide, depth, bits = jax.vmap(
      lambda k: jax.random.split(k, 3), out_axes=1
    )(keys)  # fmt: skip
    return hidden_conditions(hide, self.label_dropout), depth, bits

  def seen(
    self, variables: Vars, batch: Batch, key: Array, keys: Array | None
  ) -> Coded:
    """Units and inputs of an encoded batch, where bits are wrong if there are
    keys Key[B]; `key` is that of the batch."""
    codec = self.codec(variables)
    if keys is None or not self.correction or not self.correction.most:
      units = batch["units"]
      return Coded(units, codec.embed(units), [], [])
    if "latent" not in batch:
      raise UserError(
        "correction: a batch of units must hold `latent` as well; encode anew"
      )
    flips = self.correction.flips(self.tokenizer, key, keys)
    return codec.code(batch["latent"], flips=flips)

  def weight(self) -> np.ndarray:
    """f32[L], what the error at a unit counts; the sum is 1."""
    if self.weights == "even":
      each = np.ones(len(self.plan))
    else:
      sizes = np.array(self.plan.sizes)
      each = np.repeat(1 / np.sqrt(sizes), sizes)
    return np.asarray(each / each.sum(), np.float32)

  def error(self, logits: Array, units: Array) -> Array:
    """f32[B, L]: the mean over the bits i32[B, L, K] of a unit, of logits
    f32[B, L, K, 2]."""
    return cross_entropy(logits, units).mean(-1)

  def bit_loss(self, logits: Array, units: Array) -> Loss:
    """The loss of logits f32[B, L, K, 2]: `value` the weighted mean over bits,
    `nll` of a unit, the sum over its bits."""
    each = self.error(logits, units)
    hits = (jnp.argmax(logits, -1) == units).astype(jnp.float32).mean(-1)
    metrics = {"accuracy": hits.mean(1)}
    for s in range(self.plan.steps):
      metrics[f"bits/map_{s + 1}"] = hits[:, self.plan.span(s)].mean(1)
    value = weighted_sum(each, jnp.asarray(self.weight()))
    return Loss(value, metrics, nll=each * units.shape[-1])

  def logits(
    self,
    variables: Vars,
    cond: Batch | Array,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, L, K, 2] of every bit of the plan, given the maps before its own.

    Args:
      variables: as `init` makes them.
      cond: with `text`.
      units: i32[B, L, K].
      hidden: bool[B], examples whose text is not shown.
      keys: Key[B] for stochastic depth, or None.
    """
    embedding = self.codec(variables).embed(units)
    return self.of_inputs(variables, cond, embedding, hidden, keys)

  def of_inputs(
    self,
    variables: Vars,
    cond: Batch | Array,
    embedding: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """As `logits`, of inputs f32[B, L, K]."""
    cond = self.shown(self.condition(cond))
    if hidden is not None:
      cond = cond | {"hidden": hidden}
    net = self.bound(variables)
    return net.head.logits(net(cond, embedding, keys))

  def label_and_keys(
    self, batch: Batch, key: Array, *, train: bool
  ) -> tuple[dict[str, Array], Array | None]:
    """What the net reads of the conditions, some hidden in training, and keys
    for stochastic depth."""
    cond = self.condition(batch)
    if not train:
      return cond, None
    hidden, depth, _ = self.noise(batch, key)
    return cond | ({} if hidden is None else {"hidden": hidden}), depth

  def targets(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Targets:
    """The targets of the plan; its `layout` are the inputs of the slots."""
    batch = self.encode(variables, batch)
    cond, depth = self.label_and_keys(batch, key, train=train)
    bits = self.noise(batch, key)[2] if train else None
    coded = self.seen(variables, batch, jax.random.fold_in(key, 1), bits)
    level, weight = jnp.asarray(self.plan["step"]), jnp.asarray(self.weight())
    return Targets(cond, coded.units, level, weight, depth, layout=coded.inputs)

  def teacher_inputs(self, variables: Vars, targets: Targets) -> Array:
    del variables
    return targets.layout

  def predict(
    self,
    variables: Vars,
    targets: Targets,
    inputs: Array,
    *,
    start: bool = True,
  ) -> Array:
    """Logits f32[B, L, K, 2] of all slots by their inputs f32[B, L, K]."""
    if targets.at is not None or not start:
      raise UserError("maps of bits are predicted all together")
    cond = dict(targets.label)
    hidden = cond.pop("hidden", None)
    return self.of_inputs(variables, cond, inputs, hidden, targets.keys)

  def unconditional(self, targets: Targets) -> Targets:
    hidden = jnp.ones(len(targets.units), bool)
    label = {**targets.label, "hidden": hidden}
    return dataclasses.replace(targets, label=label)

  def loss_of(self, targets: Targets, logits: Array) -> Loss:
    return self.bit_loss(logits, targets.units)

  # Sampling.

  def over(
    self, scales: Sequence[Any], ground: tuple[int, int] | None = None
  ) -> BitScales:
    """The same model on another list of maps; its parameters are the same.

    Args:
      scales: sides or (height, width), from one unit on.
      ground: see `PromptedScales`; that of the model if None.
    """
    scales = frozen_scales(scales)
    shapes = tuple(map(makers.pair, scales))
    if len(shapes) > self.net.levels:
      raise UserError(
        f"scales={scales}: this model has room for {self.net.levels} maps"
      )
    net = self.net.on(shapes, ground)
    tokenizer = self.tokenizer.clone(scales=scales)
    return dataclasses.replace(self, net=net, tokenizer=tokenizer)

  def asked(
    self, scales: Sequence[Any], ratio: float | None, budget: str | None
  ) -> BitScales:
    """The model on the maps that options ask for: a list, or a ratio and a
    budget of `aspects`; itself if they ask for none."""
    if scales and (ratio or budget):
      raise UserError("give scales, or ratio and budget, not both")
    if scales:
      return self.over(scales)
    if ratio is None and budget is None:
      return self
    ratio = 1.0 if ratio is None else ratio
    maps = aspects.maps(ratio, "1M" if budget is None else budget)
    return self.over(maps, aspects.ground(ratio))

  def by_map(
    self, law: Mapping[str, Any], temperatures: Sequence[float]
  ) -> list[dict[str, Any]]:
    """The law of each map: `law`, or with a temperature of its own."""
    steps = self.plan.steps
    if not temperatures:
      return [dict(law)] * steps
    if len(temperatures) != steps:
      raise UserError(
        f"temperatures: {len(temperatures)} numbers for {steps} maps"
      )
    return [{**law, "temperature": float(t)} for t in temperatures]

  def drawn(
    self, variables: Vars, label: Any, keys: Array, *, guided: bool, **options
  ) -> tuple[Array, Any]:
    """`draw.generate` for a condition, in pairs if guided."""
    label = self.shown(self.condition(label))
    if guided:
      hidden = pairs.without(len(keys))
      label = pairs.double(label) | {"hidden": hidden}
    return generate(
      self.bound(variables), self.codec(variables), label, keys, **options
    )


@system.passes_on(prompted_scales)
def parts(
  tokenizer: Mapping[str, Any],
  correction: Mapping[str, Any] | None,
  weights: str,
  **net,
) -> tuple[PromptedScales, BitMaps, Correction | None]:
  """The transformer, the tokenizer and the law of wrong bits of a generator.

  Args:
    tokenizer: `{"name": "bitwise", **arguments}`, or "patch_bits".
    correction: arguments of `Correction`: an empty mapping is the published
      law; None for no wrong bits.
    weights: a name of WEIGHTS.
    **net: of `prompted_scales`.

  Raises:
    UserError: the units are no maps of bits, or there is no such weight.
  """
  codes = system.part(tokenizer).tokenizer
  if not isinstance(codes, BitMaps):
    raise UserError(
      f"tokenizer={tokenizer['name']!r}: its units are no maps of bits; use "
      "bitwise or patch_bits"
    )
  check_choice("weights", weights, WEIGHTS)
  shapes = tuple(map(makers.pair, codes.scales))
  made = prompted_scales(shapes, codes.unit_bits, **net)
  return made, codes, None if correction is None else Correction(**correction)
