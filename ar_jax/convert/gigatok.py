"""The key table of GigaTok's tokenizers, `VQ_{SS,SB,BL,XLXXL}*.pt`.

Their transformers over codes are of the family `llamagen`.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np

from ar_jax.convert.multiscale_vq import res
from ar_jax.convert.vq import IGNORE, reversed_levels
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import (
  CONV,
  LINEAR,
  POINT,
  Layout,
  Params,
  Rule,
  State,
  affine,
  norm,
)

PLACE = ("params", "tokenizer")

_ROWS = Layout(lambda x: x[:, 0], lambda x: x[:, None])
# Heads by width; the file does not tell.
_HEADS = {256: 4, 512: 8, 768: 12, 1024: 16, 1280: 20, 1536: 24}


_ADAPTIVE, _OURS = "decoder.adaptive.{l}", "decoder/up_{l}_adaptive"


def _net(side: str, way: str, sample: str) -> tuple[Rule, ...]:
  theirs, ours = f"{side}.conv_blocks.{{l}}", f"{side}/{way}_{{l}}"
  return (
    *affine(f"{side}.conv_in", f"{side}/conv_in", CONV),
    *res(f"{theirs}.res.{{i}}", f"{ours}_block_{{i}}"),
    *affine(f"{theirs}.{sample}", f"{ours}_{way}sample/conv", CONV),
    *res(f"{side}.mid.0", f"{side}/mid/block_1"),
    *res(f"{side}.mid.1", f"{side}/mid/block_2"),
    *norm(f"{side}.norm_out", f"{side}/norm_out"),
    *affine(f"{side}.conv_out", f"{side}/conv_out", CONV),
  )


def _queries(theirs: str, ours: str, embed: str, out: Layout):
  """Rules of a transformer; `places` are of queries and memory."""
  layer, own = f"{theirs}.transformer." + "{i}", f"{ours}/block"
  return (
    *norm(f"{theirs}.ln_pre", f"{ours}_norm"),
    *affine(f"{theirs}.{embed}", f"{ours}_embed", LINEAR),
    Rule(f"{theirs}.positional_embedding", f"{ours}_cells", _ROWS),
    Rule(f"{theirs}.latent_token_positional_embedding", f"{ours}_units", _ROWS),
    *norm(f"{theirs}.ln_post", f"{ours}/out_norm"),
    *affine(f"{theirs}.conv_out", f"{ours}_out", out),
    *(
      rule
      for a, b in (("self_attn", "own"), ("multihead_attn", "cross"))
      for rule in (
        Rule(f"{layer}.{a}.in_proj_weight", f"{own}/{b}/kernel", LINEAR),
        Rule(f"{layer}.{a}.in_proj_bias", f"{own}/{b}/bias"),
        *affine(f"{layer}.{a}.out_proj", f"{own}/{b}/out", LINEAR),
      )
    ),
    *affine(f"{layer}.linear1", f"{own}/fc1", LINEAR),
    *affine(f"{layer}.linear2", f"{own}/fc2", LINEAR),
    *(
      rule
      for i in (1, 2, 3)
      for rule in norm(f"{layer}.norm{i}", f"{own}/norm{i}")
    ),
  )


TABLE = (
  *_net("encoder", "down", "downsample.conv"),
  *_net("decoder", "up", "upsample.conv1"),
  *affine(
    "decoder.adaptive.{l}.gamma", "decoder/up_{l}_adaptive/scale", LINEAR
  ),
  *affine("decoder.adaptive.{l}.beta", "decoder/up_{l}_adaptive/bias", LINEAR),
  *_queries("s2to1encoder", "reads", "encoder_embed", POINT),
  *affine("s2to1encoder.global_proj", "reads_query", LINEAR),
  *_queries("s1to2decoder", "draws", "decoder_embed", CONV),
  *affine("s1to2decoder.distill_mlp.0", "projector/fc1", LINEAR),
  *affine("s1to2decoder.distill_mlp.2", "projector/fc2", LINEAR),
  *affine("s1to2decoder.distill_mlp.4", "projector/fc3", LINEAR),
  *affine("quant_conv", "quant", POINT),
  *affine("post_quant_conv", "post_quant", POINT),
  Rule("quantize.embedding.weight", "quantizer/codebook"),
)


def config(state: State) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Raises:
    UserError: this is not such a file.
  """
  try:
    ch, in_channels = state["encoder.conv_in.weight"].shape[:2]
    vocab, channels = state["quantize.embedding.weight"].shape
    z = len(state["encoder.conv_out.weight"])
    cells, length = (
      len(state[f"s2to1encoder.{name}"])
      for name in (
        "positional_embedding", "latent_token_positional_embedding"
      )
    )  # fmt: skip
    levels = _count(state, r"encoder\.conv_blocks\.(\d+)\.res\.0\.conv1\.bias")
    mult = tuple(
      len(state[f"encoder.conv_blocks.{level}.res.0.conv1.bias"]) // ch
      for level in range(levels)
    )
  except KeyError as e:
    raise UserError(
      f"not a GigaTok: there is no {e.args[0]} in the file"
    ) from e
  blocks = _count(state, r"encoder\.conv_blocks\.0\.res\.(\d+)\.conv1\.bias")
  model = {
    "vocab": vocab,
    "channels": channels,
    "length": length,
    "encoder": _sizes(state, "s2to1encoder"),
    "decoder": _sizes(state, "s1to2decoder"),
    "nets": {"z": z, "ch": ch, "mult": mult, "blocks": blocks},
    "size": round(cells**0.5) * 2 ** (levels - 1),
    "in_channels": in_channels,
  }
  last = "s1to2decoder.distill_mlp.4.bias"
  if last in state:
    model["align"] = {"features": len(state[last])}
  return {"system": "gigatok", "model": model}


def _count(state: State, pattern: str) -> int:
  return sum(re.fullmatch(pattern, key) is not None for key in state)


def _sizes(state: State, name: str) -> tuple[int, int, int]:
  width = state[f"{name}.positional_embedding"].shape[-1]
  depth = _count(state, rf"{name}\.transformer\.\d+\.linear1\.bias")
  if width not in _HEADS:
    raise UserError(
      f"a transformer of width {width} is of no published GigaTok"
    )
  return width, depth, _HEADS[width]


def to_ours(state: State) -> dict[str, Any]:
  """The parameters of `GigaTok` from an official state.

  Raises:
    UserError: the state is not one of this family.
  """
  model = config(state)["model"]
  module = build("gigatok", **model).tokenizer
  image = jax.ShapeDtypeStruct(module.example().shape, np.float32)
  like = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
  state = reversed_levels(state, len(module.mult))
  return tables.to_ours(TABLE, state, like, ignore=IGNORE)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the parameters of `GigaTok`."""
  levels = sum(
    re.fullmatch(r"down_\d+_block_0", name) is not None
    for name in params["encoder"]
  )
  return reversed_levels(tables.to_official(TABLE, params), levels)
