"""PixelCNN: an image pixel by pixel, by convolutions that see what is before.

Pixel Recurrent Neural Networks (arXiv 1601.06759), Conditional Image Generation
with PixelCNN Decoders (arXiv 1606.05328) and PixelCNN++ (arXiv 1701.05517): the
pixel-based class of "Autoregressive Models in Vision: A Survey" (arXiv
2411.05902). New in it, each against the one before:
  - pixelcnn   masked kernels, whose likelihood is exact and computed at once;
               upper right it has a blind spot
  - gated      two stacks without a blind spot, gates, a class at every layer
  - plus       a mixture of logistic laws for the channels of a pixel, streams
               of shifted convolutions through several resolutions

A unit is a pixel with the levels of its c channels, red before green before
blue. It is drawn by c passes, or by one where the law is that mixture.

Shapes: c channels, V levels, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from ar_jax.core import system
from ar_jax.core.errors import UserError, check_choice
from ar_jax.families.pixel.net import Gated, PixelCNN, PixelNet
from ar_jax.families.pixel.shifted import Shift
from ar_jax.families.pixel.system import PixelWise
from ar_jax.tokenizers.levels import Pixels

KINDS = {"pixelcnn": PixelCNN, "gated": Gated, "plus": Shift}
# Published models of images of 32 pixels: arguments of `build`.
SIZES = {
  "pixelcnn": dict(width=128, depth=15, out=1024),
  "gated": dict(width=128, depth=20, out=1024),  # D is not told; see configs
  "plus": dict(width=160, depth=5, resolutions=3, components=10, dropout=0.5),
}


@dataclasses.dataclass(frozen=True)
class Pixelwise(PixelWise):
  """The system. Variables: `params`, and an empty `tokenizer`.

  Attributes:
    net: one of KINDS.
    tokenizer: pixels of so many levels.
    label_dropout: how often training hides the class. 0 is a model without
      guidance.
  """

  net: PixelNet
  tokenizer: nn.Module
  label_dropout: float = 0.0


def build(
  *,
  tokenizer: Mapping[str, Any],
  kind: str = "pixelcnn",
  width: int = 32,
  depth: int = 5,
  num_classes: int = 0,
  label_dropout: float = 0.0,
  first: int = 7,
  side: int = 3,
  out: int = 64,
  resolutions: int = 2,
  components: int = 10,
  dropout: float = 0.5,
) -> Pixelwise:
  """Builds a model of pixels; see SIZES for published ones.

  Args:
    tokenizer: `{"name": "given", "form": "pixels", "levels": V, ...}`.
    kind: "pixelcnn", "gated" or "plus".
    width: D.
    depth: residual blocks, layers, or blocks of each resolution.
    num_classes: labels are 0 .. num_classes - 1; 0 is a model without a
      condition.
    label_dropout: see `Pixelwise`.
    first: side of the first kernel; not of "plus".
    side: of the other kernels; not of "plus", whose kernels are 2 x 3 and
      2 x 2.
    out: width of the layer before the logits; not of "plus".
    resolutions: of "plus", each half of the one before.
    components: of the mixture of "plus".
    dropout: of "plus".

  Raises:
    UserError: the kind is unknown, or sizes do not fit together.
  """
  check_choice("kind", kind, KINDS)
  pixels = system.part(tokenizer).tokenizer
  if not isinstance(pixels, Pixels):
    raise UserError(
      f"pixelcnn: tokenizer {dict(tokenizer)['name']!r} makes no pixels: take "
      "name='given' with form='pixels'"
    )
  size, c = pixels.size, pixels.in_channels
  if num_classes == 0:
    label_dropout = 0.0  # there is nothing to hide
  labels = num_classes + (label_dropout > 0)
  shared = size, c, pixels.levels, labels
  if kind == "plus":
    if resolutions < 1 or size % 2 ** (resolutions - 1):
      raise UserError(
        f"resolutions={resolutions}: images of {size} pixels are halved "
        f"{resolutions - 1} times; choose fewer, or another data.size"
      )
    net = Shift(*shared, width, depth, resolutions, components, dropout)
    return Pixelwise(net, pixels, label_dropout)
  if first % 2 == 0 or side % 2 == 0:
    raise UserError(f"first={first}, side={side}: kernels have odd sides")
  if min(width, out) < c or depth < 1:
    raise UserError(
      f"width={width}, out={out}, depth={depth}: there must be a layer, and as "
      f"many features as the {c} channels"
    )
  net = KINDS[kind](*shared, out, width, depth, first, side)
  return Pixelwise(net, pixels, label_dropout)
