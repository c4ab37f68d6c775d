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
from ar_jax.core.plans import aspects, makers
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import hidden_conditions
from ar_jax.families.scale.draw import generate
from ar_jax.families.scale.prompted import PromptedScales
from ar_jax.families.scale.system import ScaleWise, weighted_sum
from ar_jax.nn.heads.categorical import cross_entropy
from ar_jax.nn.quantize.scaled_bits import Coded, strengths
from ar_jax.tokenizers.bitwise import BitMaps, frozen_scales

# How the error at a unit counts: by 1 over the side of its map, or evenly.
WEIGHTS = ("side", "even")


@dataclasses.dataclass(frozen=True)
class Correction:
  """The law of wrong bits in training; see `scaled_bits.strengths`.

  Attributes:
    most: the largest share of them; 0 is none.
    maps: of how many maps, the first; None for all.
    by_example: whether each example has shares of its own; else the batch has.
  """

  most: float = 0.3
  maps: int | None = 13
  by_example: bool = False

  def __post_init__(self):
    if not 0 <= self.most <= 1:
      raise UserError(f"correction.most={self.most}: must be in [0, 1]")

  def flips(self, tokenizer: BitMaps, key: Array, keys: Array) -> list[Array]:
    """See `ScaledBits.flips`; by the key of the batch and Key[B]."""
    maps = tokenizer.maps
    draw = lambda key: strengths(key, len(maps.shapes), self.most)
    if self.by_example:
      own = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
      strength = jax.vmap(draw)(own)
    else:
      strength = draw(key)
    return maps.flips(keys, strength, self.maps)


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

  def bit_loss(self, logits: Array, units: Array) -> Loss:
    """The loss of logits f32[B, L, K, 2]: `value` the weighted mean over bits,
    `nll` of a unit, the sum over its bits."""
    each = cross_entropy(logits, units)
    hits = (jnp.argmax(logits, -1) == units).astype(jnp.float32).mean(-1)
    metrics = {"accuracy": hits.mean(1)}
    for s in range(self.plan.steps):
      metrics[f"bits/map_{s + 1}"] = hits[:, self.plan.span(s)].mean(1)
    value = weighted_sum(each.mean(-1), jnp.asarray(self.weight()))
    return Loss(value, metrics, nll=each.sum(-1))

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

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    hidden, depth, bits = self.noise(batch, key) if train else (None,) * 3
    coded = self.seen(variables, batch, jax.random.fold_in(key, 1), bits)
    logits = self.of_inputs(variables, batch, coded.inputs, hidden, depth)
    return self.bit_loss(logits, coded.units)

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
