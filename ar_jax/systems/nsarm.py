"""NSARM: a poor image restored by the first maps that it says itself.

NSARM: Next-Scale Autoregressive Modeling for Robust Real-World Image
Super-Resolution (arXiv 2510.00820). New in it, over Infinity:
  - a network says the first maps of the good image from the latent of the poor
    one; their bits are given maps of the generator;
  - first that network is trained alone, on what is left at each map of the good
    image; then both, on the bits of the other maps, which count from the given
    ones and so repair what these have wrong;
  - the given maps are read in one pass, and the result takes its colours from
    the poor image.

Shapes: B batch, L units of all maps, K bits of a unit, M given maps, H W sides
of an image, c channels, h w sides of the latent in cells, d bits of a cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import forms, system
from ar_jax.core.errors import check_choice
from ar_jax.core.plans.makers import pair
from ar_jax.core.signals import colours
from ar_jax.core.signals.resize import resize
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.scale import given_maps
from ar_jax.families.scale.bitwise import BitScales
from ar_jax.families.scale.map_net import MapNet, MapSizes, map_net
from ar_jax.families.scale.prompted import PromptedScales, prompted_scales
from ar_jax.nn.quantize.scaled_bits import Coded
from ar_jax.tokenizers.bitwise import BitMaps

STAGES = ("maps", "both")


@dataclasses.dataclass(frozen=True)
class NSARM(BitScales):
  """The system. Variables: `params`, which are those of Infinity, `net`, and
  those of the network of maps, `maps`; and the frozen `tokenizer`.

  Attributes:
    net: the transformer.
    tokenizer: of maps of bits.
    maps: says the given maps.
    grid: (H, W), sides in cells of the latent of the poor image.
    stage: what is trained: "maps" or "both".
    label_dropout: how often training hides the text; without texts it is always
      hidden.
    words: whether there are texts.
    consistency: weight of a further term of the first stage: what the maps add
      up to; see `given_maps.errors`.
    anchor: weight of the first loss in the second stage; 0, as published, lets
      given maps be wrong in one direction, which makes later bits certain.
    weights: see `Infinity`.
  """

  net: PromptedScales
  tokenizer: BitMaps
  maps: MapNet
  grid: tuple[int, int]
  stage: str = "both"
  label_dropout: float = 0.0
  words: bool = False
  consistency: float = 0.0
  anchor: float = 0.0
  weights: str = "side"

  control = "low"
  takes = ("bias",)

  @property
  def needs(self) -> tuple[str, ...]:
    return ("low", "text") if self.words else ("low",)

  @property
  def trains(self) -> tuple[str, ...] | None:
    return ("maps",) if self.stage == "maps" else None

  @property
  def given(self) -> int:
    """M."""
    return len(self.maps.shapes)

  @property
  def known(self) -> int:
    """Units of the given maps."""
    return self.plan.span(self.given - 1).stop

  # Variables.

  def bound(self, variables: Vars) -> PromptedScales:
    return self.net.bind({"params": variables["params"]["net"]})

  def init(self, key: Array, batch: Batch) -> Vars:
    key, maps = jax.random.split(key)
    made = super().init(key, batch)
    return made | {
      "params": {"net": made["params"], "maps": self.fresh_maps(maps)}
    }

  def fresh_maps(self, key: Array) -> Any:
    """Fresh parameters of the network of maps."""
    latent = jnp.zeros((1, *self.grid, self.tokenizer.bits))
    return self.maps.init(key, latent)["params"]

  def adopt(self, collection: str, given: Any) -> Any:
    """The params of an NSARM that begins as an Infinity, where such are
    given."""
    if collection != "params" or "net" in given:
      return given
    fresh = jax.jit(self.fresh_maps)(jax.random.key(0))
    return {"net": given, "maps": jax.device_get(fresh)}

  # Conditions.

  def condition(self, cond: Batch | Array) -> dict[str, Array]:
    """What is read of a batch; what is no batch is the poor image."""
    if not isinstance(cond, Mapping):
      cond = {"low": cond}
    return {k: cond[k] for k in (*self.needs, "low_latent") if k in cond}

  def shown(self, cond: Batch) -> dict[str, Array]:
    """A text, or none."""
    if self.words:
      return {"text": cond["text"]}
    return self.net.silent(len(next(iter(cond.values()))))

  def poor(self, variables: Vars, low: Array) -> Array:
    """The latent f32[B, h, w, d] of poor images u8[B, H, W, c], which are
    brought to the size of `grid` by the mean over areas where they are larger.
    """
    here = self.tokenizer.of_grid(self.grid)
    x = resize(forms.raw(low), here.sides, "area")
    frozen = jax.lax.stop_gradient(variables["tokenizer"])
    return here.bind({"params": frozen}).latent(x)

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """The batch with `latent` and `low_latent` in place of `image`, and with
    `units` i32[B, L, K], the given maps among them: but not where it is to be
    stored, as the network of maps learns."""
    rest = self.latents(variables, batch)
    if self.tokenizer.field in batch and "view" not in batch:
      said = given_maps.bits_of(self.said(variables, rest["low_latent"]))
      rest["units"] = self.tokenizer.maps.code(rest["latent"], given=said).units
    return rest

  def latents(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """As `encode`, without units."""
    rest = {k: v for k, v in batch.items() if k != "view"}
    if "low" in rest and "low_latent" not in rest:
      rest["low_latent"] = self.poor(variables, rest["low"])
    if self.tokenizer.field in rest:
      x = forms.raw(rest.pop(self.tokenizer.field))
      rest["latent"] = self.codec(variables).latent(x)
    return rest

  def said(
    self, variables: Vars, low_latent: Array, keys: Array | None = None
  ) -> list[Array]:
    """What the poor image says is left at each given map, f32[B, h, w, d]."""
    maps = self.maps.bind({"params": variables["params"]["maps"]})
    return maps(low_latent, keys)

  def known_units(self, said: Sequence[Array]) -> Array:
    """The units i32[B, n, K] of the given maps."""
    return given_maps.units_of(self.tokenizer.maps, said)

  # Training.

  def weight(self) -> np.ndarray:
    """f32[L]: the given units do not count."""
    weight = np.array(super().weight())
    weight[: self.known] = 0
    return weight / weight.sum()

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """Of the given maps, or of the bits behind them. A batch with `units` is
    taken at its word where nothing is trained."""
    batch = (self.latents if train else self.encode)(variables, batch)
    hidden = depth = drop = None
    if train:
      hidden, depth, drop = self.noise(batch, key)
      hidden = hidden if self.words else None
    said = self.said(variables, batch["low_latent"], drop)
    maps, latent = self.tokenizer.maps, batch["latent"]
    terms = given_maps.errors(maps, latent, said, self.consistency > 0)
    of_maps = terms["maps"] + self.consistency * terms.get("consistency", 0.0)
    if train and self.stage == "maps":
      return Loss(of_maps, terms)
    if "units" in batch and not train:
      coded = Coded(batch["units"], maps.embed(batch["units"]), [], [])
    else:
      coded = given_maps.coded_behind(maps, latent, said)
    logits = self.of_inputs(variables, batch, coded.inputs, hidden, depth)
    logits = given_maps.certain(logits, self.known_units(said))
    loss = self.bit_loss(logits, coded.units)
    metrics = loss.metrics | terms
    metrics["late_nats"] = loss.nll[:, self.known :].mean(1) / logits.shape[2]
    hits = (jnp.argmax(logits, -1) == coded.units)[:, self.known :]
    metrics["accuracy"] = hits.astype(jnp.float32).mean((1, 2))
    count = jnp.full(len(logits), len(self.plan) - self.known, jnp.float32)
    value = loss.value + self.anchor * of_maps * train
    return dataclasses.replace(loss, value=value, metrics=metrics, units=count)

  def logits(
    self,
    variables: Vars,
    cond: Batch | Array,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """As `BitScales.logits`; the given bits are certain."""
    found = super().logits(variables, cond, units, hidden, keys)
    said = self.said_of(variables, cond)
    return given_maps.certain(found, self.known_units(said))

  def said_of(self, variables: Vars, cond: Batch | Array) -> list[Array]:
    """As `said`, of a condition."""
    cond = self.condition(cond)
    if "low_latent" not in cond:
      cond["low_latent"] = self.poor(variables, cond["low"])
    return self.said(variables, cond["low_latent"])

  # Sampling.

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    guidance: float | None = 1.0,
    **law: float,
  ) -> tuple[Array, Array]:
    """Draws the units of one image per key behind the given maps, which are
    read in one pass.

    Args:
      variables: as `init` makes them.
      cond: `low` u8[B, H, W, c], the poor image, enlarged or not; `text` where
        there are texts.
      keys: Key[B].
      guidance: scale; 1.0, as published, or None is off.
      **law: temperature, top_k, top_p, min_p; see `pick.law`.

    Returns:
      Units i32[B, L, K], and their latent, f32[B, h, w, d].

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        without texts.
    """
    guidance, steps = self.scale(guidance), self.plan.steps
    said = self.said_of(variables, cond)
    return self.drawn(
      variables,
      cond,
      keys,
      guided=guidance != 1.0,
      scales=(guidance,) * steps,
      laws=(law,) * steps,
      bias=cond.get("bias"),
      known=self.known_units(said),
    )

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    colour: str = "both",
    **options,
  ) -> Array:
    """Restores the poor images, f32[B, H, W, c] in [0, 1].

    Args:
      variables: as `init` makes them.
      cond: as in `generate`.
      keys: Key[B].
      colour: what the result takes of the poor image: see
        `colours.transferred`.
      **options: of `generate`.
    """
    check_choice("colour", colour, colours.KINDS)
    _, latent = self.generate(variables, cond, keys, **options)
    image = self.decode_latent(variables, latent)
    like = resize(forms.raw(cond["low"]), image.shape[1:3], "bicubic")
    return colours.transferred(image, (like + 1) / 2, colour)


@system.passes_on(prompted_scales)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  grid: int | Sequence[int],
  maps: Mapping[str, Any] | None = None,
  raw: bool = False,
  stage: str = "both",
  label_dropout: float = 0.0,
  words: bool = False,
  consistency: float = 0.0,
  anchor: float = 0.0,
  weights: str = "side",
  **net,
) -> NSARM:
  """Builds NSARM.

  Args:
    tokenizer, depth, width, heads: as of `infinity`.
    grid: side, or sides, of the latent of the poor image, in cells: 32 for 256
      pixels and stride 8.
    maps: sizes of the network of maps, see `MapSizes`; the published if None.
    raw: see `MapNet`; of the published weights.
    stage, label_dropout, words, consistency, anchor, weights: see `NSARM`.
    **net: as of `infinity`.

  Raises:
    UserError: sizes do not fit together.
  """
  check_choice("stage", stage, STAGES)
  if label_dropout and not words:
    raise UserError("label_dropout hides texts, and words=False has none")
  spec = dict(tokenizer=tokenizer, depth=depth, width=width, heads=heads)
  base = system.build("infinity", **spec, weights=weights, **net)
  codes, sizes = base.tokenizer, MapSizes.of(**(maps or {}))
  grids = codes.maps.grids
  given = len(sizes.dims)
  if not 0 < given < len(grids):
    raise UserError(
      f"maps: {given} are said, and of {len(grids)} one must be left to draw"
    )
  network = map_net(grids[:given], codes.bits, sizes, raw)
  return NSARM(
    base.net, codes, network, pair(grid), stage, label_dropout, words,
    consistency, anchor, weights,
  )  # fmt: skip
