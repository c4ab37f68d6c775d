"""The key table of EAR's fine-tuned layers of Janus-Pro.

A file holds queries, keys, values and outputs of the first layers, "layers.0.
self_attn.q_proj": {"weight": ...}, and nothing else: what it belongs to is a
Janus, converted before (--target).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ar_jax.convert.janus import QKV, turned
from ar_jax.core.errors import UserError
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Params, Rule, State

# The tree holds `params`, `target` and what else the target has.
PLACE = ()

_LAYER = "layers.{i}.self_attn"
_FIRST = "layers.0.self_attn.q_proj.weight"
TABLE = (
  Rule(f"{_LAYER}.{''.join(QKV)}.weight", "qkv/kernel", LINEAR),
  Rule(f"{_LAYER}.o_proj.weight", "out/kernel", LINEAR),
)
IGNORE = (f"{_LAYER}.rotary_emb.inv_freq",)


def flat(content: Any) -> Any:
  """What a file holds, its dicts by module with the names of one state."""
  if not isinstance(content, Mapping):
    return content
  found = {}
  for name, value in content.items():
    if isinstance(value, Mapping):
      found |= {f"{name}.{k}": v for k, v in value.items()}
    else:
      found[name] = value
  return found


def config(state: State) -> dict[str, Any]:
  """The config of a state; its `target` is to be put in.

  Raises:
    UserError: this is not such a file.
  """
  if _FIRST not in state:
    raise UserError(f"no layers of EAR: there is no {_FIRST} in the file")
  numbers = [re.match(r"layers\.(\d+)\.", key) for key in state]
  last = max(int(found[1]) for found in numbers if found)
  return {"system": "ear", "model": {"layers": last + 1}}


def to_ours(state: State) -> dict[str, Any]:
  """Nothing yet: how queries and keys lie depends on the heads of the target;
  see `join`."""
  config(state)
  return {}


def trained(state: State, heads: int) -> dict[str, Any]:
  """The `params` of EAR, of an official state over a model of `heads`.

  Raises:
    UserError: the state is not one of this family.
  """
  layers, width = config(state)["model"]["layers"], len(state[_FIRST])
  shape = lambda n: jax.ShapeDtypeStruct((layers, width, n), np.float32)
  like = {
    "qkv": {"kernel": shape(3 * width)},
    "out": {"kernel": shape(width)},
  }
  own = tables.fuse(turned(state, heads), QKV)
  return tables.to_ours(TABLE, own, like, ignore=IGNORE)


def join(
  state: State, variables: Params, target: Params, given: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The variables and the config of EAR over its target.

  Args:
    state: official.
    variables: what `to_ours` made of it: nothing.
    target: variables of the target.
    given: config of the target, {"system": name, "model": arguments}.

  Raises:
    UserError: the layers were made for another target.
  """
  del variables
  if given["system"] != "janus":
    raise UserError(
      f"the target is a {given['system']}; EAR's layers are those of a janus"
    )
  model = given["model"]
  layers, width = config(state)["model"]["layers"], len(state[_FIRST])
  if width != model["width"] or layers >= model["depth"]:
    raise UserError(
      f"{layers} layers of width {width} for a target of {model['depth']} "
      f"layers of width {model['width']}: they were made for another one"
    )
  rest = {k: v for k, v in target.items() if k != "params"}
  own = trained(state, model["heads"])
  both = {"params": own, "target": target["params"], **rest}
  spec = {"name": "janus", **model}
  # What it was trained with, no file tells.
  options = {"layers": layers, "window": None, "target": spec}
  return both, {"system": "ear", "model": options}


def to_official(variables: Params, *, heads: int) -> dict[str, np.ndarray]:
  """The official state of the trained layers, by flat names; of `heads`."""
  state = tables.to_official(TABLE, variables["params"])
  return dict(turned(tables.split(state, QKV), heads, back=True))
