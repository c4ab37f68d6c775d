"""The key table of NBP's transformers, of both kinds: those that read a
condition and those that go on with frames. The tokenizer that lies in the same
file is of the family `video_fsq`.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

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

PLACE = ()
_FRONT = "transformer."
_LAYER, _OURS = "transformer.blocks.{i}", "params/backbone/block"
_BATCH = Layout(lambda x: x[0], lambda x: x[None])
_TABLE = (
  Rule("transformer.tok_emb.weight", "params/units/embedding"),
  Rule("transformer.pos_emb", "params/places", _BATCH),
  Rule("transformer.uncond_embedding", "params/prefix/null"),
  *norm(f"{_LAYER}.ln1", f"{_OURS}/norm1"),
  *norm(f"{_LAYER}.ln2", f"{_OURS}/norm2"),
  Rule(f"{_LAYER}.attn.qkv.weight", f"{_OURS}/mixer/qkv/kernel", LINEAR),
  *(
    Rule(f"{_LAYER}.attn.{name}.bias", f"{_OURS}/mixer/bias_{name[0]}")
    for name in ("query", "key", "value")
  ),
  *affine(f"{_LAYER}.attn.proj", f"{_OURS}/mixer/out", LINEAR),
  *affine(f"{_LAYER}.mlp.0", f"{_OURS}/mlp/fc1", LINEAR),
  *affine(f"{_LAYER}.mlp.2", f"{_OURS}/mlp/fc2", LINEAR),
  *norm("transformer.ln_f", "params/backbone/out_norm"),
  Rule("transformer.head.weight", "params/head/linear/kernel", LINEAR),
)
_QKV = ("query", "key", "value")
# Published widths -> heads; no shape tells.
HEADS = {1536: 16, 2048: 32, 3072: 32}
_WORDS, _CODES = 32_000, 64_000  # of the published vocabularies


def config(
  state: State,
  *,
  heads: int | None = None,
  size: int | None = None,
  frames: int | None = None,
) -> dict[str, Any]:
  """The config of a state. Whether it reads a condition is in its vocabulary,
  which is more than the codes; how many ids of it, in the rows for none.

  Args:
    state: official key -> array.
    heads: of attention, where no published width tells.
    size: side of the videos; 128 if None.
    frames: how many they are; 17 if None.

  Raises:
    UserError: this is not such a file.
  """
  try:
    rows, width = state["transformer.tok_emb.weight"].shape
    positions = state["transformer.pos_emb"].shape[1]
  except KeyError as e:
    raise UserError(f"not a transformer of NBP: there is no {e.args[0]}") from e
  heads = heads or HEADS.get(width)
  if heads is None:
    raise UserError(f"width {width}: give its heads with --heads=N")
  tokenizer = dict(name="video_fsq", size=size or 128, frames=frames or 17)
  model = dict(
    tokenizer=tokenizer,
    depth=sum(key.endswith("ln1.weight") for key in state),
    width=int(width),
    heads=heads,
    positions=int(positions),
  )
  null = state.get("transformer.uncond_embedding")
  if rows <= _CODES:
    model |= dict(mode="frames", context=5)
  else:
    count = 8 if null is None else len(null)
    model["text"] = dict(length=count, words=_WORDS)
    model["label_dropout"] = 0.0 if null is None else 0.1
  return {"system": "nbp", "model": model}


def to_ours(
  state: State,
  *,
  heads: int | None = None,
  size: int | None = None,
  frames: int | None = None,
) -> dict[str, Any]:
  """Our variables from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  model = config(state, heads=heads, size=size, frames=frames)["model"]
  return of_model(state, model)


def of_model(state: State, model: dict[str, Any]) -> dict[str, Any]:
  """Our variables from an official state, as a system of these arguments has
  them."""
  system = build("nbp", **model)
  like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  own = {k: v for k, v in state.items() if k.startswith(_FRONT)}
  biases = {k: v for k, v in own.items() if k.endswith(".bias")}
  own = tables.fuse({k: v for k, v in own.items() if k not in biases}, _QKV)
  own = {k.replace("".join(_QKV), "qkv"): v for k, v in own.items()} | biases
  found = tables.to_ours(_TABLE, own, {"params": like["params"]})
  return {**found, "tokenizer": {}}


def to_official(variables: Params) -> dict[str, np.ndarray]:
  """The official state of our variables."""
  own = {"params": variables["params"]}
  state = {}
  for key, array in tables.to_official(_TABLE, own).items():
    if not key.endswith(".qkv.weight"):
      state[key] = array
      continue
    stem = key.removesuffix("qkv.weight")
    for name, part in zip(_QKV, np.split(array, 3), strict=True):
      state[f"{stem}{name}.weight"] = part
  return state
