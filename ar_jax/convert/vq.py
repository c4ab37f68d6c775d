"""The key table of LlamaGen's tokenizers, `vq_ds16_c2i.pt` and its kin."""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np

from ar_jax.convert.multiscale_vq import attn, res
from ar_jax.core.system import UserError
from ar_jax.files import tables
from ar_jax.files.tables import CONV, Params, Rule, State, affine, norm
from ar_jax.tokenizers.vq import VQ


def _body(side: str, way: str, sample: str) -> tuple[Rule, ...]:
  theirs, ours = f"{side}.conv_blocks.{{l}}", f"{side}/{way}_{{l}}"
  return (
    *affine(f"{side}.conv_in", f"{side}/conv_in", CONV),
    *res(f"{theirs}.res.{{i}}", f"{ours}_block_{{i}}"),
    *attn(f"{theirs}.attn.{{i}}", f"{ours}_attn_{{i}}"),
    *affine(f"{theirs}.{sample}.conv", f"{ours}_{sample}/conv", CONV),
    *res(f"{side}.mid.0", f"{side}/mid/block_1"),
    *attn(f"{side}.mid.1", f"{side}/mid/attn_1"),
    *res(f"{side}.mid.2", f"{side}/mid/block_2"),
    *norm(f"{side}.norm_out", f"{side}/norm_out"),
    *affine(f"{side}.conv_out", f"{side}/conv_out", CONV),
  )


TABLE = (
  *_body("encoder", "down", "downsample"),
  *_body("decoder", "up", "upsample"),
  *affine("quant_conv", "quant_conv", CONV),
  *affine("post_quant_conv", "post_quant_conv", CONV),
  Rule("quantize.embedding.weight", "quantizer/codebook"),
)

PLACE = ("params", "tokenizer")

# The codes used last, kept to tell how many are in use.
IGNORE = ("quantize.codebook_used",)


def config(state: State) -> dict[str, Any]:
  """The config of a state, as far as shapes tell; `size` is 256, and any
  other will do.

  Raises:
    UserError: this is not such a file.
  """
  try:
    ch, in_channels = state["encoder.conv_in.weight"].shape[:2]
    vocab, channels = state["quantize.embedding.weight"].shape
    z = len(state["encoder.conv_out.weight"])
    levels = _count(state, r"(\d+)\.res\.0")
    blocks = _count(state, r"0\.res\.(\d+)")
    mult = tuple(
      len(state[f"encoder.conv_blocks.{level}.res.0.conv1.weight"]) // ch
      for level in range(levels)
    )
  except KeyError as e:
    raise UserError(
      f"not a tokenizer of LlamaGen: there is no {e.args[0]} in the file"
    ) from e
  return {
    "system": "vq",
    "model": {
      "vocab": vocab,
      "channels": channels,
      "z": z,
      "ch": ch,
      "mult": mult,
      "blocks": blocks,
      "in_channels": in_channels,
    },
  }


def _count(state: State, index: str) -> int:
  pattern = re.compile(rf"encoder\.conv_blocks\.{index}\.conv1\.weight")
  return sum(pattern.fullmatch(key) is not None for key in state)


def reversed_levels(state: State, levels: int) -> dict[str, np.ndarray]:
  """The decoder's levels counted the other way: theirs begin at the coarsest,
  ours at the finest."""

  def turn(found):
    return f"decoder.{found[1]}.{levels - 1 - int(found[2])}."

  pattern = re.compile(r"^decoder\.(conv_blocks|adaptive)\.(\d+)\.")
  return {pattern.sub(turn, key): array for key, array in state.items()}


def to_ours(state: State) -> dict[str, Any]:
  """The parameters of `VQ` from an official state.

  Raises:
    UserError: the state is not one of this family.
  """
  module = VQ(**config(state)["model"])
  image = jax.ShapeDtypeStruct(
    (1, module.size, module.size, module.in_channels), np.float32
  )
  like = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
  state = tables.fuse(reversed_levels(state, len(module.mult)))
  return tables.to_ours(TABLE, state, like, ignore=IGNORE)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the parameters of `VQ`."""
  levels = sum(
    re.fullmatch(r"down_\d+_block_0", name) is not None
    for name in params["encoder"]
  )
  state = tables.to_official(TABLE, params)
  return reversed_levels(tables.split(state), levels)
