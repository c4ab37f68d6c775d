"""D-AR: a line of codes, each group of which leads one step of a flow to the
pixels, so that next-token prediction is diffusion.

D-AR: Diffusion via Autoregressive Models (arXiv 2505.23660). New in it:
  - the decoder of the tokenizer is a flow transformer on pixels; its step g
    sees group g of the codes, mixed causally with those before it, and nothing
    else, so that codes come coarse to fine;
  - what it sees modulates each patch on its own, by cross-attention;
  - a LlamaGen over the codes draws pixels while it draws codes: after each
    group there is a preview, for one pass of the decoder.

Shapes: B batch, H image side, c image channels, L units in G groups, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.system import Batch, UserError, Vars
from ar_jax.nn.layers.attention import Attention, HeadNorm, check_heads
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import layer_norm
from ar_jax.nn.stacks.blocks import PlainBlock
from ar_jax.nn.stacks.cross_modulated import cross_modulated
from ar_jax.nn.stacks.transformer import Backbone
from ar_jax.tokenizers.aligned import Aligned, teacher_of, with_teacher
from ar_jax.tokenizers.autoencoder import (
  Autoencoder,
  Reconstruction,
  autoencoder,
  signed,
)
from ar_jax.tokenizers.group_diffusion import GroupDiffusion

Array = jax.Array
ALIGN = {"weight": 0.5, "layer": 8, "features": 0, "side": 16, "hidden": 2048}


@dataclasses.dataclass(frozen=True)
class DAR(Aligned):
  """A D-AR tokenizer in training. The image that perceptual and adversarial
  terms look at is that of one step from where the example is to the data.

  Attributes: as of `Aligned`.
  """

  noisy = True

  def further(
    self, variables: Vars, batch: Batch, x: Array, out: Reconstruction
  ) -> dict[str, tuple[Any, Array]]:
    terms = super().further(variables, batch, x, out)
    return {"flow": (1.0, out.more["flow"]), **terms}

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    groups: int | None = None,
    previews: bool = False,
    start: int = 0,
  ) -> Array:
    """Reconstructions f32[B, H, H, c] in [0, 1] of `cond["image"]`.

    Args:
      variables: as `init` makes them.
      cond: with `image`.
      keys: Key[B], of the noise.
      groups: of the codes that count; None for all.
      previews: whether to show those of 1, 2, ... G groups side by side.
      start: steps that are left away: the flow begins with the image itself,
        brought to the noise of their end.

    Raises:
      UserError: an option is out of range.
    """
    units = self.units(variables, cond)
    image = signed(cond["image"]) if start else None
    more = dict(groups=groups, previews=previews, start=start, image=image)
    return self._codec(variables).shown(units, keys, **more)

  def previews(self, variables: Vars, units: Array, keys: Array) -> Array:
    """f32[G, B, H, H, c] in [0, 1]: what units i32[B, L] show after 1, 2, ...
    G groups."""
    return (self._codec(variables).previews(units, keys) + 1) / 2

  def _codec(self, variables: Vars) -> GroupDiffusion:
    return self.tokenizer.bind({"params": variables["params"]["tokenizer"]})


@system.passes_on(autoencoder)
def in_training(
  sizes: Mapping[str, Any],
  tap: int,
  *,
  width: int = 768,
  heads: int = 12,
  depths: Sequence[int] = (8, 8, 12),
  quantizer: Mapping[str, Any] | None = None,
  remat: bool = False,
  dtype: str = "float32",
  pixel_weight: float = 0.0,
  lpips_weight: float = 0.5,
  **training,
) -> Autoencoder:
  """The net and the losses that every tokenizer has.

  Args:
    sizes: other attributes of `GroupDiffusion`.
    tap: behind so many layers over pixels states are aligned.
    width: D.
    heads: of attention.
    depths: layers of the transformers over patches and queries, over codes,
      and over pixels.
    quantizer: beta, entropy, spread and rotation; see `VectorQuantizer`.
    remat: whether the backward pass computes the layers again.
    dtype: of the products.
    pixel_weight: of the error of the image that one step leads to.
    lpips_weight: of its perceptual term.
    **training: see `autoencoder.autoencoder`.

  Raises:
    UserError: sizes do not fit together, or a name is not one.
  """
  if training.get("gan_adaptive"):
    raise UserError(
      "gan_adaptive: a flow has no last layer to weigh by; set gan_weight"
    )
  if len(depths) != 3:
    raise UserError(f"depths={tuple(depths)}: three, one of each transformer")
  check_heads(width, heads)
  products = jnp.dtype(dtype)

  def stack(depth):
    mixer = Attention(heads, norm=HeadNorm("layer"), bias="qkv", dtype=products)
    mlp = Mlp(4 * width, dtype=products, act="silu")
    # Gates that begin at zero, as layer scales do.
    block = PlainBlock(mixer, mlp, 1e-6, rms=False, layer_scale=0.0)
    return Backbone(
      block, depth, out_norm=layer_norm, remat=remat, dtype=products
    )

  pixels = cross_modulated(
    depths[2], width, heads, tap=tap, remat=remat, dtype=dtype
  )
  tokenizer = GroupDiffusion(
    stack(depths[0]), stack(depths[1]), pixels, width, dtype=products,
    **sizes, **dict(quantizer or {}),
  ).checked()  # fmt: skip
  weights = dict(pixel_weight=pixel_weight, lpips_weight=lpips_weight)
  return autoencoder(tokenizer, **weights, **training)


@system.passes_on(in_training)
def build(
  *,
  vocab: int = 16384,
  channels: int = 8,
  length: int = 256,
  groups: int = 8,
  size: int = 256,
  in_channels: int = 3,
  patch: int = 16,
  pixel_patch: int = 8,
  rows: int = 1024,
  sees: str = "group",
  solver: str = "adams_bashforth_fixed",
  std: float = 0.6,
  shift: float = 2.0,
  teacher: Mapping[str, Any] | None = None,
  align: Mapping[str, Any] | None = None,
  **training,
) -> DAR:
  """The tokenizer in training; its defaults are the published ones.

  Args:
    vocab, channels, length, groups, size, in_channels, patch, pixel_patch,
      rows, sees, solver, std, shift: see `GroupDiffusion`.
    teacher: `{"name": "classifier" or "vit", **arguments}`, whose grid divides
      that of the pixel patches; None for no semantic term.
    align: `weight` of the semantic term; `layer`, behind so many layers over
      pixels states are aligned; `hidden`, width of the projector; and of a
      tokenizer that a teacher has made and that has none now, `features`, how
      many numbers a feature has, and `side` of its grid.
    **training: width, heads and depths of the transformers, weights of losses
      and more; see `in_training`.

  Raises:
    UserError: sizes do not fit together, or a name is not one.
  """
  align = ALIGN | dict(align or {})
  if set(align) != set(ALIGN):
    raise UserError(f"align={align}: it has {', '.join(ALIGN)}")
  seer, seen = teacher_of(teacher, size, in_channels)
  side, features = seen or (align["side"], align["features"])
  sizes = dict(
    vocab=vocab, channels=channels, length=length, groups=groups, size=size,
    in_channels=in_channels, patch=patch, pixel_patch=pixel_patch, rows=rows,
    sees=sees, solver=solver, std=std, shift=shift, aligned=features,
    aligned_side=side, aligned_hidden=align["hidden"],
  )  # fmt: skip
  base = in_training(sizes, align["layer"], **training)
  return with_teacher(DAR, base, teacher=seer, semantic=align["weight"])
