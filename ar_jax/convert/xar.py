"""The key table of xAR's transformers, `xAR-{B,L,H}.pth`.

Its tokenizer comes in a file of its own; see `convert/kl_vae.py`. Official
velocities point from data to noise and ours from noise to data, so the last
layer changes its sign.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ar_jax.convert.heads import count
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Layout, Params, Rule, State, affine

# Where the converted tree belongs among the variables of the system.
PLACE = ("params",)

_FIRST = Layout(lambda x: x[0], lambda x: x[None])


def _stack(name: str) -> tuple[Rule, ...]:
  theirs, ours = f"{name}_blocks.{{i}}", f"{name}/block"
  return (
    Rule(f"{theirs}.attn.qkv.weight", f"{ours}/mixer/qkv/kernel", LINEAR),
    *(
      Rule(f"{theirs}.attn.{part}.bias", f"{ours}/mixer/bias_{part}")
      for part in tables.QKV
    ),
    *affine(f"{theirs}.attn.proj", f"{ours}/mixer/out", LINEAR),
    *affine(f"{theirs}.mlp.fc1_g", f"{ours}/mlp/gate", LINEAR),
    *affine(f"{theirs}.mlp.fc1_x", f"{ours}/mlp/fc1", LINEAR),
    *affine(f"{theirs}.mlp.fc2", f"{ours}/mlp/fc2", LINEAR),
    *affine(f"{theirs}.ada_lin.1", f"{name}/ada", LINEAR),
    Rule(f"{name}_norm.weight", f"{name}/out_norm/scale"),
    Rule(f"{name}_pos_embed_learned", f"{name}_slots", _FIRST),
  )


TABLE = (
  Rule("class_emb.weight", "label/embedding"),
  *affine("time_embed.mlp.0", "time/fc1", LINEAR),
  *affine("time_embed.mlp.2", "time/fc2", LINEAR),
  *affine("z_proj", "latent", LINEAR),
  Rule("z_proj_ln.weight", "latent_norm/scale"),
  *_stack("encoder"),
  *affine("decoder_embed", "bridge", LINEAR),
  *_stack("decoder"),
  Rule("pred.weight", "head/kernel", tables.AGAINST_LINEAR),
  Rule("pred.bias", "head/bias", tables.AGAINST),
)

# Buffers: the mask and the rotations.
_BUFFERS = ("mask", "freqs_cos", "freqs_sin")


# Heads by width; the file does not tell.
HEADS = {768: 12, 1024: 16, 1280: 16}


def config(state: State, heads: int | None = None) -> dict[str, Any]:
  """The config of a state, as far as shapes tell: of published files, cells
  of 8 x 8 on the latents of KL-16.

  Args:
    state: official key -> array.
    heads: of attention; the published number for that width if None.

  Raises:
    UserError: this is not such a file, or its heads are not known.
  """
  try:
    channels, width = state["pred.weight"].shape
    labels = len(state["class_emb.weight"])
    slots = state["encoder_pos_embed_learned"].shape[1]
  except KeyError as e:
    raise UserError(
      f"not a transformer of xAR: there is no {e.args[0]} in the file"
    ) from e
  side = round(slots**0.5)
  return {
    "system": "xar",
    "model": {
      "tokenizer": {
        "name": "kl_vae",
        "channels": channels,
        "size": 16 * side,
      },
      "depth": sum(key.endswith("mlp.fc2.bias") for key in state),
      "width": width,
      "heads": count(state, width, HEADS, heads, "xAR"),
      "num_classes": labels - 1,
      "entity": "cell",
      "part": side // 2,
    },
  }


def to_ours(state: State, heads: int | None = None) -> dict[str, Any]:
  """The `params` of xAR from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  xar = build("xar", **config(state, heads)["model"])
  like = jax.eval_shape(
    lambda key: xar.init(key, {})["params"], jax.random.key(0)
  )
  own = {
    k: v
    for k, v in state.items()
    if k not in _BUFFERS and ".rope.freqs" not in k
  }
  return tables.to_ours(TABLE, dict(_apart(own)), like)


def _apart(state: State) -> Iterator[tuple[str, np.ndarray]]:
  """The bias of queries, keys and values as three."""
  for key, array in state.items():
    if key.endswith("attn.qkv.bias"):
      yield from tables.split({key: array}).items()
    else:
      yield key, array


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the `params` of xAR."""
  # Only biases are apart; the weights are one matrix in both.
  return tables.fuse(tables.to_official(TABLE, params))
