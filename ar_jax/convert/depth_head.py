"""The head over depths of ASVR, in the layout of its released code, which is a
part of a file: `rqtransformer_semantic.*`. It is no family of its own.

The MLPs of all depths lie in one matrix there: the first as [hidden, D W],
hidden before depth before what is read, the second as [W, D hidden].
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.files.tables import State

PREFIX = "rqtransformer_semantic."
_LAYER = "head_transformer.{}."
_INPUTS = {"in_mlp_1": "code", "projector.0": "fc1", "projector.2": "fc2"}


def to_ours(state: State, heads_of: int | None = None) -> dict[str, Any]:
  """The `params` of a `nn.heads.depth.DepthHead`.

  Args:
    state: official key -> array, with PREFIX or without.
    heads_of: D, where it is not to be counted.

  Raises:
    UserError: something is missing, or of another shape.
  """
  state = {k.removeprefix(PREFIX): np.asarray(v) for k, v in state.items()}
  try:
    return _ours(state, heads_of)
  except KeyError as e:
    raise UserError(
      f"not a head of ASVR: there is no {e.args[0]} in the file"
    ) from e


def _ours(state: State, depth: int | None) -> dict[str, Any]:
  count = lambda pattern: sum(bool(re.fullmatch(pattern, k)) for k in state)
  depth = depth or count(r"heads\.\d+\.weight")
  params: dict[str, Any] = {}
  for theirs, ours in _INPUTS.items():
    params[ours] = {
      "kernel": state[f"{theirs}.weight"].T,
      "bias": state[f"{theirs}.bias"],
    }
  for i in range(count(r"head_transformer\.\d+\.layernorm1\.weight")):
    at = _LAYER.format(i)
    own = lambda name, at=at: state[at + name]
    biases = np.split(own("self_attention.in_proj_bias"), 3)
    wide, narrow = own("linear1.weight"), own("linear2.weight")
    width = len(narrow)
    params[f"layer_{i}"] = {
      "mixer": {
        "qkv": {"kernel": own("self_attention.in_proj_weight").T},
        **{f"bias_{n}": b for n, b in zip("qkv", biases, strict=True)},
        "out": {
          "kernel": own("self_attention.out_proj.weight").T,
          "bias": own("self_attention.out_proj.bias"),
        },
      },
      "norm1": {"scale": own("layernorm1.weight")},
      "norm2": {"scale": own("layernorm2.weight")},
      "fc1": wide.reshape(-1, depth, width).transpose(1, 2, 0),
      "fc2": narrow.reshape(width, depth, -1).transpose(1, 2, 0),
    }
  params["out_norm"] = {"scale": state["headnorm.weight"]}
  each = lambda name: [state[f"heads.{d}.{name}"] for d in range(depth)]
  params["kernel"] = np.stack([w.T for w in each("weight")])
  params["bias"] = np.stack(each("bias"))
  return params


def to_theirs(params: Any) -> dict[str, np.ndarray]:
  """The official keys, with PREFIX, of such `params`."""
  found = {}
  for theirs, ours in _INPUTS.items():
    found[f"{theirs}.weight"] = np.asarray(params[ours]["kernel"]).T
    found[f"{theirs}.bias"] = np.asarray(params[ours]["bias"])
  layers = sorted(k for k in params if k.startswith("layer_"))
  for i in range(len(layers)):
    own, at = params[f"layer_{i}"], _LAYER.format(i)
    mixer = own["mixer"]
    attention = f"{at}self_attention."
    found[f"{attention}in_proj_weight"] = np.asarray(mixer["qkv"]["kernel"]).T
    found[f"{attention}in_proj_bias"] = np.concatenate(
      [mixer[f"bias_{n}"] for n in "qkv"]
    )
    found[f"{attention}out_proj.weight"] = np.asarray(mixer["out"]["kernel"]).T
    found[f"{attention}out_proj.bias"] = np.asarray(mixer["out"]["bias"])
    for n in (1, 2):
      found[f"{at}layernorm{n}.weight"] = np.asarray(own[f"norm{n}"]["scale"])
    fc1, fc2 = np.asarray(own["fc1"]), np.asarray(own["fc2"])
    depth, width, hidden = fc1.shape
    flat = fc1.transpose(2, 0, 1).reshape(hidden, depth * width)
    found[f"{at}linear1.weight"] = flat
    flat = fc2.transpose(2, 0, 1).reshape(width, depth * hidden)
    found[f"{at}linear2.weight"] = flat
  found["headnorm.weight"] = np.asarray(params["out_norm"]["scale"])
  for d, (kernel, bias) in enumerate(
    zip(params["kernel"], params["bias"], strict=True)
  ):
    found[f"heads.{d}.weight"] = np.asarray(kernel).T
    found[f"heads.{d}.bias"] = np.asarray(bias)
  return {PREFIX + k: np.ascontiguousarray(v) for k, v in found.items()}
