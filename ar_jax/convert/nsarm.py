"""The key table of NSARM: Infinity's, and that of its network of maps.

The tokenizer comes in a file of its own; see `convert/bitwise.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ar_jax.convert import infinity
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import (
  CONV,
  LINEAR,
  Layout,
  Params,
  Rule,
  State,
  affine,
  norm,
)

PLACE = ("params",)

_FRONT = "map_transformer."
_PLACES = Layout(
  lambda x: np.transpose(x, (1, 2, 0)), lambda x: np.transpose(x, (2, 0, 1))
)


def _convolved(theirs: str, ours: str, count: int) -> tuple[Rule, ...]:
  """Rules of convolutions and their norms; every third place is a GELU."""
  rules = []
  for i in range(count):
    rules += affine(f"{theirs}.{3 * i}", f"{ours}/conv_{i}", CONV)
    at = f"{theirs}.{3 * i + 1}"
    rules.append(Rule(f"{at}.weight", f"{ours}/norm_{i}/scale", _PLACES))
    rules.append(Rule(f"{at}.bias", f"{ours}/norm_{i}/bias", _PLACES))
  return tuple(rules)


_LAYER, _BLOCK = "transformers.{i}.layers.{j}", "stacks_{i}/block"
_HEAD, _OURS = "output_projs.{i}", "end_{i}"

TABLE = (
  *_convolved("feature_extractor", "trunk", 3),
  *_convolved("feature_transforms.{i}", "front_{i}", 2),
  Rule(f"{_LAYER}.self_attn.qkv.weight", f"{_BLOCK}/mixer/qkv/kernel", LINEAR),
  *(
    Rule(f"{_LAYER}.self_attn.{x}.bias", f"{_BLOCK}/mixer/bias_{x}")
    for x in "qkv"
  ),
  *affine(f"{_LAYER}.self_attn.out_proj", f"{_BLOCK}/mixer/out", LINEAR),
  *affine(f"{_LAYER}.linear1", f"{_BLOCK}/mlp/fc1", LINEAR),
  *affine(f"{_LAYER}.linear2", f"{_BLOCK}/mlp/fc2", LINEAR),
  *norm(f"{_LAYER}.norm1", f"{_BLOCK}/norm1"),
  *norm(f"{_LAYER}.norm2", f"{_BLOCK}/norm2"),
  *affine(f"{_HEAD}.0", f"{_OURS}/fc1", LINEAR),
  *norm(f"{_HEAD}.1", f"{_OURS}/norm"),
  *affine(f"{_HEAD}.3", f"{_OURS}/fc2", LINEAR),
)


def parts(state: State) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """The network of maps and Infinity, each under its own keys."""
  cut = len(_FRONT)
  maps = {k[cut:]: v for k, v in state.items() if k.startswith(_FRONT)}
  return maps, {k: v for k, v in state.items() if not k.startswith(_FRONT)}


def config(
  state: State,
  scales: Sequence[Any] | None = None,
  heads: Sequence[int] | None = None,
) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    scales: as in `infinity.config`.
    heads: of the transformers of the maps; those of the published if None.

  Raises:
    UserError: this is not such a file.
  """
  maps, rest = parts(state)
  found = infinity.config(rest, scales, fold=True)["model"]
  try:
    grid = maps["feature_extractor.1.weight"].shape[1:]
    count = sum(bool(re.fullmatch(r"output_projs\.\d+\.0\.bias", k))
                for k in maps)  # fmt: skip
    dims = [len(maps[f"feature_transforms.{i}.3.bias"]) for i in range(count)]
    trunk = [len(maps[f"feature_extractor.{i}.bias"]) for i in (0, 3)]
  except KeyError as e:
    raise UserError(
      f"not an NSARM: there is no {_FRONT}{e.args[0]} in the file"
    ) from e
  layers = [
    sum(k.startswith(f"transformers.{i}.") and k.endswith("linear1.bias")
        for k in maps)
    for i in range(count)
  ]  # fmt: skip
  sizes = dict(dims=tuple(dims), layers=tuple(layers), trunk=tuple(trunk))
  if heads is not None:
    sizes["heads"] = tuple(heads)
  model = found | dict(grid=tuple(grid), maps=sizes, raw=True)
  return {"system": "nsarm", "model": model}


def to_ours(
  state: State,
  scales: Sequence[Any] | None = None,
  heads: Sequence[int] | None = None,
) -> dict[str, Any]:
  """The `params` of NSARM from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  maps, rest = parts(state)
  system = build("nsarm", **config(state, scales, heads)["model"])
  like = jax.eval_shape(system.fresh_maps, jax.random.key(0))
  renamed = {
    key.replace(".in_proj_", ".qkv."): array for key, array in maps.items()
  }
  own = tables.to_ours(TABLE, tables.split_biases(renamed), like)
  return {"net": infinity.to_ours(rest, scales, fold=True), "maps": own}


def to_official(params: Params, chunks: int = 8) -> dict[str, np.ndarray]:
  """The official state of the `params` of NSARM; see `infinity`."""
  state = tables.fuse(tables.to_official(TABLE, params["maps"]))
  maps = {
    _FRONT + re.sub(r"\.qkv\.(weight|bias)$", r".in_proj_\1", key): array
    for key, array in state.items()
  }
  return infinity.to_official(params["net"], chunks) | maps
