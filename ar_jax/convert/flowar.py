"""The key table of FlowAR, `flowar_{s,l,h}.pth`.

Its tokenizer is MAR's, in a file of its own; see `convert/kl_vae.py`. Official
velocities point from data to noise and ours from noise to data, so the last
layer changes its sign.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ar_jax.convert.heads import count as heads_of
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Layout, Params, Rule, State, affine

# Where the converted tree belongs among the variables of the system.
PLACE = ("params",)

# Heads by width; the file does not tell. Those of the head are of width 64.
HEADS = {768: 12, 1024: 16, 1536: 16}

_BATCH = Layout(lambda x: x[0], lambda x: x[None])


def _scale(theirs: str, ours: str) -> Rule:
  return Rule(f"{theirs}.weight", f"{ours}/scale")


def _gated(theirs: str, ours: str) -> tuple[Rule, ...]:
  return (
    *affine(f"{theirs}.fc1_g", f"{ours}/gate", LINEAR),
    *affine(f"{theirs}.fc1_x", f"{ours}/fc1", LINEAR),
    *affine(f"{theirs}.fc2", f"{ours}/fc2", LINEAR),
  )


def _stack(name: str) -> tuple[Rule, ...]:
  theirs, ours = name + "_blocks.{i}", f"{name}/block"
  return (
    Rule(f"{theirs}.attn.qkv.weight", f"{ours}/mixer/qkv/kernel", LINEAR),
    *(
      Rule(f"{theirs}.attn.{x}.bias", f"{ours}/mixer/bias_{x}")
      for x in tables.QKV
    ),
    *affine(f"{theirs}.attn.proj", f"{ours}/mixer/out", LINEAR),
    *_gated(f"{theirs}.mlp", f"{ours}/mlp"),
    *affine(f"{theirs}.ada_lin.1", f"{name}/ada", LINEAR),
    _scale(f"{name}_norm", f"{name}/out_norm"),
    Rule(f"{name}_pos_embed_learned", f"{name}_slots", _BATCH),
  )


_NET, _HEAD = "flownet", "head/net"
_THEIRS, _OURS = f"{_NET}.res_blocks." + "{i}", f"{_HEAD}/blocks"

TABLE = (
  Rule("class_emb.weight", "label/embedding"),
  *affine("z_proj", "latent", LINEAR),
  _scale("z_proj_ln", "latent_norm"),
  *_stack("encoder"),
  *affine("decoder_embed", "bridge", LINEAR),
  *_stack("decoder"),
  Rule("diffusion_pos_embed_learned", "head_slots", _BATCH),
  *affine(f"{_NET}.time_embed.mlp.0", f"{_HEAD}/time/fc1", LINEAR),
  *affine(f"{_NET}.time_embed.mlp.2", f"{_HEAD}/time/fc2", LINEAR),
  *affine(f"{_NET}.cond_embed", f"{_HEAD}/cond", LINEAR),
  *affine(f"{_NET}.input_proj", f"{_HEAD}/latent", LINEAR),
  Rule(f"{_THEIRS}.attn.qkv.weight", f"{_OURS}/mixer/qkv/kernel", LINEAR),
  *affine(f"{_THEIRS}.attn.proj", f"{_OURS}/mixer/out", LINEAR),
  *_gated(f"{_THEIRS}.mlp", f"{_OURS}/mlp"),
  *affine(f"{_THEIRS}.ada_lin", f"{_OURS}/ada", LINEAR),
  *affine(f"{_THEIRS}.ada_lin_attn", f"{_OURS}/ada_attention", LINEAR),
  *affine(f"{_THEIRS}.ada_lin_mlp", f"{_OURS}/ada_mlp", LINEAR),
  _scale(f"{_THEIRS}.norm2_1", f"{_OURS}/norm_x"),
  _scale(f"{_THEIRS}.norm2_2", f"{_OURS}/norm_h"),
  Rule(f"{_THEIRS}.crossattn.q.weight", f"{_OURS}/cross_q/kernel", LINEAR),
  Rule(f"{_THEIRS}.crossattn.kv.weight", f"{_OURS}/cross_kv/kernel", LINEAR),
  *affine(f"{_THEIRS}.crossattn.proj", f"{_OURS}/cross_out", LINEAR),
  *affine(f"{_NET}.final_layer.adaLN_modulation.1", f"{_HEAD}/ada", LINEAR),
  Rule(
    f"{_NET}.final_layer.linear.weight",
    f"{_HEAD}/out/kernel",
    tables.AGAINST_LINEAR,
  ),
  Rule(f"{_NET}.final_layer.linear.bias", f"{_HEAD}/out/bias", tables.AGAINST),
)

# Constants: masks and rotary tables.
_BUFFERS = ("rope", "freqs")


def _named(state: State) -> dict[str, np.ndarray]:
  """Without buffers. A modulation of the stacks is a sequence, one of the head
  is not; where a file has it otherwise, it gets the usual name."""
  kept = {}
  for key, array in state.items():
    parts = key.split(".")
    if key == "mask" or any(b in p for p in parts for b in _BUFFERS):
      continue
    if parts[-2:-1] == ["1"] and parts[-3].startswith("ada_lin"):
      del parts[-2]
    if key.startswith(("encoder_", "decoder_")) and parts[-2:-1] == ["ada_lin"]:
      parts.insert(-1, "1")
    kept[".".join(parts)] = array
  return kept


def config(state: State, heads: int | None = None) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    heads: of attention; the published number for that width if None.

  Raises:
    UserError: this is not such a file, or its heads are not known.
  """
  try:
    labels, width = state["class_emb.weight"].shape
    slots = state["diffusion_pos_embed_learned"].shape[1]
    channels = state["z_proj.weight"].shape[1]
    head_width = len(state[f"{_NET}.input_proj.weight"])
  except KeyError as e:
    raise UserError(f"not a FlowAR: there is no {e.args[0]} in the file") from e
  # 1 + 4 + ... + h^2 slots are (4 h^2 - 1) / 3.
  side = round(((3 * slots + 1) / 4) ** 0.5)
  count = lambda start: sum(
    key.startswith(start) and key.endswith("mlp.fc2.bias") for key in state
  )
  return {
    "system": "flowar",
    "model": {
      "tokenizer": {
        "name": "kl_vae",
        "channels": channels,
        "size": 16 * side,
      },
      "depth": count("encoder_blocks."),
      "decoder_depth": count("decoder_blocks."),
      "width": width,
      "heads": heads_of(state, width, HEADS, heads, "FlowAR"),
      "head_depth": count(f"{_NET}."),
      "head_width": head_width,
      "num_classes": labels - 1,
      "cross": any(".crossattn." in key for key in state),
    },
  }


def to_ours(state: State, heads: int | None = None) -> dict[str, Any]:
  """The `params` of FlowAR from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  flowar = build("flowar", **config(state, heads)["model"])
  like = jax.eval_shape(
    lambda key: flowar.init(key, {})["params"], jax.random.key(0)
  )
  return tables.to_ours(TABLE, tables.split_biases(_named(state)), like)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the `params` of FlowAR."""
  return tables.fuse(tables.to_official(TABLE, params))
