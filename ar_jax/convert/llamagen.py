"""The key table of LlamaGen's transformers, `c2i_{B,L,XL,XXL,3B}_*.pt` and
`t2i_XL_*.pt`.

The tokenizer comes in a file of its own; see `convert/vq.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ar_jax.convert.heads import count
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Params, Rule, State

# The tree holds `params` and, for texts, `null`.
PLACE = ()

_THEIRS, _OURS = "layers.{i}", "params/backbone/block"
_TEXT = "cls_embedding"


def _linear(theirs: str, ours: str) -> Rule:
  return Rule(f"{theirs}.weight", f"{ours}/kernel", LINEAR)


TABLE = (
  Rule("tok_embeddings.weight", "params/units/embedding"),
  Rule(f"{_TEXT}.embedding_table.weight", "params/prefix/label/embedding"),
  Rule("positional_embedding", "params/places"),  # of those over GigaTok
  _linear(f"{_TEXT}.cap_proj.fc1", "params/prefix/fc1"),
  _linear(f"{_TEXT}.cap_proj.fc2", "params/prefix/fc2"),
  Rule(f"{_TEXT}.uncond_embedding", "null/prefix/features"),
  _linear(f"{_THEIRS}.attention.wqkv", f"{_OURS}/mixer/qkv"),
  _linear(f"{_THEIRS}.attention.wo", f"{_OURS}/mixer/out"),
  _linear(f"{_THEIRS}.feed_forward.w1", f"{_OURS}/mlp/gate"),
  _linear(f"{_THEIRS}.feed_forward.w3", f"{_OURS}/mlp/fc1"),
  _linear(f"{_THEIRS}.feed_forward.w2", f"{_OURS}/mlp/fc2"),
  Rule(f"{_THEIRS}.attention_norm.weight", f"{_OURS}/norm1/scale"),
  Rule(f"{_THEIRS}.ffn_norm.weight", f"{_OURS}/norm2/scale"),
  Rule("norm.weight", "params/backbone/out_norm/scale"),
  _linear("output", "params/head/linear"),
)

# Heads by width; the file does not tell.
HEADS = {768: 12, 1024: 16, 1280: 20, 1536: 24, 2048: 32, 3200: 32, 4096: 32}


def config(
  state: State,
  *,
  heads: int | None = None,
  size: int | None = None,
  published: Mapping[int, int] = HEADS,
  name: str = "LlamaGen",
) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    heads: of attention, which no shape shows; the published number for that
      width if None.
    size: side of the images, which no shape shows; that of the tokenizer, 256
      unless it was trained here, if None. Most files were trained at 384.
    published: heads by width.
    name: of the family, for messages.

  Raises:
    UserError: this is not such a file, or its heads are not known.
  """
  try:
    vocab, width = state["tok_embeddings.weight"].shape
    hidden = len(state["layers.0.feed_forward.w1.weight"])
  except KeyError as e:
    raise UserError(
      f"not a transformer of {name}: there is no {e.args[0]} in the file"
    ) from e
  model = {
    "tokenizer": {"name": "vq", "vocab": vocab},
    "depth": sum(key.endswith("attention_norm.weight") for key in state),
    "width": width,
    "heads": count(state, width, published, heads, name),
    "multiple_of": multiple(hidden, width),
  }
  if "positional_embedding" in state:
    length = len(state["positional_embedding"]) - 1
    model["tokenizer"] = {"name": "gigatok", "vocab": vocab, "length": length}
    model["positions"] = "learned"
  if size is not None:
    model["tokenizer"]["size"] = size
  if f"{_TEXT}.uncond_embedding" in state:
    length, features = state[f"{_TEXT}.uncond_embedding"].shape
    model["text"] = {"name": "features", "length": length, "width": features}
  elif f"{_TEXT}.embedding_table.weight" in state:
    table = state[f"{_TEXT}.embedding_table.weight"]
    model["num_classes"] = len(table) - 1
  else:
    raise UserError(f"not a transformer of {name}: there is no {_TEXT}")
  return {"system": "llamagen", "model": model}


def multiple(hidden: int, width: int) -> int:
  """The `multiple_of` that leads to this hidden width."""
  least = int(8 * width / 3)
  for multiple in (256, *(2**i for i in range(12, -1, -1)), hidden):
    if math.ceil(least / multiple) * multiple == hidden:
      return multiple
  raise UserError(
    f"an MLP of {hidden} for a width of {width}: no multiple leads there"
  )


def to_ours(
  state: State, *, heads: int | None = None, size: int | None = None
) -> dict[str, Any]:
  """`params`, and for texts `null`, of LlamaGen from an official state;
  arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  model = config(state, heads=heads, size=size)["model"]
  system = build("llamagen", **model)
  like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  like = {k: v for k, v in like.items() if k != "tokenizer"}
  return tables.to_ours(TABLE, state, like, ignore=("freqs_cis",))


def to_official(variables: Params) -> dict[str, np.ndarray]:
  """The official state of the variables of LlamaGen."""
  own = {k: v for k, v in variables.items() if k != "tokenizer"}
  return tables.to_official(TABLE, own)
