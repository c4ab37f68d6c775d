"""What the files of Llama's kin have in common that norm queries and keys
(Qwen3, Lumos-1).

Matrices of queries, keys and values are one in our layers, and features that
turn together lie beside each other, see `tables.half_turned`. K features of a
head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, SAME, Layout, Params, Rule, State

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
QKV = ("q_proj", "k_proj", "v_proj")
ATTENTION = "model.layers.{i}.self_attn"
MIXER = "params/backbone/block/mixer"


def rules(norms: Sequence[Rule]) -> tuple[Rule, ...]:
  """All rules, with those of the norms of queries and keys."""
  theirs, ours = "model.layers.{i}", "params/backbone/block"
  rule = lambda key, path, layout=SAME: Rule(f"{key}.weight", path, layout)
  return (
    Rule(EMBED, "params/units/embedding"),
    rule(f"{ATTENTION}.qkv", f"{MIXER}/qkv/kernel", LINEAR),
    rule(f"{ATTENTION}.o_proj", f"{MIXER}/out/kernel", LINEAR),
    *norms,
    rule(f"{theirs}.mlp.gate_proj", f"{ours}/mlp/gate/kernel", LINEAR),
    rule(f"{theirs}.mlp.up_proj", f"{ours}/mlp/fc1/kernel", LINEAR),
    rule(f"{theirs}.mlp.down_proj", f"{ours}/mlp/fc2/kernel", LINEAR),
    rule(f"{theirs}.input_layernorm", f"{ours}/norm1/scale"),
    rule(f"{theirs}.post_attention_layernorm", f"{ours}/norm2/scale"),
    rule("model.norm", "params/backbone/out_norm/scale"),
    Rule(HEAD, "params/head/linear/kernel", LINEAR),
  )


def to_ours(
  table: Sequence[Rule], state: State, like: Params, features: int
) -> dict[str, Any]:
  """Our variables from an official state.

  Args:
    table: see `rules`.
    state: official key -> array.
    like: our parameters, as `tables.to_ours` takes them.
    features: K.

  Raises:
    UserError: the state is not one of this family.
  """
  turned = tables.half_turned(features)
  state = {k: turned.ours(v) if _turns(k) else v for k, v in state.items()}
  state = tables.fuse(state, QKV)
  state = {k.replace("".join(QKV), "qkv"): v for k, v in state.items()}
  return {**tables.to_ours(table, state, {"params": like}), "tokenizer": {}}


def features_of(variables: Params) -> int:
  """K of our variables."""
  mixer = variables["params"]["backbone"]["block"]["mixer"]
  return mixer["norm"]["q"]["scale"].shape[-1]


def to_official(
  table: Sequence[Rule], variables: Params
) -> dict[str, np.ndarray]:
  """The official state of our variables."""
  own = {"params": variables["params"]}
  mixer = own["params"]["backbone"]["block"]["mixer"]
  queries = mixer["out"]["kernel"].shape[1]  # features of all heads
  turned: Layout = tables.half_turned(features_of(variables))
  state = {}
  for key, array in tables.to_official(table, own).items():
    if not key.endswith(".qkv.weight"):
      state[key] = array
      continue
    stem = key.removesuffix("qkv.weight")
    keys = (len(array) - queries) // 2
    parts = np.split(array, [queries, queries + keys])
    for name, part in zip(QKV, parts, strict=True):
      whole = f"{stem}{name}.weight"
      state[whole] = turned.theirs(part) if _turns(whole) else part
  return state


def _turns(key: str) -> bool:
  """Whether the rows of a matrix turn with the places."""
  return key.endswith((".q_proj.weight", ".k_proj.weight"))
