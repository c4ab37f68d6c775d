"""VAR: class-conditional images by next-scale prediction.

Visual Autoregressive Modeling: Scalable Image Generation via Next-Scale
Prediction (arXiv 2404.02905). New in it:
  - an image is a list of residual token maps from 1 x 1 up to h x h;
  - a step predicts one whole map in parallel, given all coarser ones;
  - its input is the latent reconstructed so far, resized to the new map.

Shapes: B batch, L units, K scales of side p_k, T slots of one call, C latent
channels, D width, V codes, h side of the latent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn

from ar_jax.core import system
from ar_jax.core.plans import makers
from ar_jax.core.system import Array, Batch, UserError, Vars
from ar_jax.families.scale import draw
from ar_jax.families.scale.net import NextScale, next_scale
from ar_jax.families.scale.system import ScaleWise

# The published models: arguments of `build`. d36-s is for 512 px; the scales
# by image size are `multiscale_vq.SCALES`.
SIZES = {
  "d16": dict(depth=16, gate_init=1e-3),
  "d20": dict(depth=20, gate_init=1e-3),
  "d24": dict(depth=24, gate_init=1e-4),
  "d30": dict(depth=30, gate_init=1e-5),
  "d36-s": dict(depth=36, gate_init=5e-6, shared_ada=True),
}


@dataclasses.dataclass(frozen=True)
class VAR(ScaleWise):
  """The system. Variables: `params`, and the frozen `tokenizer`.

  Attributes:
    net: the transformer.
    tokenizer: a `MultiScaleVQ`.
    label_dropout: how often training hides the label. 0 builds no null class,
      and then there is no guidance.
    smoothing: of labels in the cross-entropy.
    scale_weights: weight of each scale's mean in the loss; None weighs all
      units alike, as the paper does.
  """

  net: NextScale
  tokenizer: nn.Module
  label_dropout: float = 0.1
  smoothing: float = 0.0
  scale_weights: tuple[float, ...] | None = None

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    guidance: float | None = 1.0,
    schedule: str = "ramp",
    smooth: bool = False,
    last_temperature: float | None = None,
    force_first_scales: int | None = None,
    coarse: str = "bilinear",
    redraw: Callable[..., Array] | None = None,
    **law: float,
  ) -> tuple[Array, Array]:
    """Draws the units of one image per key.

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B]; the null label draws without a class. To edit an
        image, `given` u8[B, H, W, c] and perhaps `keep`; see
        `ScaleWise.edit`. Perhaps `bias` f32[B, V], or f32[B, K, V] for each
        map; see `pick.biased`.
      keys: Key[B].
      guidance: scale at the last step; 1.0 or None is off. The paper's cfg is
        guidance - 1.
      schedule: "ramp" rises from 1.0 at the first scale, as the paper does;
        "constant".
      smooth: mixes codes by a Gumbel softmax in place of drawing them:
        smoother pictures, not for measuring.
      last_temperature: of the last map, where the first has `temperature` and
        it changes evenly between them; None for the same at all.
      force_first_scales: so many maps are those of the given image; None
        means the 1 x 1 map, if a part is kept.
      coarse: see `editing.kept`.
      redraw: see `draw.generate`.
      **law: temperature, top_k, top_p, min_p; see `pick.law`.

    Returns:
      Units i32[B, L], in smooth sampling the heaviest of each mixture; and
      their latent, f32[B, h, h, C].

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        that was built without a null class.
    """
    guidance, steps = self.scale(guidance), self.plan.steps
    return self.drawn(
      variables,
      cond["label"],
      keys,
      guided=guidance != 1.0,
      scales=self.rates(schedule, guidance),
      laws=draw.cooled(law, last_temperature, steps),
      smooth=smooth,
      edit=self.edit(variables, cond, force_first_scales, coarse),
      redraw=redraw,
      bias=cond.get("bias"),
    )


@system.passes_on(next_scale)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  num_classes: int,
  label_dropout: float = 0.1,
  smoothing: float = 0.0,
  scale_weights: Sequence[float] | None = None,
  **net,
) -> VAR:
  """Builds VAR; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "multiscale_vq", **arguments}`.
    depth: layers.
    num_classes: labels are 0 .. num_classes - 1; the next one is null.
    label_dropout: see `VAR`.
    smoothing: see `VAR`.
    scale_weights: see `VAR`.
    **net: width, heads, mlp_ratio, qk_norm, shared_ada, drop_path, gate_init,
      head_init, remat, dtype, impl; see `next_scale`.

  Raises:
    UserError: sizes do not fit together.
  """
  codes = system.part(tokenizer).tokenizer
  scales = makers.scales(codes.scales)
  if scale_weights is not None and len(scale_weights) != scales.steps:
    raise UserError(
      f"scale_weights has {len(scale_weights)} values for {scales.steps} scales"
    )
  labels = num_classes + (label_dropout > 0)
  return VAR(
    next_scale(scales, codes.vocab, labels, depth=depth, **net),
    codes,
    label_dropout,
    smoothing,
    None if scale_weights is None else tuple(scale_weights),
  )
