"""The key table of Lumos-1, a Llama with norms of queries and keys. Matrices of
queries, keys and values are one in our layers, and features that turn together
lie beside each other, see `tables.half_turned`.

The published tokenizer, Cosmos, is a traced graph and cannot be converted.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, SAME, Layout, Params, Rule, State
from ar_jax.systems.lumos_1 import WORDS, published_special

PLACE = ()
_THEIRS, _OURS = "model.layers.{i}", "params/backbone/block"
_EMBED, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_QKV = ("q_proj", "k_proj", "v_proj")
_TEXT = 256  # ids of a text, of which no parameter depends


def _table(features: int) -> tuple[Rule, ...]:
  """The rules, of heads of so many features."""
  turned = tables.half_turned(features)
  # Theirs have the shape [1, K].
  norm = Layout(lambda x: turned.ours(x[0]), lambda x: turned.theirs(x)[None])
  attention, mlp = f"{_THEIRS}.self_attn", f"{_THEIRS}.mlp"
  rule = lambda theirs, ours, layout=SAME: Rule(
    f"{theirs}.weight", ours, layout
  )
  norms = (
    Rule(
      f"{attention}.{n}_norm.{theirs}", f"{_OURS}/mixer/norm/{n}/{ours}", norm
    )
    for n in "qk"
    for theirs, ours in (("weight", "scale"), ("bias", "bias"))
  )
  return (
    Rule(_EMBED, "params/units/embedding"),
    rule(f"{attention}.qkv", f"{_OURS}/mixer/qkv/kernel", LINEAR),
    rule(f"{attention}.o_proj", f"{_OURS}/mixer/out/kernel", LINEAR),
    *norms,
    rule(f"{mlp}.gate_proj", f"{_OURS}/mlp/gate/kernel", LINEAR),
    rule(f"{mlp}.up_proj", f"{_OURS}/mlp/fc1/kernel", LINEAR),
    rule(f"{mlp}.down_proj", f"{_OURS}/mlp/fc2/kernel", LINEAR),
    rule(f"{_THEIRS}.input_layernorm", f"{_OURS}/norm1/scale"),
    rule(f"{_THEIRS}.post_attention_layernorm", f"{_OURS}/norm2/scale"),
    rule("model.norm", "params/backbone/out_norm/scale"),
    Rule(_HEAD, "params/head/linear/kernel", LINEAR),
  )


def config(
  state: State, *, size: int | None = None, frames: int | None = None
) -> dict[str, Any]:
  """The config of a state, of the published vocabulary.

  Args:
    state: official key -> array.
    size: side of the videos; 384 if None.
    frames: how many they are; 25 if None.

  Raises:
    UserError: this is not such a file.
  """
  first = "model.layers.0"
  try:
    width = state[_EMBED].shape[1]
    hidden = len(state[f"{first}.mlp.gate_proj.weight"])
    features = state[f"{first}.self_attn.q_norm.bias"].shape[-1]
    heads, kv_heads = (
      len(state[f"{first}.self_attn.{name}.weight"]) // features
      for name in _QKV[:2]
    )
  except KeyError as e:
    raise UserError(f"not of Lumos-1: there is no {e.args[0]}") from e
  size, frames, rate = size or 384, frames or 25, 12
  duration = max(1, round(frames / rate))
  model = dict(
    tokenizer=dict(name="video_fsq", size=size, frames=frames),
    depth=sum(key.endswith("input_layernorm.weight") for key in state),
    width=int(width),
    heads=heads,
    kv_heads=kv_heads,
    features=int(features),
    hidden=hidden,
    text=dict(length=_TEXT, words=WORDS, pad=1),
    special=published_special(size, size, duration, rate),
  )
  return {"system": "lumos_1", "model": model}


def to_ours(
  state: State, *, size: int | None = None, frames: int | None = None
) -> dict[str, Any]:
  """Our variables from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  return of_model(state, config(state, size=size, frames=frames)["model"])


def of_model(state: State, model: dict[str, Any]) -> dict[str, Any]:
  """Our variables from an official state, as a system of these arguments has
  them."""
  system = build("lumos_1", **model)
  like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  features = system.net.backbone.head_width(model["width"])
  turned = tables.half_turned(features)
  state = {k: turned.ours(v) if _turns(k) else v for k, v in state.items()}
  state = tables.fuse(state, _QKV)
  state = {k.replace("".join(_QKV), "qkv"): v for k, v in state.items()}
  found = tables.to_ours(_table(features), state, {"params": like["params"]})
  return {**found, "tokenizer": {}}


def to_official(variables: Params) -> dict[str, np.ndarray]:
  """The official state of our variables."""
  own = {"params": variables["params"]}
  mixer = own["params"]["backbone"]["block"]["mixer"]
  features = mixer["norm"]["q"]["scale"].shape[-1]
  queries = mixer["out"]["kernel"].shape[1]  # features of all heads
  turned: Layout = tables.half_turned(features)
  state = {}
  for key, array in tables.to_official(_table(features), own).items():
    if not key.endswith(".qkv.weight"):
      state[key] = array
      continue
    stem = key.removesuffix("qkv.weight")
    keys = (len(array) - queries) // 2
    parts = np.split(array, [queries, queries + keys])
    for name, part in zip(_QKV, parts, strict=True):
      whole = f"{stem}{name}.weight"
      state[whole] = turned.theirs(part) if _turns(whole) else part
  return state


def _turns(key: str) -> bool:
  """Whether the rows of a matrix turn with the places."""
  return key.endswith((".q_proj.weight", ".k_proj.weight"))
