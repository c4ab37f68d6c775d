"""iGPT: a GPT over the colours of an image, pixel by pixel.

Generative Pretraining from Pixels (ICML 2020, no arXiv number), of the
pixel-based class of "Autoregressive Models in Vision: A Survey" (arXiv
2411.05902). New in it:
  - a pixel is one unit: the nearest of 512 colours ("9-bit"), which k-means
    finds in the training images, so that a sequence is as long as an image has
    pixels and not three times as long;
  - GPT-2 knows nothing of images: positions in raster order are learned;
  - what its middle layers say, averaged over the pixels, knows of the classes,
    for a linear probe (`features`).

The colours are a tokenizer, `patch_codes` with patch=1, which a stage of no
updates fits; `given` with form="levels" has grey pixels as they are. Not here:
the variant that is trained as BERT is.

Shapes: B batch, L units, D width, N layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.system import Array, Batch, UserError, Vars
from ar_jax.families.token.placed import Placed
from ar_jax.families.token.readers import Embed
from ar_jax.families.token.system import order, prefix
from ar_jax.families.token.token_wise import TokenWise
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.layers.attention import Attention, check_heads
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import RMSNorm
from ar_jax.nn.stacks.blocks import PlainBlock
from ar_jax.nn.stacks.transformer import Backbone

# The published models: arguments of `build`. The heads of XL, which was not
# released, are unverified.
SIZES = {
  "s": dict(depth=24, width=512, heads=8),
  "m": dict(depth=36, width=1024, heads=8),
  "l": dict(depth=48, width=1536, heads=16),
  "xl": dict(depth=60, width=3072, heads=16),
}


@dataclasses.dataclass(frozen=True)
class IGPT(TokenWise):
  """The system. Variables: `params`, and the frozen `tokenizer`, the colours.

  Attributes:
    net: the transformer.
    tokenizer: of codes on a grid.
    label_dropout: how often training hides the class, where there is one.
  """

  net: Placed
  tokenizer: nn.Module
  label_dropout: float = 0.0

  def features(
    self, variables: Vars, batch: Batch, *, layer: int | None = None
  ) -> Array:
    """f32[B, D]: what a layer reads, behind its first norm, averaged over the
    pixels. (The pixel before the last one is the last that is read.)

    Args:
      variables: as `init` makes them.
      batch: with images or units.
      layer: 0 .. N - 1; the middle one if None.

    Raises:
      UserError: there is no such layer.
    """
    stack = self.net.backbone
    layer = stack.depth // 2 if layer is None else layer
    if not 0 <= layer < stack.depth:
      raise UserError(f"layer={layer}: must be in 0..{stack.depth - 1}")
    batch = self.encode(variables, batch)
    own = self.net_variables(variables)
    block = own["params"]["backbone"]["block"]
    norm = jax.tree.map(lambda x: x[layer], block["norm1"])
    first = jax.tree.map(lambda x: x[: max(layer, 1)], block)
    if layer == 0:  # nothing but what is read: branches that add nothing
      first = jax.tree.map(jnp.zeros_like, first)
    short = stack.clone(depth=max(layer, 1))
    net = self.net.clone(backbone=short)
    params = own["params"] | {"backbone": {"block": first, "out_norm": norm}}
    h = net.apply(
      {**own, "params": params}, self.condition(batch), batch["units"]
    )
    return jnp.mean(h, 1)


def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  num_classes: int = 0,
  label_dropout: float = 0.1,
  dropout: float = 0.0,
  remat: bool | str = False,
  dtype: str = "float32",
  impl: str | None = None,
) -> IGPT:
  """Builds iGPT; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "patch_codes", "patch": 1, "vocab": 512, ...}` or
      `{"name": "given", "form": "levels", ...}`.
    depth: N.
    width: D.
    heads: of attention.
    num_classes: labels are 0 .. num_classes - 1; 0, as published, is a model
      without a condition.
    label_dropout: see `IGPT`; 0 without classes.
    dropout: of the branches of the layers.
    remat: saves memory in training for time; see `transformer.Backbone`.
    dtype: of the computation.
    impl: of `ops.attention`.

  Raises:
    UserError: sizes do not fit together, or the units are no codes.
  """
  codes = system.part(tokenizer).tokenizer
  if not isinstance(codes.vocab, int) or not hasattr(codes, "grid"):
    raise UserError(
      f"igpt: the units of {dict(tokenizer)['name']!r} are no codes of pixels: "
      "take 'patch_codes' with patch=1, or 'given' with form='levels'"
    )
  check_heads(width, heads)
  if num_classes == 0:
    label_dropout = 0.0  # there is nothing to hide
  products = jnp.dtype(dtype)
  mixer = Attention(
    heads,
    out_bias=False,
    stddev=width**-0.5,
    out_stddev=(width * depth) ** -0.5,
    dtype=products,
    impl=impl,
  )
  mlp = Mlp(4 * width, dtype=products, act="quick_gelu", bias=False)
  block = PlainBlock(mixer, mlp, dropout=dropout)
  stack = Backbone(
    block, depth, out_norm=RMSNorm(), remat=remat, dtype=products
  )
  net = Placed(
    order(codes),
    Embed(codes.vocab, width),
    width,
    prefix(width, num_classes, None, label_dropout),
    stack,
    Categorical(codes.vocab, 0.0, bias=False),
  )
  return IGPT(net, codes, label_dropout)
