"""Infinity: text to image by next-scale prediction of bits.

Infinity: Scaling Bitwise AutoRegressive Modeling for High-Resolution Image
Synthesis (arXiv 2412.04431). New in it, against VAR:
  - a unit is a vector of bits of a binary spherical quantiser and no number of
    a codebook, so there are as many codes as one likes;
  - each bit has a classifier of two classes of its own;
  - in training some bits of the inputs are wrong, and what then is left is the
    target of the maps behind: the model repairs its own errors.

Shapes: B batch, L units of all maps, K bits of a unit, D width, h w sides of
the latent in cells, d bits of a cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ar_jax.core import system
from ar_jax.core.decoding import pick
from ar_jax.core.system import Array, Batch, UserError, Vars
from ar_jax.families.scale.bitwise import BitScales, parts
from ar_jax.families.scale.correction import Correction
from ar_jax.families.scale.prompted import PromptedScales, prompted_scales
from ar_jax.tokenizers.bitwise import BitMaps

# The published models, and those of the scaling study: arguments of `build`.
SIZES = {
  "2b": dict(depth=32, width=2048, heads=16),
  "8b": dict(depth=40, width=3584, heads=28),
  "20b": dict(depth=58, width=4608, heads=36),
  "layer12": dict(depth=12, width=768, heads=8),
  "layer16": dict(depth=16, width=1152, heads=12),
  "layer24": dict(depth=24, width=1536, heads=16),
  "layer32": dict(depth=32, width=2080, heads=20),
  "layer40": dict(depth=40, width=2688, heads=24),
  "layer48": dict(depth=48, width=3360, heads=28),
}


@dataclasses.dataclass(frozen=True)
class Infinity(BitScales):
  """The system. Variables: `params`, and the frozen `tokenizer`.

  Attributes:
    net: the transformer.
    tokenizer: of maps of bits.
    label_dropout: how often training hides the text. 0 is a model without
      guidance.
    correction: wrong bits in training; None for none.
    weights: what the error at a unit counts: "side", 1 over the side of its
      map, as published, or "even".
  """

  net: PromptedScales
  tokenizer: BitMaps
  label_dropout: float = 0.1
  correction: Correction | None = None
  weights: str = "side"

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    scales: Sequence[Any] = (),
    ratio: float | None = None,
    budget: str | None = None,
    guidance: float | None = 1.0,
    schedule: str = "constant",
    guide_layer: int | None = None,
    temperatures: Sequence[float] = (),
    force_first_scales: int | None = None,
    coarse: str = "bilinear",
    **law: float,
  ) -> tuple[Array, Array]:
    """Draws the units of one image per key.

    Args:
      variables: as `init` makes them.
      cond: `text`, as the encoder reads it. To edit an image, `given` u8[B, H,
        W, c] and perhaps `keep`; see `ScaleWise.edit`. Perhaps `bias` f32[B, K,
        2] of bits; see `Bitwise.law`.
      keys: Key[B].
      scales: the maps in place of the model's, sides or (height, width).
      ratio: height over width; with `budget` in place of `scales`, see
        `core.plans.aspects`.
      budget: of pixels: "0.06M", "0.25M", "0.60M" or "1M".
      guidance: scale; 1.0 or None is off. As the paper's cfg.
      schedule: a key of `pick.SCHEDULES`.
      guide_layer: guides the hidden states behind this layer, counted from the
        end if negative, in place of the logits.
      temperatures: one for each map in place of `temperature`.
      force_first_scales: so many maps are those of the given image; None means
        the map of one unit, if a part is kept.
      coarse: see `editing.kept`.
      **law: temperature, top_k, top_p, min_p; see `pick.law`.

    Returns:
      Units i32[B, L, K], and their latent, f32[B, h, w, d].

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        that never hid a text.
    """
    here = self.asked(scales, ratio, budget)
    guidance, steps = here.scale(guidance), here.plan.steps
    depth = here.net.backbone.depth
    if guide_layer is not None and not -depth <= guide_layer < depth:
      raise UserError(f"guide_layer={guide_layer}: there are {depth} layers")
    return here.drawn(
      variables,
      cond,
      keys,
      guided=guidance != 1.0,
      scales=pick.schedule(schedule, guidance, steps),
      laws=here.by_map(law, temperatures),
      edit=here.edit(variables, cond, force_first_scales, coarse),
      bias=cond.get("bias"),
      deep=None if guide_layer is None else guide_layer % depth,
    )


@system.passes_on(prompted_scales)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  label_dropout: float = 0.1,
  correction: Mapping[str, Any] | None = None,
  weights: str = "side",
  **net,
) -> Infinity:
  """Builds Infinity; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "bitwise", **arguments}`, or "patch_bits".
    depth: layers.
    width: D.
    heads: of attention.
    label_dropout: see `Infinity`.
    correction: arguments of `Correction`: an empty mapping is the published
      law; None for no wrong bits.
    weights: see `Infinity`.
    **net: text, ground, levels, null_length, mlp_ratio, drop_path, gate_init,
      pairs, remat, dtype, impl; see `prompted_scales`.

  Raises:
    UserError: sizes do not fit together.
  """
  made, codes, wrong = parts(
    tokenizer, correction, weights, depth=depth, width=width, heads=heads, **net
  )
  return Infinity(made, codes, label_dropout, wrong, weights)
