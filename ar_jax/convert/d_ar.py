"""The key table of D-AR's tokenizers; the transformers over their codes are of
the family `d_ar_transformer`.

A file tells neither the side of its images nor how many codes they have: those
of the published ones are 256 both, in 8 groups.
"""

from __future__ import annotations

import math
import re
from typing import Any

import jax
import numpy as np

from ar_jax.convert.arflow import MODS, both, reordered
from ar_jax.convert.heads import count
from ar_jax.convert.vq import IGNORE
from ar_jax.core.system import UserError, build
from ar_jax.encoders.vit_files import AS_PATCHES
from ar_jax.files import tables
from ar_jax.files.tables import (
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
HEADS = {128: 2, 256: 4, 512: 8, 768: 12, 1024: 16, 1280: 20}  # of 64 each
CHANNELS = 3  # of all published files


def _square(x: np.ndarray, axis: int) -> np.ndarray:
  """Axis c p p, channels first, as three."""
  side = math.isqrt(x.shape[axis] // CHANNELS)
  return x.reshape(*x.shape[:axis], CHANNELS, side, side, *x.shape[axis + 1 :])


def _channels_last(x: np.ndarray, axis: int) -> np.ndarray:
  """The numbers of a patch along an axis, (c, row, column) as (row, column,
  c)."""
  return np.moveaxis(_square(x, axis), axis, axis + 2).reshape(x.shape)


def _channels_first(x: np.ndarray, axis: int) -> np.ndarray:
  side = math.isqrt(x.shape[axis] // CHANNELS)
  shape = *x.shape[:axis], side, side, CHANNELS, *x.shape[axis + 1 :]
  return np.moveaxis(x.reshape(shape), axis + 2, axis).reshape(x.shape)


def _patch(axis: int, then: Layout) -> Layout:
  """Numbers of a patch in another order, along this axis of theirs."""
  return Layout(
    lambda x: then.ours(_channels_last(x, axis)),
    lambda x: _channels_first(then.theirs(x), axis),
  )


def _attention(theirs: str, ours: str, names: tuple[tuple[str, str], ...]):
  """Rules of attention: its norms, biases and matrices, `names` of these."""
  return (
    *(
      Rule(f"{theirs}.{name}.weight", f"{ours}/{own}/kernel", LINEAR)
      for name, own in names
    ),
    *(Rule(f"{theirs}.{x}.bias", f"{ours}/bias_{x}") for x in "qkv"),
    *affine(f"{theirs}.proj", f"{ours}/out", LINEAR),
    *norm(f"{theirs}.q_norm", f"{ours}/norm/q"),
    *norm(f"{theirs}.k_norm", f"{ours}/norm/k"),
  )


_SELF = (("qkv", "qkv"),)
_CROSS = (("q", "query"), ("kv", "key_value"))


def _stack(name: str, ours: str) -> tuple[Rule, ...]:
  layer, own = f"{name}." + "{i}", f"{ours}/block"
  return (
    *_attention(f"{layer}.attention", f"{own}/mixer", _SELF),
    *affine(f"{layer}.mlp.fc1", f"{own}/mlp/fc1", LINEAR),
    *affine(f"{layer}.mlp.fc2", f"{own}/mlp/fc2", LINEAR),
    *norm(f"{layer}.norm1", f"{own}/norm1"),
    *norm(f"{layer}.norm2", f"{own}/norm2"),
    Rule(f"{layer}.gate1", f"{own}/scales_0/scale"),
    Rule(f"{layer}.gate2", f"{own}/scales_1/scale"),
  )


_NET = "diff_decoder.net"
_BLOCK, _OURS = f"{_NET}.blocks." + "{i}", "pixels/layer"
TABLE = (
  Rule("patchify.weight", "patch_in/kernel", AS_PATCHES),
  Rule("patchify.bias", "patch_in/bias"),
  Rule("query_embedding.weight", "queries"),
  *affine("query_linear", "query_in", LINEAR),
  *_stack("encoder_layers", "reads"),
  Rule("quant_in_conv.weight", "quant/kernel", POINT),
  Rule("quantize.embedding.weight", "quantizer/codebook"),
  Rule("quant_out_conv.weight", "post_quant/kernel", POINT),
  Rule("decoder_embedding.weight", "places"),
  *_stack("decoder_layers", "mixes"),
  *affine(f"{_NET}.cond_mlp", "cond_in", LINEAR),
  Rule(f"{_NET}.conv_in.weight", "pixel_in/kernel", _patch(1, POINT)),
  Rule(f"{_NET}.conv_in.bias", "pixel_in/bias"),
  Rule(f"{_NET}.conv_out.weight", "pixel_out/kernel", _patch(0, POINT)),
  Rule(f"{_NET}.conv_out.bias", "pixel_out/bias", _patch(0, tables.SAME)),
  *_attention(f"{_BLOCK}.attention", f"{_OURS}/block/mixer", _SELF),
  *_attention(f"{_BLOCK}.cross_attn", f"{_OURS}/look", _CROSS),
  *affine(f"{_BLOCK}.mlp.fc1", f"{_OURS}/block/mlp/fc1", LINEAR),
  *affine(f"{_BLOCK}.mlp.fc2", f"{_OURS}/block/mlp/fc2", LINEAR),
  *both(
    f"{_BLOCK}.adaLN_modulation.1",
    f"{_OURS}/ada",
    lambda then: reordered(MODS, then),
  ),
  *affine(f"{_BLOCK}.time_embed.mlp.0", f"{_OURS}/time/fc1", LINEAR),
  *affine(f"{_BLOCK}.time_embed.mlp.2", f"{_OURS}/time/fc2", LINEAR),
  *affine(f"{_BLOCK}.cond_embed.0", f"{_OURS}/cond/fc1", LINEAR),
  *affine(f"{_BLOCK}.cond_embed.2", f"{_OURS}/cond/fc2", LINEAR),
  *(
    rule
    for i in (0, 2, 4)
    for rule in affine(
      f"{_NET}.repa_out.{i}", f"projector/fc{i // 2 + 1}", LINEAR
    )
  ),
)


def config(
  state: State, *, heads: int | None = None, size: int | None = None
) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    heads: of attention, which no shape shows; those of 64 features if None.
    size: side of the images, which no shape shows; 256 if None.

  Raises:
    UserError: this is not such a file.
  """
  try:
    width, in_channels, patch, _ = state["patchify.weight"].shape
    vocab, channels = state["quantize.embedding.weight"].shape
    drawn = state[f"{_NET}.conv_in.weight"].shape[1]
    rows = len(state["decoder_embedding.weight"])
  except KeyError as e:
    raise UserError(
      f"not a tokenizer of D-AR: there is no {e.args[0]} in the file"
    ) from e
  if in_channels != CHANNELS:
    raise UserError(f"images of {in_channels} channels: no published D-AR")
  depths = tuple(
    sum(re.fullmatch(rf"{name}\.\d+\.mlp\.fc1\.bias", k) is not None
        for k in state)
    for name in ("encoder_layers", "decoder_layers", rf"{_NET}\.blocks")
  )  # fmt: skip
  model = {
    "vocab": vocab,
    "channels": channels,
    "width": width,
    "heads": count(state, width, HEADS, heads, "D-AR"),
    "depths": depths,
    "in_channels": in_channels,
    "patch": patch,
    "pixel_patch": math.isqrt(drawn // in_channels),
    "rows": rows,
  }
  if size is not None:
    model["size"] = size
  last = state.get(f"{_NET}.repa_out.4.bias")
  if last is not None:
    hidden = len(state[f"{_NET}.repa_out.0.bias"])
    layer = min(8, depths[-1])
    model["align"] = dict(features=len(last), hidden=hidden, layer=layer)
  return {"system": "d_ar", "model": model}


def to_ours(
  state: State, *, heads: int | None = None, size: int | None = None
) -> dict[str, Any]:
  """The parameters of `GroupDiffusion` from an official state; arguments as in
  `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  model = config(state, heads=heads, size=size)["model"]
  module = build("d_ar", **model).tokenizer
  image = jax.ShapeDtypeStruct(module.example().shape, np.float32)
  like = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
  cross = {k: v for k, v in state.items() if ".cross_attn." in k}
  weights = {k: v for k, v in cross.items() if k.endswith(".weight")}
  rest = {k: v for k, v in state.items() if k not in cross}
  fused = tables.split_biases(tables.fuse(rest)) | cross
  fused = {k: v for k, v in fused.items() if k not in weights}
  fused |= tables.fuse(weights, ("k", "v"))
  return tables.to_ours(TABLE, fused, like, ignore=IGNORE)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the parameters of `GroupDiffusion`."""
  state = tables.to_official(TABLE, params)
  return tables.split(tables.split(state), ("k", "v"))
