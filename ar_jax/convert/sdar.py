"""The key table of the dense layout of Qwen3, in which SDAR-{1.7B,4B,8B} are
published; models of one unit a step in it can be taken over as well.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ar_jax.convert import llama
from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from ar_jax.files import tables
from ar_jax.files.tables import Params, Rule, State
from ar_jax.systems.sdar import MASK_ID, QWEN

PLACE = ()
_LENGTH = 4096  # units of an example, of which no parameter depends


def _table(features: int) -> tuple[Rule, ...]:
  """The rules, of heads of so many features."""
  turned = tables.half_turned(features)
  return llama.rules(
    [
      Rule(
        f"{llama.ATTENTION}.{n}_norm.weight",
        f"{llama.MIXER}/norm/{n}/scale",
        turned,
      )
      for n in "qk"
    ]
  )


def config(state: State, *, size: int | None = None) -> dict[str, Any]:
  """The config of a state; all sizes are in its shapes. The code of what is
  hidden is the published one, or the last one of a smaller vocabulary.

  Args:
    state: official key -> array.
    size: units of an example, which no shape shows; 4096 if None.

  Raises:
    UserError: this is not such a file.
  """
  first = "model.layers.0"
  try:
    vocab, width = state[llama.EMBED].shape
    hidden = len(state[f"{first}.mlp.gate_proj.weight"])
    features = len(state[f"{first}.self_attn.q_norm.weight"])
    heads, kv_heads = (
      len(state[f"{first}.self_attn.{name}.weight"]) // features
      for name in llama.QKV[:2]
    )
  except KeyError as e:
    more = ": layers of experts are not supported" if "mlp" in e.args[0] else ""
    raise UserError(
      f"not of the dense layout of Qwen3: there is no {e.args[0]}{more}"
    ) from e
  tokens = dict(name="given", form="tokens", vocab=vocab, stop=None)
  tokens["length"] = _LENGTH if size is None else size
  model = QWEN | {
    "tokenizer": tokens,
    "depth": sum(key.endswith("input_layernorm.weight") for key in state),
    "width": width,
    "heads": heads,
    "kv_heads": kv_heads,
    "features": features,
    "hidden": hidden,
    "num_classes": 0,
    "prefix_rope": "line",
    "mask_id": MASK_ID if vocab > MASK_ID else vocab - 1,
  }
  return {"system": "sdar", "model": model}


def to_ours(state: State, *, size: int | None = None) -> dict[str, Any]:
  """Our variables from an official state; arguments as in `config`. Where the
  head is the table of codes, the file has no head of its own.

  Raises:
    UserError: the state is not one of this family.
  """
  model = config(state, size=size)["model"]
  system = build("sdar", **model)
  like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  state = {llama.HEAD: state[llama.EMBED]} | dict(state)
  features = model["features"]
  return llama.to_ours(_table(features), state, like["params"], features)


def to_official(variables: Params) -> dict[str, np.ndarray]:
  """The official state of our variables."""
  return llama.to_official(_table(llama.features_of(variables)), variables)
