"""The key table of Janus and Janus-Pro, the half that draws.

A file also holds the tokenizer, which comes along where it is there, and what
understands images, which is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ar_jax.convert import vq
from ar_jax.convert.heads import count
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Params, Rule, State, affine
from ar_jax.systems.janus import WORDS

# The tree holds `params`, and `tokenizer` where the file does.
PLACE = ()

_MODEL = "language_model.model"
_LAYER, _OURS = f"{_MODEL}.layers.{{i}}", "backbone/block"
_TOKENIZER = "gen_vision_model."
_TABLE_OF_WORDS = f"{_MODEL}.embed_tokens.weight"
QKV = ("q_proj", "k_proj", "v_proj")


def _linear(theirs: str, ours: str) -> Rule:
  return Rule(f"{theirs}.weight", f"{ours}/kernel", LINEAR)


TABLE = (
  Rule(_TABLE_OF_WORDS, "prefix/reader/embedding"),
  _linear(f"{_LAYER}.self_attn.{''.join(QKV)}", f"{_OURS}/mixer/qkv"),
  _linear(f"{_LAYER}.self_attn.o_proj", f"{_OURS}/mixer/out"),
  _linear(f"{_LAYER}.mlp.gate_proj", f"{_OURS}/mlp/gate"),
  _linear(f"{_LAYER}.mlp.up_proj", f"{_OURS}/mlp/fc1"),
  _linear(f"{_LAYER}.mlp.down_proj", f"{_OURS}/mlp/fc2"),
  Rule(f"{_LAYER}.input_layernorm.weight", f"{_OURS}/norm1/scale"),
  Rule(f"{_LAYER}.post_attention_layernorm.weight", f"{_OURS}/norm2/scale"),
  Rule(f"{_MODEL}.norm.weight", "backbone/out_norm/scale"),
  Rule("gen_embed.weight", "units/embedding"),
  *affine("gen_aligner.layers.0", "units/fc1", LINEAR),
  *affine("gen_aligner.layers.2", "units/fc2", LINEAR),
  *affine("gen_head.output_mlp_projector", "head/fc1", LINEAR),
  *affine("gen_head.vision_head", "head/linear", LINEAR),
)
# Of understanding, and what is computed anew.
IGNORE = (
  "language_model.lm_head.weight",
  f"{_LAYER}.self_attn.rotary_emb.inv_freq",
)
_OTHERS = ("vision_model.", "aligner.", _TOKENIZER)

# Heads by width; the file does not tell.
HEADS = {2048: 16, 4096: 32}


def config(
  state: State,
  *,
  heads: int | None = None,
  size: int | None = None,
  words: Mapping[str, Any] = WORDS,
) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    heads: of attention, which no shape shows; the published number for that
      width if None.
    size: side of the images, which no shape shows; 384 if None.
    words: of texts: which id is padding, how long they may be.

  Raises:
    UserError: this is not such a file, or its heads are not known.
  """
  try:
    vocab, width = state[_TABLE_OF_WORDS].shape
    hidden = len(state[f"{_MODEL}.layers.0.mlp.gate_proj.weight"])
    codes, channels = state["gen_embed.weight"].shape
    head = len(state["gen_head.output_mlp_projector.weight"])
  except KeyError as e:
    raise UserError(
      f"not a Janus that draws: there is no {e.args[0]} in the file"
    ) from e
  tokenizer = {"name": "vq", "vocab": codes}
  if own := _tokenizer(state):
    tokenizer |= vq.config(own)["model"]
  tokenizer["size"] = size or 384
  model = {
    "tokenizer": tokenizer,
    "words": {**words, "vocab": vocab, "pad": min(words["pad"], vocab - 1)},
    "depth": sum(key.endswith("input_layernorm.weight") for key in state),
    "width": width,
    "heads": count(state, width, HEADS, heads, "Janus"),
    "hidden": hidden,
    "channels": channels,
    "head_width": head,
  }
  return {"system": "janus", "model": model}


def _tokenizer(state: State) -> dict[str, np.ndarray]:
  of = lambda key: key.startswith(_TOKENIZER)
  return {k.removeprefix(_TOKENIZER): v for k, v in state.items() if of(k)}


def turned(state: State, heads: int, back: bool = False) -> State:
  """The state with queries and keys as ours turn them, see
  `tables.half_turned`, or with `back` as theirs do; of `heads` heads."""

  def one(key, array):
    if not re.search(r"\.[qk]_proj\.weight$", key):
      return array
    layout = tables.half_turned(len(array) // heads)
    return layout.theirs(array) if back else layout.ours(array)

  return {key: one(key, array) for key, array in state.items()}


def to_ours(
  state: State, *, heads: int | None = None, size: int | None = None
) -> dict[str, Any]:
  """`params` of Janus from an official state, and its `tokenizer` where that
  is in it; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  model = config(state, heads=heads, size=size)["model"]
  system = build("janus", **model)
  like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  own = {k: v for k, v in state.items() if not k.startswith(_OTHERS)}
  own = tables.fuse(turned(own, model["heads"]), QKV)
  found = {"params": tables.to_ours(TABLE, own, like["params"], ignore=IGNORE)}
  if codes := _tokenizer(state):
    found["tokenizer"] = vq.to_ours(codes)
  return found


def to_official(
  variables: Params, *, heads: int | None = None
) -> dict[str, np.ndarray]:
  """The official state of the variables of Janus, without what understands
  images and without a tokenizer that is not `vq`.

  Args:
    variables: `params`, and perhaps `tokenizer`.
    heads: of attention; the published number for that width if None.
  """
  params = variables["params"]
  state = tables.to_official(TABLE, params)
  heads = heads or HEADS[params["prefix"]["reader"]["embedding"].shape[1]]
  state = turned(tables.split(state, QKV), heads, back=True)
  if "encoder" in variables.get("tokenizer", {}):
    codes = vq.to_official(variables["tokenizer"])
    state |= {_TOKENIZER + key: array for key, array in codes.items()}
  return dict(state)
