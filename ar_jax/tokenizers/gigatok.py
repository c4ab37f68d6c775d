"""GigaTok: an image as a line of codes, by queries between two small nets of
convolutions, whose decoder is held to what a frozen teacher sees.

GigaTok: Scaling Visual Tokenizers to 3 Billion Parameters for Autoregressive
Image Generation (arXiv 2504.08736). New in it:
  - the transformers between convolutions and codes carry the parameters, most
  of them in the decoder; their queries begin as means of ever smaller parts of
  the image;
  - states behind one layer of the decoder are pulled to the features of a
  teacher, without which larger tokenizers make codes that are harder to
  predict;
  - a tokenizer is judged by a small LlamaGen over its codes.

Shapes: B batch, H W image sides, c image channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.system import Batch, System, UserError, Vars
from ar_jax.tokenizers.aligned import Aligned, teacher_of, with_teacher
from ar_jax.tokenizers.autoencoder import (
  PIXEL_LOSSES,
  Reconstruction,
  autoencoder,
)
from ar_jax.tokenizers.queried import GigaTok

Array = jax.Array
# Width, layers, heads of the transformers of the published models.
TRANSFORMERS = {
  "s": (512, 6, 8), "b": (768, 12, 12), "l": (1024, 24, 16),
  "xl": (1280, 36, 20), "xxl": (1536, 48, 24),
}  # fmt: skip
SIZES = {
  "s_s": dict(encoder="s", decoder="s"),
  "s_b": dict(encoder="s", decoder="b"),
  "b_l": dict(encoder="b", decoder="l"),
  "xl_xxl": dict(encoder="xl", decoder="xxl"),
}


@dataclasses.dataclass(frozen=True)
class GigaTokTraining(Aligned):
  """A GigaTok in training: beside the terms of every tokenizer the semantic
  one, and in the first updates those of a net without codes.

  Attributes: as of `Aligned`, and
    direct_steps: updates in which the convolutions also learn to draw by
      themselves, and the map of the transformers to be as theirs is. Of an
      evaluation it is over.
  """

  direct_steps: int = 0

  def at(self, step: int) -> System:
    if not self.direct_steps or step < self.direct_steps:
      return self
    alone = self.tokenizer.clone(direct=False)
    return dataclasses.replace(self, tokenizer=alone, direct_steps=0)

  def further(
    self, variables: Vars, batch: Batch, x: Array, out: Reconstruction
  ) -> dict[str, tuple[Any, Array]]:
    terms = super().further(variables, batch, x, out)
    if self.direct_steps:
      step = batch.get("step", jnp.full(len(x), self.direct_steps))
      on = (step < self.direct_steps).astype(jnp.float32)
      image = out.more["direct"]
      error = PIXEL_LOSSES[self.pixel](x - image).mean((1, 2, 3))
      terms["direct"] = self.pixel_weight * on, error
      terms["apart"] = on, out.more["apart"]
      if self.lpips:
        distance = self.lpips(variables["lpips"], x, image)
        terms["direct_perceptual"] = self.lpips.weight * on, distance
    return terms


@system.passes_on(autoencoder)
def build(
  *,
  vocab: int = 16384,
  channels: int = 8,
  length: int = 256,
  encoder: str | Sequence[int] = "s",
  decoder: str | Sequence[int] = "s",
  nets: Mapping[str, Any] | None = None,
  size: int = 256,
  in_channels: int = 3,
  quantizer: Mapping[str, Any] | None = None,
  mask: str = "none",
  teacher: Mapping[str, Any] | None = None,
  align: Mapping[str, Any] | None = None,
  direct_steps: int = 0,
  remat: bool = False,
  dtype: str = "float32",
  **training,
) -> GigaTokTraining:
  """The tokenizer in training; see SIZES for the published ones.

  Args:
    vocab, channels, length, size, in_channels, mask, remat: see `GigaTok`.
    encoder: a name of TRANSFORMERS, or width, layers and heads.
    decoder: the same.
    nets: z, ch, mult and blocks of the convolutions; see `GigaTok`.
    quantizer: beta, entropy, spread and rotation; see `VectorQuantizer`.
    teacher: `{"name": "classifier" or "vit", **arguments}`, which sees as many
      places as the grid has; None for no semantic term.
    align: `weight` of the semantic term, 0.5; the `layer` of the decoder
      behind which states are aligned, 3; and `features`, how many numbers a
      feature has of a tokenizer that a teacher has made and that has none now.
    direct_steps: see `GigaTokTraining`.
    dtype: of the products.
    **training: see `autoencoder.autoencoder`.

  Raises:
    UserError: sizes do not fit together, or a name is not one.
  """
  align = {"weight": 0.5, "layer": 3, "features": 0} | dict(align or {})
  if set(align) != {"weight", "layer", "features"}:
    raise UserError(f"align={align}: it has weight, layer and features")
  seer, seen = teacher_of(teacher, size, in_channels)
  features = align["features"] if seen is None else seen[1]
  own = dict(nets or {})
  tokenizer = GigaTok(
    vocab, channels, length, _sizes("encoder", encoder),
    _sizes("decoder", decoder), size=size, in_channels=in_channels, mask=mask,
    tap=align["layer"], aligned=features, direct=direct_steps > 0,
    remat=remat, dtype=jnp.dtype(dtype),
    **{k: tuple(v) if k == "mult" else v for k, v in own.items()},
    **dict(quantizer or {}),
  ).checked()  # fmt: skip
  base = autoencoder(tokenizer, **training)
  return with_teacher(
    GigaTokTraining,
    base,
    teacher=seer,
    semantic=align["weight"],
    direct_steps=direct_steps,
  )


def _sizes(name: str, given: str | Sequence[int]) -> tuple[int, int, int]:
  """Width, layers and heads."""
  if isinstance(given, str):
    if given not in TRANSFORMERS:
      raise UserError(
        f"{name}={given!r}: choose one of {', '.join(TRANSFORMERS)}, or give "
        "width, layers and heads"
      )
    return TRANSFORMERS[given]
  width, depth, heads = given
  return width, depth, heads
