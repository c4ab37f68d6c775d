"""The key table of Chameleon, as Lumina-mGPT and ARRA-Adapt publish it in the
layout of transformers, with or without the projector of ARRA.

The tokenizer comes in a file of its own. A file without a projector, which a
run of ARRA begins with, gets one that is drawn.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from ar_jax.families.token import tapped
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Params, Rule, State, affine

PLACE = ("params",)

_THEIRS, _OURS = "model.layers.{i}", "backbone/block"
_QKV = ("q_proj", "k_proj", "v_proj")
_JOINT = "".join(_QKV)


def _linear(theirs: str, ours: str) -> Rule:
  return Rule(f"{theirs}.weight", f"{ours}/kernel", LINEAR)


def _head_norm(name: str) -> tuple[Rule, Rule]:
  theirs, ours = f"{_THEIRS}.self_attn.{name}_norm", f"{_OURS}/mixer/norm"
  return (
    Rule(f"{theirs}.weight", f"{ours}/{name}/scale"),
    Rule(f"{theirs}.bias", f"{ours}/{name}/bias"),
  )


TABLE = (
  Rule("model.embed_tokens.weight", "units/embedding"),
  _linear(f"{_THEIRS}.self_attn.{_JOINT}", f"{_OURS}/mixer/qkv"),
  _linear(f"{_THEIRS}.self_attn.o_proj", f"{_OURS}/mixer/out"),
  *_head_norm("q"),
  *_head_norm("k"),
  _linear(f"{_THEIRS}.mlp.gate_proj", f"{_OURS}/mlp/gate"),
  _linear(f"{_THEIRS}.mlp.up_proj", f"{_OURS}/mlp/fc1"),
  _linear(f"{_THEIRS}.mlp.down_proj", f"{_OURS}/mlp/fc2"),
  Rule(f"{_THEIRS}.input_layernorm.weight", f"{_OURS}/norm1/scale"),
  Rule(f"{_THEIRS}.post_attention_layernorm.weight", f"{_OURS}/norm2/scale"),
  Rule("model.norm.weight", "backbone/out_norm/scale"),
  _linear("lm_head", "head/linear"),
  *affine("adaptor.layers.0", "projector/fc1", LINEAR),
  *affine("adaptor.layers.2", "projector/fc2", LINEAR),
)
_LAYER, _TEXT = 1, 512  # what a file does not tell


def config(state: State, *, size: int | None = None) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    size: side of the images, which no shape shows; 512 if None.

  Raises:
    UserError: this is not such a file.
  """
  try:
    vocab, width = state["model.embed_tokens.weight"].shape
    hidden = len(state["model.layers.0.mlp.gate_proj.weight"])
    norm = state["model.layers.0.self_attn.q_norm.weight"]
  except KeyError as e:
    raise UserError(
      f"not a Chameleon: there is no {e.args[0]} in the file"
    ) from e
  heads = width // np.shape(norm)[-1]
  own = state.get("adaptor.layers.2.weight")
  align = {"layer": _LAYER, "features": 512 if own is None else len(own)}
  if own is not None and own.shape[1] != len(own):
    align["hidden"] = own.shape[1]
  codes = dict(name="vq", vocab=8192, channels=256, sphere=False)
  model = {
    "tokenizer": {**codes, "size": size or 512},
    "depth": sum(key.endswith("input_layernorm.weight") for key in state),
    "width": width,
    "heads": heads,
    "hidden": hidden,
    "head_norm": "chameleon",
    "symbols": "chameleon",
    "text": {"name": "ids", "length": _TEXT},
    "align": align,
    "token_dropout": 0.0,
  }
  if vocab != 65_536:
    raise UserError(
      f"a vocabulary of {vocab}: that of Chameleon, where codes and ends of "
      "rows have their numbers, has 65536"
    )
  return {"system": "arra", "model": model}


def to_ours(
  state: State, *, size: int | None = None, seed: int = 0
) -> dict[str, Any]:
  """`params` of ARRA from an official state; arguments as in `config`, and

  Args:
    seed: of the projector where the file has none.

  Raises:
    UserError: the state is not one of this family.
  """
  model = config(state, size=size)["model"]
  system = build("arra", **model)
  like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  like, drawn = dict(like["params"]), {}
  if "adaptor.layers.0.weight" not in state:
    like.pop("projector")
    h = np.zeros((1, model["width"]), np.float32)
    fresh = system.projector.init(jax.random.key(seed), h)
    drawn = {"projector": jax.device_get(fresh["params"])}
  layer = model["align"]["layer"]
  whole = dict(like) | {"backbone": _whole(like["backbone"])}
  state = tables.fuse(_turned(state, model["heads"]), _QKV)
  params = tables.to_ours(TABLE, state, whole, ignore=_BUFFERS)
  return tapped.parted(params, layer) | drawn


_BUFFERS = (
  "model.layers.{i}.self_attn.rotary_emb.inv_freq",
  "model.vocabulary_mapping.{i}",
)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the `params` of ARRA."""
  whole = jax.tree.map(np.asarray, tapped.joined(params))
  norm = whole["backbone"]["block"]["mixer"]["norm"]["q"]["scale"]
  state = tables.split(tables.to_official(TABLE, whole), _QKV)
  return _turned(state, norm.shape[1], back=True)


def _whole(stack: Params) -> dict[str, Any]:
  """The shapes of a stack that is not cut, of one that is."""
  first, rest = stack["parts_0"], stack["parts_1"]

  def join(a, b):
    shape = (a.shape[0] + b.shape[0], *a.shape[1:])
    return jax.ShapeDtypeStruct(shape, a.dtype)

  return {**rest, "block": jax.tree.map(join, first["block"], rest["block"])}


def _turned(
  state: State, heads: int, back: bool = False
) -> dict[str, np.ndarray]:
  """The state with the features of queries and keys in our order, see
  `tables.half_turned`, and a norm for each head; or back."""
  found = dict(state)
  for key, x in state.items():
    kind = key.split(".")[-2] if "." in key else ""
    if kind not in ("q_proj", "k_proj", "q_norm", "k_norm"):
      continue
    if kind.endswith("norm") and not back:  # some files have one for all heads
      x = np.broadcast_to(x, (heads, np.shape(x)[-1]))
    shape = np.shape(x)
    features = shape[-1] if kind.endswith("norm") else shape[0] // heads
    layout = tables.half_turned(features)
    change = layout.theirs if back else layout.ours
    rows = x.reshape(-1) if kind.endswith("norm") else x
    found[key] = change(np.asarray(rows)).reshape(shape)
  return found
