"""The key table of Hi-MAR, himar_{b,l,h}: both phases and both heads.

Its tokenizer comes in a file of its own; see `convert/kl_vae.py`. The fixed
table of places of a file is not stored here, nor one of zeros that it never
reads.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ar_jax.convert import heads as counts
from ar_jax.convert import mar
from ar_jax.convert.arflow import ENDS, MODS, both, reordered
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import (
  LINEAR,
  POINT,
  Layout,
  Params,
  Rule,
  State,
  affine,
)

# Where the converted tree belongs among the variables of the system.
PLACE = ("params",)

# Heads by width, and those of the head over the map by its own width; the file
# tells neither.
HEADS = mar.HEADS
MAP_HEADS = {512: 8, 768: 12}

_PHASES = Layout(lambda x: x[:, 0, 0], lambda x: x[:, None, None])
_MAP, _NET = "cond_diffloss.net", "map_head/net"
_BLOCK, _OURS = f"{_MAP}.blocks." + "{i}", f"{_NET}/backbone/block"
_BUFFERS = (f"{_MAP}.pos_embed", f"{_MAP}.c_pos_embed")


def _phases(name: str) -> tuple[Rule, ...]:
  block = f"{name}_blocks." + "{i}"
  return (
    Rule(f"{name}_task_emb.weight", f"{name}/ada/phase/embedding"),
    *affine(f"{name}_blocks_ada.1", f"{name}/ada/lead", LINEAR),
    Rule(f"{block}.adaLN_scale", f"{name}/ada/scale", _PHASES),
    Rule(f"{block}.adaLN_shift", f"{name}/ada/shift", _PHASES),
  )


TABLE = (
  *mar.NET,
  *mar.HEAD,
  Rule("mask_token", "hidden", mar.BATCH),
  Rule("cond_tokens", "blank", mar.BATCH),
  *affine("cond_proj", "small_latent", LINEAR),
  *affine("cond_z_proj", "pivot", LINEAR),
  *_phases("encoder"),
  *_phases("decoder"),
  *affine(f"{_MAP}.x_embedder.proj", f"{_NET}/latent", POINT),
  *affine(f"{_MAP}.c_embedder.proj", f"{_NET}/cond", POINT),
  *affine(f"{_MAP}.t_embedder.mlp.0", f"{_NET}/time/fc1", LINEAR),
  *affine(f"{_MAP}.t_embedder.mlp.2", f"{_NET}/time/fc2", LINEAR),
  Rule(f"{_BLOCK}.attn.qkv.weight", f"{_OURS}/mixer/qkv/kernel", LINEAR),
  *(
    Rule(f"{_BLOCK}.attn.{x}.bias", f"{_OURS}/mixer/bias_{x}")
    for x in tables.QKV
  ),
  *affine(f"{_BLOCK}.attn.proj", f"{_OURS}/mixer/out", LINEAR),
  *affine(f"{_BLOCK}.mlp.fc1", f"{_OURS}/mlp/fc1", LINEAR),
  *affine(f"{_BLOCK}.mlp.fc2", f"{_OURS}/mlp/fc2", LINEAR),
  *both(
    f"{_BLOCK}.adaLN_modulation.1",
    f"{_NET}/backbone/ada",
    lambda then: reordered(MODS, then),
  ),
  *both(
    f"{_MAP}.final_layer.adaLN_modulation.1",
    f"{_NET}/backbone/out_ada",
    lambda then: reordered(ENDS, then),
    lead=True,
  ),
  *affine(f"{_MAP}.final_layer.linear", f"{_NET}/out", LINEAR),
)


def config(
  state: State, heads: int | None = None, map_heads: int | None = None
) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    heads: of attention; the published number for that width if None.
    map_heads: the same of the head over the map; one of 64 features for widths
      that are not published.

  Raises:
    UserError: this is not such a file, or its heads are not known.
  """
  try:
    classes, width = state["class_emb.weight"].shape
    slots = state["diffusion_pos_embed_learned"].shape[1]
    rows = state["encoder_pos_embed_learned"].shape[1]
    _, small, channels = state["cond_tokens"].shape
    head_width = len(state["diffloss.net.input_proj.weight"])
    map_width = len(state[f"{_MAP}.x_embedder.proj.weight"])
  except KeyError as e:
    raise UserError(f"not a Hi-MAR: there is no {e.args[0]} in the file") from e
  count = lambda start, end: sum(
    key.startswith(start) and key.endswith(end) for key in state
  )
  map_heads = map_heads or MAP_HEADS.get(map_width, max(1, map_width // 64))
  blocks = count(f"{_MAP}.blocks.", "fc1.bias")
  return {
    "system": "hi_mar",
    "model": {
      "tokenizer": {
        "name": "kl_vae",
        "channels": channels,
        "size": 16 * round((slots - small) ** 0.5),
      },
      "depth": count("encoder_blocks.", "fc1.bias"),
      "width": width,
      "heads": counts.count(state, width, HEADS, heads, "Hi-MAR"),
      "head": (count("diffloss.", "in_ln.bias"), head_width),
      "map_head": (blocks, map_width, map_heads),
      "num_classes": classes,
      "prefix": rows // 2 - slots,
    },
  }


def to_ours(
  state: State, heads: int | None = None, map_heads: int | None = None
) -> dict[str, Any]:
  """The `params` of Hi-MAR from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  hi_mar = build("hi_mar", **config(state, heads, map_heads)["model"])
  like = jax.eval_shape(
    lambda key: hi_mar.init(key, {})["params"], jax.random.key(0)
  )
  return tables.to_ours(TABLE, mar.joined(state), like, ignore=_BUFFERS)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the `params` of Hi-MAR."""
  return mar.apart(tables.to_official(TABLE, params))
