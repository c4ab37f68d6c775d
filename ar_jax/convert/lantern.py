"""The key table of LANTERN's drafters for LlamaGen.

A file holds the drafter alone: its target is a LlamaGen, converted before.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Params, Rule, State, affine

# The tree holds `params`, the drafter, and `target`.
PLACE = ()

_THEIRS = "layers.0"
_UNITS = "embed_tokens.weight"

TABLE = (
  *affine("fc", "fc", LINEAR),
  Rule(f"{_THEIRS}.self_attn.qkv_proj.weight", "mixer/qkv/kernel", LINEAR),
  Rule(f"{_THEIRS}.self_attn.o_proj.weight", "mixer/out/kernel", LINEAR),
  Rule(f"{_THEIRS}.mlp.gate_proj.weight", "mlp/gate/kernel", LINEAR),
  Rule(f"{_THEIRS}.mlp.up_proj.weight", "mlp/fc1/kernel", LINEAR),
  Rule(f"{_THEIRS}.mlp.down_proj.weight", "mlp/fc2/kernel", LINEAR),
  Rule(f"{_THEIRS}.post_attention_layernorm.weight", "norm/scale"),
)
_PARTS = ("q_proj", "k_proj", "v_proj")
_JOINED = "q_projk_projv_proj"

# The target's own, and what its positions are.
IGNORE = (_UNITS, "freqs_cis", "layers.{i}.self_attn.rotary_emb.inv_freq")


def config(state: State) -> dict[str, Any]:
  """The config of a state; its `target` is to be put in.

  Raises:
    UserError: this is not such a file.
  """
  for key in ("fc.weight", _UNITS, f"{_THEIRS}.self_attn.q_proj.weight"):
    if key not in state:
      raise UserError(f"not a drafter of LANTERN: there is no {key}")
  if f"{_THEIRS}.input_layernorm.weight" in state:
    raise UserError("a drafter with a norm before its layer is none of LANTERN")
  return {"system": "lantern", "model": {"eps": 1e-6}}


def drafter(state: State) -> dict[str, Any]:
  """The `params` of the drafter from an official state.

  Raises:
    UserError: the state is not one of this family.
  """
  config(state)
  width, hidden = (
    len(state[key]) for key in ("fc.weight", f"{_THEIRS}.mlp.gate_proj.weight")
  )
  shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, np.float32)
  like = {
    "fc": {"kernel": shape(2 * width, width), "bias": shape(width)},
    "mixer": {
      "qkv": {"kernel": shape(width, 3 * width)},
      "out": {"kernel": shape(width, width)},
    },
    "mlp": {
      "gate": {"kernel": shape(width, hidden)},
      "fc1": {"kernel": shape(width, hidden)},
      "fc2": {"kernel": shape(hidden, width)},
    },
    "norm": {"scale": shape(width)},
  }
  joined = {
    key.replace(_JOINED, "qkv_proj"): array
    for key, array in tables.fuse(state, _PARTS).items()
  }
  return tables.to_ours(TABLE, joined, like, ignore=IGNORE)


def to_ours(state: State) -> dict[str, Any]:
  """`params` of LANTERN without its target; see `join`."""
  return {"params": drafter(state)}


def join(
  state: State, variables: Params, target: Params, given: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The variables and the config of LANTERN over its target.

  Args:
    state: official.
    variables: what `to_ours` made of it.
    target: variables of the target.
    given: config of the target, {"system": name, "model": arguments}.

  Raises:
    UserError: the drafter was made for another target.
  """
  if given["system"] != "llamagen":
    raise UserError(
      f"the target is a {given['system']}; LANTERN's drafters are those of a "
      "llamagen"
    )
  units = np.asarray(target["params"]["units"]["embedding"])
  theirs = np.asarray(state[_UNITS], np.float32)
  # The drafter reads the target's units, perhaps saved with fewer digits.
  near = units.shape == theirs.shape and np.allclose(
    units, theirs, rtol=1e-2, atol=1e-2 * np.abs(units).max()
  )
  if not near:
    raise UserError(
      "the drafter was made for another target: its units are not embedded as "
      "those of --target"
    )
  params = variables["params"]
  rest = {k: v for k, v in target.items() if k != "params"}
  both = {"params": params, "target": target["params"], **rest}
  model = config(state)["model"]
  model["target"] = {"name": given["system"], **given["model"]}
  return both, {"system": "lantern", "model": model}


def to_official(variables: Params) -> dict[str, np.ndarray]:
  """The official state of the variables of LANTERN."""
  state = tables.to_official(TABLE, variables["params"])
  state = {k.replace("qkv_proj", _JOINED): v for k, v in state.items()}
  state = tables.split(state, _PARTS)
  units = variables["target"]["units"]["embedding"]
  return {_UNITS: np.asarray(units), **state}
