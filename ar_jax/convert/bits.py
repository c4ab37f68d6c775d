"""The key table of ELM's binary autoencoders, `bae_16`, `bae_20`, `bae_24`.

Their nets are flat lists of blocks; these are given the names of the VQGAN
line first. A published file also holds the discriminator and LPIPS, of which
nothing is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ar_jax.convert.multiscale_vq import body
from ar_jax.core.system import UserError
from ar_jax.files import tables
from ar_jax.files.tables import (
  POINT,
  Params,
  Rule,
  State,
  affine,
  norm,
)
from ar_jax.tokenizers.bits import BAE

_FRONT = "ae."
_UNUSED = "nin_unused"

TABLE = (
  *body("encoder", "down", "downsample"),
  *body("decoder", "up", "upsample"),
  *norm("decoder.norm_in", "norm_in"),
  *affine("quantize.proj.0", "quantizer/proj", POINT),
  Rule("quantize.embed.weight", "quantizer/table"),
)

PLACE = ("params", "tokenizer")

# Trained for a likelihood that nothing reads; and the convolutions beside
# residual blocks that do not change the number of channels.
IGNORE = (
  "decoder.logsigma.{i}.weight",
  "decoder.logsigma.{i}.bias",
  *(
    f"{stem}.{_UNUSED}.{leaf}"
    for stem in (
      "encoder.down.{l}.block.{i}",
      "decoder.up.{l}.block.{i}",
      "encoder.mid.block_{i}",
      "decoder.mid.block_{i}",
    )
    for leaf in ("weight", "bias")
  ),
)


def _middle(side: str) -> list[str]:
  return [f"{side}.mid.{x}" for x in ("block_1", "attn_1", "block_2")]


def _ends(side: str) -> list[str]:
  return [f"{side}.norm_out", f"{side}.conv_out"]


def names(model: Mapping[str, Any]) -> dict[str, list[str]]:
  """The names that the blocks of both lists are given, in order.

  Args:
    model: `mult`, `blocks`, `attention` and `norm_first` of a config.
  """
  levels = len(model["mult"])

  def level(side: str, way: str, n: int) -> list[str]:
    found = []
    for i in range(model["blocks"]):
      found.append(f"{side}.{way}.{n}.block.{i}")
      if n in model["attention"]:
        found.append(f"{side}.{way}.{n}.attn.{i}")
    return found

  encoder, decoder = ["encoder.conv_in"], []
  for n in range(levels):
    encoder += level("encoder", "down", n)
    encoder += [f"encoder.down.{n}.downsample"] * (n + 1 < levels)
  encoder += _middle("encoder") + _ends("encoder")
  decoder += ["decoder.norm_in"] * model["norm_first"]
  decoder += ["decoder.conv_in", *_middle("decoder")]
  for n in reversed(range(levels)):
    decoder += level("decoder", "up", n)
    decoder += [f"decoder.up.{n}.upsample"] * (n > 0)
  return {"encoder": encoder, "generator": decoder + _ends("decoder")}


def _own(state: State) -> dict[str, np.ndarray]:
  """The autoencoder alone, of a file that holds more."""
  if not any(key.startswith(_FRONT) for key in state):
    return dict(state)
  front = len(_FRONT)
  return {k[front:]: v for k, v in state.items() if k.startswith(_FRONT)}


def _kinds(state: State) -> list[str]:
  """What each block of the encoder is."""
  kinds = []
  while True:
    start = f"encoder.blocks.{len(kinds)}."
    tell = {"q": "attn", "conv1": "res", "conv": "down"}
    found = [tell[k] for k in tell if f"{start}{k}.weight" in state]
    if not found and f"{start}weight" not in state:
      return kinds
    plain = state.get(f"{start}weight")
    kinds += found or ["norm" if plain.ndim == 1 else "conv"]


def config(state: State, *, size: int | None = None) -> dict[str, Any]:
  """The config of a state, as far as shapes tell. Whether bits are drawn, as
  by all released ones but the deterministic one, they do not.

  Args:
    state: official key -> array.
    size: side of the images, 256 if None; any other will do.

  Raises:
    UserError: this is not such a file.
  """
  state = _own(state)
  try:
    bits, z = state["quantize.embed.weight"].shape
    ch, in_channels = state["encoder.blocks.0.weight"].shape[:2]
    kinds = _kinds(state)
    # Without the first convolution, the middle and the ends.
    at, levels = list(enumerate(kinds))[1:-5], [[]]
    for k, kind in at:
      levels.append([]) if kind == "down" else levels[-1].append((k, kind))
    width = lambda k: len(state[f"encoder.blocks.{k}.conv1.weight"])
    mult = tuple(width(level[0][0]) // ch for level in levels)
    first = state["generator.blocks.0.weight"]
  except (KeyError, IndexError) as e:
    what = e.args[0] if isinstance(e, KeyError) else "encoder"
    raise UserError(
      f"not a binary autoencoder of ELM: there is no {what} in the file"
    ) from e
  count = lambda level, kind: sum(k == kind for _, k in level)
  model = {
    "bits": bits,
    "z": z,
    "ch": ch,
    "mult": mult,
    "blocks": count(levels[0], "res"),
    "attention": tuple(
      i for i, level in enumerate(levels) if count(level, "attn")
    ),
    "in_channels": in_channels,
    "norm_first": first.ndim == 1,
  }
  if size is not None:
    model["size"] = size
  return {"system": "bits", "model": model}


def to_ours(state: State, *, size: int | None = None) -> dict[str, Any]:
  """The parameters of `BAE` from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  model = config(state, size=size)["model"]
  module = BAE(**model)
  key = jax.random.key(0)
  like = jax.eval_shape(lambda k: module.init(k, module.example()), key)
  renamed = _named(_own(state), names(model))
  return tables.to_ours(
    TABLE, tables.fuse(renamed), like["params"], ignore=IGNORE
  )


def _named(state: State, named: Mapping[str, list[str]]) -> dict:
  """The state under the names of the VQGAN line."""
  found = {}
  for key, array in state.items():
    side, blocks, rest = (*key.split(".", 2), "")[:3]
    if blocks == "blocks" and side in named:
      index, _, leaf = rest.partition(".")
      if int(index) < len(named[side]):
        key = f"{named[side][int(index)]}.{leaf}"
    elif side == "generator":
      key = key.replace("generator.", "decoder.", 1)
    if ".conv_out." in key and (".block" in key):
      inside = state[f"{side}.blocks.{index}.conv1.weight"].shape[:2]
      name = "nin_shortcut" if inside[0] != inside[1] else _UNUSED
      key = key.replace(".conv_out.", f".{name}.")
    found[key] = array
  return found


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the parameters of `BAE`, under the prefix of a
  published file. What the official module has and never reads is 0."""
  levels = lambda pattern: [
    [int(i) for i in m.groups()]
    for name in params["encoder"]
    if (m := re.fullmatch(pattern, name))
  ]
  blocks = levels(r"down_(\d+)_block_(\d+)")
  model = dict(
    mult=tuple({level for level, _ in blocks}),
    blocks=1 + max(i for _, i in blocks),
    attention={level for level, _ in levels(r"down_(\d+)_attn_(\d+)")},
    norm_first="norm_in" in params,
  )
  state = tables.split(tables.to_official(TABLE, params))
  back = {}
  for side, stems in names(model).items():
    for k, stem in enumerate(stems):
      for leaf in [x for x in state if x.startswith(f"{stem}.")]:
        rest = leaf.removeprefix(stem).replace(".nin_shortcut.", ".conv_out.")
        back[f"{side}.blocks.{k}{rest}"] = state.pop(leaf)
  state |= back | _unused(back)
  return {_FRONT + key: array for key, array in state.items()}


def _unused(state: State) -> dict[str, np.ndarray]:
  """Zeros for what the official module has beside its blocks."""
  zeros = lambda *shape: np.zeros(shape, np.float32)
  found = {}
  for key, array in state.items():
    stem, conv, leaf = key.rpartition(".conv1.weight")
    if conv and not leaf and f"{stem}.conv_out.weight" not in state:
      channels = len(array)
      found[f"{stem}.conv_out.weight"] = zeros(channels, channels, 1, 1)
      found[f"{stem}.conv_out.bias"] = zeros(channels)
  last = max(int(k.split(".")[2]) for k in state if k.startswith("generator"))
  out, width = state[f"generator.blocks.{last}.weight"].shape[:2]
  sigma = "generator.logsigma"
  found[f"{sigma}.0.weight"] = zeros(width, width, 3, 3)
  found[f"{sigma}.0.bias"] = zeros(width)
  found[f"{sigma}.2.weight"] = zeros(out, width, 1, 1)
  found[f"{sigma}.2.bias"] = zeros(out)
  return found
