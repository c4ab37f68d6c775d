"""The key table of VAR's tokenizer, `vae_ch160v4096z32.pth`."""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np

from ar_jax.core.system import UserError
from ar_jax.files import tables
from ar_jax.files.tables import CONV, Params, Rule, State, affine, norm
from ar_jax.tokenizers.multiscale_vq import SCALES, MultiScaleVQ


def res(theirs: str, ours: str) -> tuple[Rule, ...]:
  """Rules of a residual block, alike in the whole VQGAN line."""
  return (
    *norm(f"{theirs}.norm1", f"{ours}/norm1"),
    *affine(f"{theirs}.conv1", f"{ours}/conv1", CONV),
    *norm(f"{theirs}.norm2", f"{ours}/norm2"),
    *affine(f"{theirs}.conv2", f"{ours}/conv2", CONV),
    *affine(f"{theirs}.nin_shortcut", f"{ours}/shortcut", CONV),
  )


def attn(theirs: str, ours: str) -> tuple[Rule, ...]:
  """Rules of attention in one matrix; see `tables.fuse` for three."""
  return (
    *norm(f"{theirs}.norm", f"{ours}/norm"),
    *affine(f"{theirs}.qkv", f"{ours}/qkv", CONV),
    *affine(f"{theirs}.proj_out", f"{ours}/proj", CONV),
  )


def body(side: str, way: str, sample: str) -> tuple[Rule, ...]:
  """Rules of an encoder ("down") or decoder ("up") as VQGAN names them."""
  theirs, ours = f"{side}.{way}.{{l}}", f"{side}/{way}_{{l}}"
  return (
    *affine(f"{side}.conv_in", f"{side}/conv_in", CONV),
    *res(f"{theirs}.block.{{i}}", f"{ours}_block_{{i}}"),
    *attn(f"{theirs}.attn.{{i}}", f"{ours}_attn_{{i}}"),
    *affine(f"{theirs}.{sample}.conv", f"{ours}_{sample}/conv", CONV),
    *res(f"{side}.mid.block_{{i}}", f"{side}/mid/block_{{i}}"),
    *attn(f"{side}.mid.attn_1", f"{side}/mid/attn_1"),
    *norm(f"{side}.norm_out", f"{side}/norm_out"),
    *affine(f"{side}.conv_out", f"{side}/conv_out", CONV),
  )


_PHI = "quantize.quant_resi.qresi_ls.{i}"

TABLE = (
  *body("encoder", "down", "downsample"),
  *body("decoder", "up", "upsample"),
  *affine("quant_conv", "quant_conv", CONV),
  *affine("post_quant_conv", "post_quant_conv", CONV),
  Rule("quantize.embedding.weight", "quantizer/codebook"),
  Rule(f"{_PHI}.weight", "quantizer/phi_kernel", CONV),
  Rule(f"{_PHI}.bias", "quantizer/phi_bias"),
)

PLACE = ("params", "tokenizer")

# How often each code was used in training.
IGNORE = ("quantize.ema_vocab_hit_SV",)


def config(state: State) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  `scales` are those of 256 pixels, or of 1024 where the usage statistics
  count its 14 scales: the same weights serve every list of scales.

  Raises:
    UserError: this is not such a file.
  """
  try:
    ch, in_channels = state["encoder.conv_in.weight"].shape[:2]
    vocab, channels = state["quantize.embedding.weight"].shape
    levels, blocks = (
      count(state, r"(\d+)\.block\.0"),
      count(state, r"0\.block\.(\d+)"),
    )
    mult = tuple(
      state[f"encoder.down.{level}.block.0.conv1.weight"].shape[0] // ch
      for level in range(levels)
    )
  except KeyError as e:
    raise UserError(
      f"not a tokenizer of VAR: there is no {e.args[0]} in the file"
    ) from e
  hits = state.get(IGNORE[0], np.zeros((0, 0)))
  return {
    "system": "multiscale_vq",
    "model": {
      "vocab": vocab,
      "channels": channels,
      "ch": ch,
      "mult": mult,
      "blocks": blocks,
      "in_channels": in_channels,
      "scales": SCALES[1024 if len(hits) == len(SCALES[1024]) else 256],
    },
  }


def count(state: State, index: str) -> int:
  """How many blocks of the encoder have the `index`, a pattern."""
  pattern = re.compile(rf"encoder\.down\.{index}\.conv1\.weight")
  return sum(pattern.fullmatch(key) is not None for key in state)


def to_ours(state: State) -> dict[str, Any]:
  """The parameters of `MultiScaleVQ` from an official state.

  Raises:
    UserError: the state is not one of this family.
  """
  module = MultiScaleVQ(**config(state)["model"])
  image = jax.ShapeDtypeStruct(
    (1, module.size, module.size, module.in_channels), np.float32
  )
  like = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
  return tables.to_ours(TABLE, state, like, ignore=IGNORE)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the parameters of `MultiScaleVQ`."""
  return tables.to_official(TABLE, params)
