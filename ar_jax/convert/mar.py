"""The key table of MAR, `checkpoint-last.pth` of mar_{base,large,huge}.

Its tokenizer comes in a file of its own; see `convert/kl_vae.py`.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ar_jax.convert.heads import count as heads_of
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import (
  LINEAR,
  Layout,
  Params,
  Rule,
  State,
  affine,
  norm,
)

# Where the converted tree belongs among the variables of the system.
PLACE = ("params",)

# Heads by width; the file does not tell.
HEADS = {768: 12, 1024: 16, 1280: 16}

BATCH = Layout(lambda x: x[0], lambda x: x[None])
_ONE = Layout(lambda x: x[0, 0], lambda x: x[None, None])


def stack(name: str) -> tuple[Rule, ...]:
  theirs, ours = name + "_blocks.{i}", f"{name}/block"
  return (
    *norm(f"{theirs}.norm1", f"{ours}/norm1"),
    *norm(f"{theirs}.norm2", f"{ours}/norm2"),
    Rule(f"{theirs}.attn.qkv.weight", f"{ours}/mixer/qkv/kernel", LINEAR),
    *(
      Rule(f"{theirs}.attn.{x}.bias", f"{ours}/mixer/bias_{x}")
      for x in tables.QKV
    ),
    *affine(f"{theirs}.attn.proj", f"{ours}/mixer/out", LINEAR),
    *affine(f"{theirs}.mlp.fc1", f"{ours}/mlp/fc1", LINEAR),
    *affine(f"{theirs}.mlp.fc2", f"{ours}/mlp/fc2", LINEAR),
    *norm(f"{name}_norm", f"{name}/out_norm"),
    Rule(f"{name}_pos_embed_learned", f"{name}_slots", BATCH),
  )


_NET, _HEAD = "diffloss.net", "head/net"
_THEIRS = f"{_NET}.res_blocks." + "{i}"

# The head that draws a unit by itself.
HEAD = (
  *affine(f"{_NET}.time_embed.mlp.0", f"{_HEAD}/time/fc1", LINEAR),
  *affine(f"{_NET}.time_embed.mlp.2", f"{_HEAD}/time/fc2", LINEAR),
  *affine(f"{_NET}.cond_embed", f"{_HEAD}/cond", LINEAR),
  *affine(f"{_NET}.input_proj", f"{_HEAD}/latent", LINEAR),
  *norm(f"{_THEIRS}.in_ln", f"{_HEAD}/blocks/norm"),
  *affine(f"{_THEIRS}.mlp.0", f"{_HEAD}/blocks/fc1", LINEAR),
  *affine(f"{_THEIRS}.mlp.2", f"{_HEAD}/blocks/fc2", LINEAR),
  *affine(f"{_THEIRS}.adaLN_modulation.1", f"{_HEAD}/blocks/ada", LINEAR),
  *affine(f"{_NET}.final_layer.adaLN_modulation.1", f"{_HEAD}/ada", LINEAR),
  *affine(f"{_NET}.final_layer.linear", f"{_HEAD}/out", LINEAR),
)
# The encoder, the decoder and what leads into them.
NET = (
  Rule("labels", "label/embedding"),
  *affine("z_proj", "latent", LINEAR),
  *norm("z_proj_ln", "latent_norm"),
  *stack("encoder"),
  *affine("decoder_embed", "bridge", LINEAR),
  *stack("decoder"),
  Rule("diffusion_pos_embed_learned", "head_slots", BATCH),
)
TABLE = (*NET, Rule("mask_token", "hidden", _ONE), *HEAD)


def config(state: State, heads: int | None = None) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    heads: of attention; the published number for that width if None.

  Raises:
    UserError: this is not such a file, or its heads are not known.
  """
  try:
    classes, width = state["class_emb.weight"].shape
    length = state["diffusion_pos_embed_learned"].shape[1]
    total = state["encoder_pos_embed_learned"].shape[1]
    channels = state["z_proj.weight"].shape[1]
    head_width = len(state[f"{_NET}.input_proj.weight"])
  except KeyError as e:
    raise UserError(f"not a MAR: there is no {e.args[0]} in the file") from e
  count = lambda end: sum(key.endswith(end) for key in state)
  depth = lambda start: sum(
    key.startswith(start) and key.endswith("mlp.fc1.bias") for key in state
  )
  return {
    "system": "mar",
    "model": {
      "tokenizer": {
        "name": "kl_vae",
        "channels": channels,
        "size": 16 * round(length**0.5),
      },
      "depth": depth("encoder_blocks."),
      "decoder_depth": depth("decoder_blocks."),
      "width": width,
      "heads": heads_of(state, width, HEADS, heads, "MAR"),
      "head_depth": count("in_ln.bias"),
      "head_width": head_width,
      "num_classes": classes,
      "prefix": total - length,
    },
  }


def to_ours(state: State, heads: int | None = None) -> dict[str, Any]:
  """The `params` of MAR from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  mar = build("mar", **config(state, heads)["model"])
  like = jax.eval_shape(
    lambda key: mar.init(key, {})["params"], jax.random.key(0)
  )
  return tables.to_ours(TABLE, joined(state), like)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the `params` of MAR."""
  return apart(tables.to_official(TABLE, params))


def joined(state: State) -> dict[str, np.ndarray]:
  """An official state as the table reads it: biases by themselves, and one
  table of labels, of which the last is null."""
  state = tables.split_biases(state)
  if "fake_latent" in state:
    labels = state.pop("class_emb.weight"), state.pop("fake_latent")
    state["labels"] = np.concatenate(labels)
  return state


def apart(state: State) -> dict[str, np.ndarray]:
  """Undoes `joined`."""
  state = tables.fuse(state)
  labels = state.pop("labels")
  state["class_emb.weight"], state["fake_latent"] = labels[:-1], labels[-1:]
  return state
