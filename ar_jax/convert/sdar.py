"""The key table of the dense layout of Qwen3, in which SDAR-{1.7B,4B,8B} are
published; models of one unit a step in it can be taken over as well.

Matrices of queries, keys and values are one in our layers, and features that
turn together lie beside each other, see `tables.half_turned`.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, SAME, Layout, Params, Rule, State
from ar_jax.systems.sdar import MASK_ID, QWEN

PLACE = ()
_THEIRS, _OURS = "model.layers.{i}", "params/backbone/block"
_EMBED, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_QKV = ("q_proj", "k_proj", "v_proj")
_LENGTH = 4096  # units of an example, of which no parameter depends


def _table(features: int) -> tuple[Rule, ...]:
  """The rules, of heads of so many features."""
  turned = tables.half_turned(features)
  attention, mlp = f"{_THEIRS}.self_attn", f"{_THEIRS}.mlp"
  rule = lambda theirs, ours, layout=SAME: Rule(
    f"{theirs}.weight", ours, layout
  )
  return (
    Rule(_EMBED, "params/units/embedding"),
    rule(f"{attention}.qkv", f"{_OURS}/mixer/qkv/kernel", LINEAR),
    rule(f"{attention}.o_proj", f"{_OURS}/mixer/out/kernel", LINEAR),
    rule(f"{attention}.q_norm", f"{_OURS}/mixer/norm/q/scale", turned),
    rule(f"{attention}.k_norm", f"{_OURS}/mixer/norm/k/scale", turned),
    rule(f"{mlp}.gate_proj", f"{_OURS}/mlp/gate/kernel", LINEAR),
    rule(f"{mlp}.up_proj", f"{_OURS}/mlp/fc1/kernel", LINEAR),
    rule(f"{mlp}.down_proj", f"{_OURS}/mlp/fc2/kernel", LINEAR),
    rule(f"{_THEIRS}.input_layernorm", f"{_OURS}/norm1/scale"),
    rule(f"{_THEIRS}.post_attention_layernorm", f"{_OURS}/norm2/scale"),
    rule("model.norm", "params/backbone/out_norm/scale"),
    Rule(_HEAD, "params/head/linear/kernel", LINEAR),
  )


def config(state: State, *, size: int | None = None) -> dict[str, Any]:
  """The config of a state; all sizes are in its shapes. The code of what is
  hidden is the published one, or the last one of a smaller vocabulary.

  Args:
    state: official key -> array.
    size: units of an example, which no shape shows; 4096 if None.

  Raises:
    UserError: this is not such a file.
  """
  first = "model.layers.0"
  try:
    vocab, width = state[_EMBED].shape
    hidden = len(state[f"{first}.mlp.gate_proj.weight"])
    features = len(state[f"{first}.self_attn.q_norm.weight"])
    heads, kv_heads = (
      len(state[f"{first}.self_attn.{name}.weight"]) // features
      for name in _QKV[:2]
    )
  except KeyError as e:
    more = ": layers of experts are not supported" if "mlp" in e.args[0] else ""
    raise UserError(
      f"not of the dense layout of Qwen3: there is no {e.args[0]}{more}"
    ) from e
  tokens = dict(name="given", form="tokens", vocab=vocab, stop=None)
  tokens["length"] = _LENGTH if size is None else size
  model = QWEN | {
    "tokenizer": tokens,
    "depth": sum(key.endswith("input_layernorm.weight") for key in state),
    "width": width,
    "heads": heads,
    "kv_heads": kv_heads,
    "features": features,
    "hidden": hidden,
    "num_classes": 0,
    "prefix_rope": "line",
    "mask_id": MASK_ID if vocab > MASK_ID else vocab - 1,
  }
  return {"system": "sdar", "model": model}


def to_ours(state: State, *, size: int | None = None) -> dict[str, Any]:
  """Our variables from an official state; arguments as in `config`. Where the
  head is the table of codes, the file has no head of its own.

  Raises:
    UserError: the state is not one of this family.
  """
  model = config(state, size=size)["model"]
  system = build("sdar", **model)
  like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  state = {_HEAD: state[_EMBED]} | dict(state)
  turned = tables.half_turned(model["features"])
  state = {
    k: turned.ours(v) if _turns(k) else v for k, v in state.items()
  }  # fmt: skip
  state = tables.fuse(state, _QKV)
  state = {k.replace("".join(_QKV), "qkv"): v for k, v in state.items()}
  found = tables.to_ours(
    _table(model["features"]), state, {"params": like["params"]}
  )
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
