"""The key table of NBP's tokenizers of videos: a causal encoder and decoder
around FSQ, as lists of layers, whose numbers follow from the sizes."""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np

from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import (
  Layout,
  Params,
  Rule,
  State,
  affine,
  norm,
)

PLACE = ("params", "tokenizer")
CONV3 = Layout(
  lambda x: np.transpose(x, (2, 3, 4, 1, 0)),
  lambda x: np.transpose(x, (4, 3, 0, 1, 2)),
)
_ROW = Layout(lambda x: x.reshape(-1), lambda x: x.reshape(1, -1, 1, 1, 1))
_SIDES = ("encoder_layers", "decoder_layers")


def _beta(theirs: str, ours: str) -> Rule:
  return Rule(f"{theirs}.beta", f"{ours}/beta", _ROW)


def _block(theirs: str, ours: str) -> tuple[Rule, ...]:
  return (
    *norm(f"{theirs}.fn.0", f"{ours}/norm1"),
    _beta(f"{theirs}.fn.1", f"{ours}/act1"),
    *affine(f"{theirs}.fn.2.conv", f"{ours}/conv1", CONV3),
    *norm(f"{theirs}.fn.3", f"{ours}/norm2"),
    _beta(f"{theirs}.fn.4", f"{ours}/act2"),
    *affine(f"{theirs}.fn.5.conv", f"{ours}/conv2", CONV3),
    *affine(f"{theirs}.residual_fn.0.conv", f"{ours}/shortcut", CONV3),
  )


def _side(blocks: tuple[int, ...], encodes: bool) -> tuple[Rule, ...]:
  """The rules of one net, layer by layer."""
  theirs, ours, way = (
    (_SIDES[0], "encoder", "down") if encodes else (_SIDES[1], "decoder", "up")
  )
  number, rules = 0, []

  def layer(make, path, *more):
    nonlocal number
    rules.extend(make(f"{theirs}.{number}", f"{ours}/{path}", *more))
    number += 1

  inner = lambda theirs, ours: affine(f"{theirs}.conv", ours, CONV3)
  layer(inner, "conv_in")
  levels = list(enumerate(blocks))
  for level, count in levels if encodes else levels[::-1]:
    for i in range(count):
      layer(_block, f"{way}_{level}_block_{i}")
    if encodes and level + 1 < len(blocks):
      layer(inner, f"{way}_{level}")
    elif not encodes and level:
      up = lambda theirs, ours: affine(f"{theirs}.conv", f"{ours}/conv", CONV3)
      layer(up, f"{way}_{level}")
      number += 1  # the cells of a block, without parameters
  layer(norm, "norm_out")
  layer(lambda theirs, ours: (_beta(theirs, ours),), "act_out")
  layer(affine if encodes else inner, "conv_out", *((CONV3,) * encodes))
  return tuple(rules)


def _levels(state: State) -> tuple[list[int], list[int]]:
  """(residual blocks, width) of each level, from the layers of the encoder."""
  layers: dict[int, set[str]] = {}
  for key in state:
    found = re.fullmatch(r"encoder_layers\.(\d+)\.(.+)", key)
    if found:
      layers.setdefault(int(found[1]), set()).add(found[2])
  blocks, widths = [0], []
  for number in sorted(layers)[1:]:
    inside = layers[number]
    at = f"encoder_layers.{number}"
    if "fn.0.weight" in inside:
      blocks[-1] += 1
      width = len(state[f"{at}.fn.5.conv.bias"])
      widths[len(blocks) - 1 :] = [width]
    elif "conv.weight" in inside:
      blocks.append(0)
    else:
      break
  return blocks, widths


def config(
  state: State, *, size: int | None = None, frames: int | None = None
) -> dict[str, Any]:
  """The config of a state: that of the published ones, whose levels of rounding
  and strides no shape tells.

  Args:
    state: official key -> array.
    size: side of the videos; 128 if None.
    frames: how many they are; 17 if None.

  Raises:
    UserError: this is not such a file.
  """
  first = f"{_SIDES[0]}.0.conv.weight"
  if first not in state:
    raise UserError(f"not a tokenizer of NBP: there is no {first}")
  ch, channels = state[first].shape[:2]
  blocks, widths = _levels(state)
  model = dict(
    ch=int(ch),
    mult=tuple(w // ch for w in widths),
    blocks=tuple(blocks),
    in_channels=int(channels),
    size=size or 128,
    frames=frames or 17,
  )
  return {"system": "video_fsq", "model": model}


def _like(model: dict[str, Any]):
  module = build("video_fsq", **model).tokenizer
  init = lambda: module.init(jax.random.key(0), module.example())
  return jax.eval_shape(init)["params"]


def to_ours(
  state: State, *, size: int | None = None, frames: int | None = None
) -> dict[str, Any]:
  """Our parameters of the tokenizer; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  model = config(state, size=size, frames=frames)["model"]
  own = {k: v for k, v in state.items() if k.startswith(_SIDES)}
  return tables.to_ours(_table(model["blocks"]), own, _like(model))


def _table(blocks: tuple[int, ...]) -> tuple[Rule, ...]:
  return _side(blocks, True) + _side(blocks, False)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of our parameters."""
  count: dict[int, int] = {}
  for name in params["encoder"]:
    found = re.fullmatch(r"down_(\d+)_block_(\d+)", name)
    if found:
      level, i = map(int, found.groups())
      count[level] = max(count.get(level, 0), i + 1)
  blocks = tuple(count[level] for level in sorted(count))
  return tables.to_official(_table(blocks), params)
