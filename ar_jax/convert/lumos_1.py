"""The key table of Lumos-1, a Llama with norms of queries and keys.

The published tokenizer, Cosmos, is a traced graph and cannot be converted.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ar_jax.convert import llama
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import Layout, Params, Rule, State
from ar_jax.systems.lumos_1 import WORDS, published_special

PLACE = ()
_TEXT = 256  # ids of a text, of which no parameter depends


def _table(features: int) -> tuple[Rule, ...]:
  """The rules, of heads of so many features."""
  turned = tables.half_turned(features)
  # Theirs have the shape [1, K].
  norm = Layout(lambda x: turned.ours(x[0]), lambda x: turned.theirs(x)[None])
  return llama.rules(
    [
      Rule(
        f"{llama.ATTENTION}.{n}_norm.{theirs}",
        f"{llama.MIXER}/norm/{n}/{ours}",
        norm,
      )
      for n in "qk"
      for theirs, ours in (("weight", "scale"), ("bias", "bias"))
    ]
  )


def config(
  state: State, *, size: int | None = None, frames: int | None = None
) -> dict[str, Any]:
  """The config of a state, of the published vocabulary.

  Args:
    state: official key -> array.
    size: side of the videos; 384 if None.
    frames: how many they are; 25 if None.

  Raises:
    UserError: this is not such a file.
  """
  first = "model.layers.0"
  try:
    width = state[llama.EMBED].shape[1]
    hidden = len(state[f"{first}.mlp.gate_proj.weight"])
    features = state[f"{first}.self_attn.q_norm.bias"].shape[-1]
    heads, kv_heads = (
      len(state[f"{first}.self_attn.{name}.weight"]) // features
      for name in llama.QKV[:2]
    )
  except KeyError as e:
    raise UserError(f"not of Lumos-1: there is no {e.args[0]}") from e
  size, frames, rate = size or 384, frames or 25, 12
  duration = max(1, round(frames / rate))
  model = dict(
    tokenizer=dict(name="video_fsq", size=size, frames=frames),
    depth=sum(key.endswith("input_layernorm.weight") for key in state),
    width=int(width),
    heads=heads,
    kv_heads=kv_heads,
    features=int(features),
    hidden=hidden,
    text=dict(length=_TEXT, words=WORDS, pad=1),
    special=published_special(size, size, duration, rate),
  )
  return {"system": "lumos_1", "model": model}


def to_ours(
  state: State, *, size: int | None = None, frames: int | None = None
) -> dict[str, Any]:
  """Our variables from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  return of_model(state, config(state, size=size, frames=frames)["model"])


def of_model(state: State, model: dict[str, Any]) -> dict[str, Any]:
  """Our variables from an official state, as a system of these arguments has
  them."""
  system = build("lumos_1", **model)
  like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  features = system.net.backbone.head_width(model["width"])
  return llama.to_ours(_table(features), state, like["params"], features)


def to_official(variables: Params) -> dict[str, np.ndarray]:
  """The official state of our variables."""
  return llama.to_official(_table(llama.features_of(variables)), variables)
