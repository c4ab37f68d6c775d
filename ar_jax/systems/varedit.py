"""VAREdit: an image edited by an instruction, as next-scale prediction of bits.

Visual Autoregressive Modeling for Instruction-Guided Image Editing (arXiv
2508.15772). New in it, against Infinity:
  - the latent of the source image, before it is made bits, stands in front of
    the maps of the target, at the size of the finest map alone;
  - in the first layer each map reads the keys and values of the source as means
    at its own size (scale-aligned reference), in all others as they are;
  - guidance strengthens the instruction: the source is always shown.
Of its maps no parameter depends, and it has no more of them than Infinity.

Shapes: B batch, L units of all maps, N rows of the source, K bits of a unit, D
width, H W image sides, c channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from ar_jax.core import forms, system
from ar_jax.core.decoding import pairs, pick
from ar_jax.core.signals.resize import resize
from ar_jax.core.system import Array, Batch, UserError, Vars
from ar_jax.families.scale import referred as nets
from ar_jax.families.scale.bitwise import BitScales, parts
from ar_jax.families.scale.correction import Correction
from ar_jax.families.scale.draw import generate
from ar_jax.families.scale.prompted import prompted_scales
from ar_jax.families.scale.referred import Referred
from ar_jax.tokenizers.bitwise import BitMaps

# The published models: arguments of `build`.
SIZES = {
  "2b": dict(depth=32, width=2048, heads=16),
  "8b": dict(depth=40, width=3584, heads=28),
}


@dataclasses.dataclass(frozen=True)
class VAREdit(BitScales):
  """The system. Variables: `params`, and the frozen `tokenizer`.

  Attributes:
    net: the transformer.
    tokenizer: of maps of bits.
    label_dropout: how often training hides the instruction. 0 is a model
      without guidance.
    correction: wrong bits in training; None for none.
    weights: what the error at a unit counts; see `families.scale.bitwise`.
    source: the field of the data that is edited.
  """

  net: Referred
  tokenizer: BitMaps
  label_dropout: float = 0.1
  correction: Correction | None = None
  weights: str = "side"
  source: str = "source"

  @property
  def needs(self) -> tuple[str, ...]:
    return "text", self.source

  @property
  def edits(self) -> str:
    """The field of the data that a given image stands for."""
    return self.source

  # The source.

  def condition(self, cond: Batch | Array) -> dict[str, Array]:
    """The text and the source of a batch, the latter as it is there."""
    names = "text", self.source, "reference"
    return {name: cond[name] for name in names if name in cond}

  def shown(self, cond: Batch) -> dict[str, Array]:
    """What the net reads of a condition, see `Referred`."""
    return {name: cond[name] for name in ("text", "reference")}

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """As of `BitScales`, with `reference` f32[B, N, K] in place of `source`."""
    batch = super().encode(variables, batch)
    if self.source not in batch:
      return batch
    found = self.referenced(variables, batch)
    batch.pop(self.source)
    return batch | {"reference": found["reference"]}

  def referenced(self, variables: Vars, cond: Batch) -> dict[str, Array]:
    """The text and `reference` f32[B, N, K]: the latent of the source, before
    it is made bits, as units of the grids that stand in front of the maps."""
    if "reference" in cond:
      return {"text": cond["text"], "reference": cond["reference"]}
    source = cond[self.source]
    if not self.net.before:
      rows = jnp.zeros((len(source), 0, self.tokenizer.channels))
      return {"text": cond["text"], "reference": rows}
    source = framed(forms.raw(source), self.tokenizer.sides)
    latent = self.codec(variables).latent(source)
    maps, parts = self.tokenizer.maps, []
    grids = dict(zip(maps.shapes, maps.grids, strict=True))
    for shape in self.net.source:
      parts.append(maps.folded(resize(latent, grids[shape], "bilinear")))
    return {"text": cond["text"], "reference": jnp.concatenate(parts, 1)}

  def of_inputs(
    self,
    variables: Vars,
    cond: Batch | Array,
    embedding: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    cond = self.referenced(variables, cond)
    return super().of_inputs(variables, cond, embedding, hidden, keys)

  def adopt(self, collection: str, given: Any) -> Any:
    """Parameters of an Infinity, too, with which training begins."""
    if collection == "params" and "block" in given.get("backbone", {}):
      return nets.from_one_stack(given)
    return given

  # Sampling.

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    **options,
  ) -> Array:
    """Draws one image per key, f32[B, H, W, c] in [0, 1].

    Args:
      variables: as `init` makes them.
      cond: as in `generate`. A `given` image of other sides than those of the
        model is put on white until it has their ratio, resized, edited, brought
        back to its own sides and cut.
      keys: Key[B].
      **options: of `generate`, and `paste`; see `ScaleWise.sample`.
    """
    image = super().sample(variables, cond, keys, **options)
    given = cond.get("given")
    if given is None or given.shape[1:3] == image.shape[1:3]:
      return image
    height, width = given.shape[1:3]
    whole = frame((height, width), image.shape[1:3])
    image = resize(image, whole, "bicubic")
    return jnp.clip(image[:, :height, :width], 0, 1)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    scales: Sequence[Any] = (),
    guidance: float | None = 1.0,
    schedule: str = "constant",
    temperatures: Sequence[float] = (),
    force_first_scales: int | None = None,
    coarse: str = "bilinear",
    **law: float,
  ) -> tuple[Array, Array]:
    """Draws the units of one edited image per key.

    Args:
      variables: as `init` makes them.
      cond: `text`, the instruction; `source` u8[B, H, W, c]; perhaps `given`
        u8[B, H, W, c], which is edited in place of it, of any sides, and with
        `keep` [B, H, W] 1 where its units are kept whatever the instruction;
        see `ScaleWise.edit`. Perhaps `bias` f32[B, K, 2] of bits.
      keys: Key[B].
      scales: the maps in place of the model's, sides or (height, width).
      guidance: scale; 1.0 or None is off. As the paper's cfg.
      schedule: a key of `pick.SCHEDULES`.
      temperatures: one for each map in place of `temperature`.
      force_first_scales, coarse: with `keep`; see `ScaleWise.edit`.
      **law: temperature, top_k, top_p, min_p; see `pick.law`.

    Returns:
      Units i32[B, L, K], and their latent, f32[B, h, w, d].

    Raises:
      UserError: an option is out of range, or guidance is asked of a model that
        never hid an instruction.
    """
    here = self.over(scales) if scales else self
    guidance, steps = here.scale(guidance), here.plan.steps
    kept = None
    if "keep" in cond:
      kept = here.edit(variables, cond, force_first_scales, coarse)
    elif force_first_scales is not None:
      raise UserError(
        f"force_first_scales={force_first_scales}: say what to keep, by a mask "
        "or a box"
      )
    if "given" in cond:
      cond = {**cond, self.source: cond["given"]}
    return here.drawn(
      variables,
      cond,
      keys,
      guided=guidance != 1.0,
      scales=pick.schedule(schedule, guidance, steps),
      laws=here.by_map(law, temperatures),
      edit=kept,
      bias=cond.get("bias"),
    )

  def drawn(
    self, variables: Vars, label: Any, keys: Array, *, guided: bool, **options
  ) -> tuple[Array, Any]:
    """`draw.generate` for a condition, in pairs if guided: the source is read
    once, and is shown to both of a pair."""
    cond = self.referenced(variables, label)
    if guided:
      hidden = pairs.without(len(keys))
      cond = pairs.double(cond) | {"hidden": hidden}
    net = self.bound(variables)
    cache = net.cache(len(cond["text"]))
    cache = net.shown(cond, net.begin(cond)[1], cache)
    return generate(
      net, self.codec(variables), cond, keys, cache=cache, **options
    )


def frame(sides: tuple[int, int], like: tuple[int, int]) -> tuple[int, int]:
  """The least (H, W) of the ratio of `like` that holds an image of `sides`."""
  (height, width), (tall, wide) = sides, like
  if height * wide >= width * tall:
    return height, -(-height * wide // tall)
  return -(-width * tall // wide), width


def framed(x: Array, sides: tuple[int, int]) -> Array:
  """Images f32[B, H, W, c] in [-1, 1] at these sides: on white, which fills
  what lacks to the right and below, and resized bicubically."""
  if x.shape[1:3] == tuple(sides):
    return x
  height, width = frame(x.shape[1:3], sides)
  around = (0, height - x.shape[1]), (0, width - x.shape[2])
  x = jnp.pad(x, ((0, 0), *around, (0, 0)), constant_values=1.0)
  return jnp.clip(resize(x, sides, "bicubic"), -1, 1)


@system.passes_on(prompted_scales)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  reference: str = "aligned",
  rope_index: str = "exact",
  label_dropout: float = 0.1,
  correction: Mapping[str, Any] | None = None,
  weights: str = "side",
  source: str = "source",
  **net,
) -> VAREdit:
  """Builds VAREdit; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "bitwise", **arguments}`, or "patch_bits".
    depth: layers, at least 2.
    width: D.
    heads: of attention.
    reference: what of the source stands in front of the maps: "aligned",
      "none", "finest" or "all"; see `families.scale.referred`.
    rope_index: "exact", or "table_1m" for the released weights; see there.
    label_dropout: see `VAREdit`.
    correction: arguments of `Correction`: an empty mapping is the published
      law; None for no wrong bits.
    weights: see `VAREdit`.
    source: see `VAREdit`; "map" for pictures of one's own in `data.maps`.
    **net: text, ground, levels, null_length, mlp_ratio, drop_path, gate_init,
      pairs, remat, dtype, impl; see `prompted_scales`.

  Raises:
    UserError: sizes do not fit together.
  """
  made, codes, wrong = parts(
    tokenizer, correction, weights, depth=depth, width=width, heads=heads, **net
  )
  made = nets.referred(made, reference, rope_index)
  return VAREdit(made, codes, label_dropout, wrong, weights, source)
