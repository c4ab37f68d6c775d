"""The key table of RETRO as Megatron-Core had it.

Its files are distributed checkpoints that only Megatron reads; what is read
here is a plain state with the names of the module tree, of either of its layer
specifications: those of Transformer Engine, which has a norm in the linear
layer behind it, are given the other names.

Published models begin with the end of a document, where ours have a row of
their own: it is made the row of code 0, the `stop` of a tokenizer.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np

from ar_jax.convert.heads import count
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Params, Rule, State, affine, norm

PLACE = ()
HEADS = {768: 12, 1024: 16, 2048: 32, 4096: 64}
_LAYER = "decoder.layers"
_NESTED = "cross_attention.encoder.layers"
_CROSS = "cross_attention.attn"
# Transformer Engine's names.
_FUSED = {
  "self_attention.linear_qkv.layer_norm_": "input_layernorm.",
  "mlp.linear_fc1.layer_norm_": "pre_mlp_layernorm.",
}


def _rules(theirs: str, ours: str, mlp_norm: str = "") -> list[Rule]:
  """Of a layer; its queries, keys and values as `_opened` leaves them."""
  attention = f"{theirs}.self_attention"
  return [
    *norm(f"{theirs}.input_layernorm", f"{ours}/norm1"),
    *norm(f"{theirs}.pre_mlp_layernorm{mlp_norm}", f"{ours}/norm2"),
    Rule(f"{attention}.linear_qkv.weight", f"{ours}/mixer/qkv/kernel", LINEAR),
    *(Rule(f"{attention}.{x}.bias", f"{ours}/mixer/bias_{x}") for x in "qkv"),
    *affine(f"{attention}.linear_proj", f"{ours}/mixer/out", LINEAR),
    *affine(f"{theirs}.mlp.linear_fc1", f"{ours}/mlp/fc1", LINEAR),
    *affine(f"{theirs}.mlp.linear_fc2", f"{ours}/mlp/fc2", LINEAR),
  ]


def _looking(theirs: str, ours: str) -> list[Rule]:
  """Of what a layer has besides, where it looks at a memory."""
  cross = f"{theirs}.{_CROSS}"
  return [
    *norm(f"{theirs}.pre_cross_attn_layernorm", f"{ours}/norm3"),
    Rule(f"{cross}.linear_q.weight", f"{ours}/cross/query/kernel", LINEAR),
    Rule(f"{cross}.linear_q.bias", f"{ours}/cross/bias_q"),
    Rule(f"{cross}.linear_kv.weight", f"{ours}/cross/key_value/kernel", LINEAR),
    *(Rule(f"{cross}.{x}.bias", f"{ours}/cross/bias_{x}") for x in "kv"),
    *affine(f"{cross}.linear_proj", f"{ours}/cross/out", LINEAR),
  ]


_STACK = "params/stack"
TABLE = (
  Rule("embedding.word_embeddings.weight", "params/units/embedding"),
  Rule("embedding.position_embeddings.weight", "params/place"),
  *_rules("runs.{i}.{j}", f"{_STACK}/runs_{{i}}/block"),
  *_rules("looking.{i}", f"{_STACK}/layers_{{i}}"),
  *_looking("looking.{i}", f"{_STACK}/layers_{{i}}"),
  *_rules("encoder.first", f"{_STACK}/encoder/first", ".norm"),
  *_looking("encoder.first", f"{_STACK}/encoder/first"),
  *_rules("encoder.rest.{j}", f"{_STACK}/encoder/rest/block"),
  *norm("decoder.final_layernorm", f"{_STACK}/out_norm"),
  Rule("output_layer.weight", "params/head/linear/kernel", LINEAR),
)


def _turned(x: np.ndarray, a: int, b: int) -> np.ndarray:
  """Rows [a b K, ...] as rows [b a K, ...]."""
  rows = x.reshape(a, b, -1, *x.shape[1:])
  return np.swapaxes(rows, 0, 1).reshape(x.shape)


def _opened(state: State, heads: int) -> dict[str, np.ndarray]:
  """Queries, keys and values, which lie head by head there, one behind the
  other, and their biases apart."""
  found = {}
  for key, x in state.items():
    fused = re.fullmatch(r"(.*)\.linear_(qkv|kv)\.(weight|bias)", key)
    if fused is None:
      found[key] = x
      continue
    stem, parts, leaf = fused.groups()
    x = _turned(np.asarray(x), heads, len(parts))
    if leaf == "weight":
      found[key] = x
    else:
      pieces = np.split(x, len(parts))
      names = [f"{stem}.{part}.bias" for part in parts]
      found |= dict(zip(names, pieces, strict=True))
  return found


def _closed(state: State, heads: int) -> dict[str, np.ndarray]:
  """Undoes `_opened`."""
  found, biases = {}, {}
  for key, x in state.items():
    bias = re.fullmatch(r"(.*)\.([qkv])\.bias", key)
    if bias is not None:
      biases.setdefault(bias[1], {})[bias[2]] = x
      continue
    fused = re.fullmatch(r".*\.linear_(qkv|kv)\.weight", key)
    found[key] = x if fused is None else _turned(x, len(fused[1]), heads)
  for stem, own in biases.items():
    parts = "".join(x for x in "qkv" if x in own)
    joined = np.concatenate([own[x] for x in parts])
    found[f"{stem}.linear_{parts}.bias"] = _turned(joined, len(parts), heads)
  return found


def _layers(state: State) -> tuple[int, list[int]]:
  """How many layers there are, and which of them look, counted from 0."""
  pattern = re.compile(rf"{_LAYER}\.(\d+)\.(input|pre_cross_attn)_layernorm.w")
  found = [m for key in state if (m := pattern.match(key))]
  number = [int(m[1]) for m in found if m[2] == "input"]
  return len(number), sorted(int(m[1]) for m in found if m[2] != "input")


def _names(depth: int, looking: list[int]) -> dict[str, str]:
  """Beginnings of official names -> of those of the table."""
  names, run, within = {}, 0, 0
  for n in range(depth):
    if n in looking:
      names[f"{_LAYER}.{n}."] = f"looking.{run}."
      run, within = run + 1, 0
    else:
      names[f"{_LAYER}.{n}."] = f"runs.{run}.{within}."
      within += 1
  return names


def _renamed(state: State) -> dict[str, np.ndarray]:
  """By the names of the table."""
  depth, looking = _layers(state)
  names, found = _names(depth, looking), {}
  for key, x in state.items():
    nested = re.fullmatch(rf".*\.{_NESTED}\.(\d+)\.(.*)", key)
    layer = re.match(rf"{_LAYER}\.\d+\.", key)
    if nested:
      j = int(nested[1])
      key = f"encoder.rest.{j - 1}." if j else "encoder.first."
      key += nested[2]
    elif layer:
      key = names[layer[0]] + key[layer.end() :]
    found[key] = x
  return found


def _numbered(state: State) -> dict[str, np.ndarray]:
  """Undoes `_renamed`."""
  sizes: dict[int, int] = {}
  for key in state:
    if run := re.match(r"runs\.(\d+)\.(\d+)\.", key):
      i, j = int(run[1]), int(run[2])
      sizes[i] = max(sizes.get(i, 0), j + 1)
  layers = sum(key.startswith("looking.") for key in state)
  each = sum(key.startswith("looking.0.") for key in state)
  count = layers // each if each else 0
  starts, at = [], 0
  for i in range(count + 1):
    starts.append(at)
    at += sizes.get(i, 0) + 1  # a run, and the layer behind it that looks
  first = starts[1] - 1 if count else 0

  def name(key: str) -> str:
    if run := re.match(r"runs\.(\d+)\.(\d+)\.", key):
      n = starts[int(run[1])] + int(run[2])
      return f"{_LAYER}.{n}.{key[run.end() :]}"
    if look := re.match(r"looking\.(\d+)\.", key):
      n = starts[int(look[1]) + 1] - 1
      return f"{_LAYER}.{n}.{key[look.end() :]}"
    if inner := re.match(r"encoder\.(first|rest\.(\d+))\.", key):
      j = int(inner[2]) + 1 if inner[2] else 0
      return f"{_LAYER}.{first}.{_NESTED}.{j}.{key[inner.end() :]}"
    return key

  return {name(key): x for key, x in state.items()}


def _plain(state: State) -> dict[str, np.ndarray]:
  """By the names of the plain layer specification."""
  found = {}
  for key, x in state.items():
    for fused, own in _FUSED.items():
      key = key.replace(fused, own)
    found[key] = x
  return found


def config(state: State, *, heads: int | None = None) -> dict[str, Any]:
  """The config of a state, as far as shapes tell: not the chunks, nor how many
  neighbours there were.

  Args:
    state: official key -> array.
    heads: of attention; the published number for that width if None.

  Raises:
    UserError: this is not such a file, or its heads are not known.
  """
  state = _plain(state)
  words, places = (
    state.get(f"embedding.{x}_embeddings.weight") for x in ("word", "position")
  )
  if words is None or places is None:
    raise UserError(
      "not RETRO of Megatron: there is no embedding.word_embeddings.weight, or "
      "no embedding.position_embeddings.weight (its models with rotary "
      "positions are not ours)"
    )
  (vocab, width), (depth, looking) = np.shape(words), _layers(state)
  nested = re.compile(rf".*\.{_NESTED}\.(\d+)\.input_layernorm\.weight")
  tokens = {"name": "given", "form": "tokens", "vocab": vocab}
  model = {
    "tokenizer": tokens | {"length": len(places)},
    "depth": depth,
    "width": width,
    "heads": count(state, width, HEADS, heads, "RETRO"),
    "layers": [n + 1 for n in looking],
    "encoder_depth": sum(bool(nested.fullmatch(key)) for key in state) or 2,
    "hidden": len(state[f"{_LAYER}.0.mlp.linear_fc1.weight"]),
    "places": len(places),
    "tied": "output_layer.weight" not in state,
    "final_norm": "decoder.final_layernorm.weight" in state,
  }
  if not looking:
    model["neighbours"] = 0
  elif 2 * 64 > len(places):  # chunks of fewer units than were published
    model["chunk"] = len(places) // 2
  return {"system": "retro", "model": model}


def to_ours(state: State, *, heads: int | None = None) -> dict[str, Any]:
  """The variables of RETRO from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  model = config(state, heads=heads)["model"]
  system = build("retro", **model)
  like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  like = dict(like["params"])
  del like["start"]
  own = _renamed(_opened(_plain(state), model["heads"]))
  made = tables.to_ours(TABLE, own, {"params": like})["params"]
  made["start"] = made["units"]["embedding"][:1].copy()
  return {"params": made, "tokenizer": {}}


def to_official(
  variables: Params, *, heads: int | None = None
) -> dict[str, np.ndarray]:
  """The official state of the variables of RETRO, by the names of the plain
  layer specification."""
  params = {k: v for k, v in variables["params"].items() if k != "start"}
  state = tables.to_official(TABLE, {"params": params})
  width = params["place"].shape[1]
  heads = count(state, width, HEADS, heads, "RETRO")
  return _numbered(_closed(state, heads))
