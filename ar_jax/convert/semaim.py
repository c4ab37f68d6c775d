"""The key table of SemAIM's own files."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from ar_jax.core.system import UserError, build
from ar_jax.encoders.vit_files import AS_PATCHES, FIRST, HEADS
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Params, Rule, State, affine, norm

PLACE = ("params",)
_CONTENT, _QUERY = "blocks.{i}", "query_blocks.{i}"
_OURS = {_CONTENT: "streams/block", _QUERY: "streams/query"}


def _layer(theirs: str) -> tuple[Rule, ...]:
  ours = _OURS[theirs]
  return (
    *norm(f"{theirs}.norm1", f"{ours}/norm1"),
    *(Rule(f"{theirs}.attn.{x}.bias", f"{ours}/mixer/bias_{x}") for x in "qkv"),
    *affine(f"{theirs}.attn.proj", f"{ours}/mixer/out", LINEAR),
    *norm(f"{theirs}.norm2", f"{ours}/norm2"),
    *affine(f"{theirs}.mlp.fc1", f"{ours}/mlp/fc1", LINEAR),
    *affine(f"{theirs}.mlp.fc2", f"{ours}/mlp/fc2", LINEAR),
  )


def _matrix(theirs: str, ours: str) -> Rule:
  return Rule(f"{theirs}.weight", f"{ours}/kernel", LINEAR)


_BOTH = (
  Rule("cls_token", "token", FIRST),
  Rule("patch_embed.proj.weight", "embed/kernel", AS_PATCHES),
  Rule("patch_embed.proj.bias", "embed/bias"),
  *_layer(_CONTENT),
  _matrix(f"{_CONTENT}.attn.qkv", "streams/block/mixer/qkv"),
  *_layer(_QUERY),
  _matrix(f"{_QUERY}.attn.q", "streams/query/mixer/query"),
  _matrix(f"{_QUERY}.attn.kv", "streams/query/mixer/key_value"),
  *norm("norm", "norm"),
)
_MLP = (
  *affine("prediction_head.fc1", "fc1", LINEAR),
  *affine("prediction_head.fc2", "fc2", LINEAR),
)
TABLES = {"mlp": (*_BOTH, *_MLP)}
TABLES["linear"] = (*_BOTH, *affine("prediction_head", "fc2", LINEAR))
IGNORE = ("pos_embed", "gaussian_blur.weight")  # which follow from sizes


def _head(state: State) -> str:
  return "linear" if "prediction_head.weight" in state else "mlp"


def config(
  state: State, *, heads: int | None = None, size: int | None = None
) -> dict[str, Any]:
  """The config of a state, as far as shapes tell: of pixels as its target and
  the published order.

  Args:
    state: official key -> array.
    heads: of attention; the published number for that width if None.
    size: side of the images; of a file without `pos_embed` 224 if None.

  Raises:
    UserError: this is no such file, or its heads are not known.
  """
  kernel = state.get("patch_embed.proj.weight")
  if kernel is None or "query_blocks.0.attn.q.weight" not in state:
    raise UserError("not a file of SemAIM: it has no query_blocks")
  width, channels, patch, _ = kernel.shape
  heads = heads or HEADS.get(width)
  if heads is None:
    raise UserError(
      f"how many heads has it? No file tells, and width {width} is no "
      "published one: say it with --heads=N"
    )
  if size is None and "pos_embed" in state:
    size = patch * math.isqrt(state["pos_embed"].shape[1])
  head = _head(state)
  last = "prediction_head.fc2" if head == "mlp" else "prediction_head"
  if len(state[f"{last}.bias"]) != patch**2 * channels:
    raise UserError(
      "this file of SemAIM predicts features of a teacher, which it does not "
      "hold"
    )
  count = lambda name: (
    1 + max(int(k.split(".")[1]) for k in state if k.startswith(name))
  )
  model = dict(depth=count("blocks."), query_depth=count("query_blocks."))
  model |= dict(width=width, heads=heads, patch=patch, channels=channels)
  model |= dict(side=(size or 224) // patch, head=head)
  if channels == 3:
    model["normal"] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]
  return {"system": "semaim", "model": model}


def to_ours(
  state: State, *, heads: int | None = None, size: int | None = None
) -> dict[str, Any]:
  """The parameters of `SemAIM`; arguments as in `config`.

  Raises:
    UserError: as in `config`, or the file is not whole.
  """
  made = config(state, heads=heads, size=size)
  system = build(made["system"], **made["model"])
  like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  query = {k: x for k, x in state.items() if _is_query(k)}
  rest = {k: x for k, x in state.items() if k not in query}
  found = tables.split_biases(rest)
  found |= tables.fuse(query, ("k", "v"))
  return tables.to_ours(
    TABLES[_head(state)], found, like["params"], ignore=IGNORE
  )


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state, without what follows from sizes."""
  head = "mlp" if "fc1" in params else "linear"
  state = tables.to_official(TABLES[head], params)
  content = {k: x for k, x in state.items() if k.startswith("blocks.")}
  rest = {k: x for k, x in state.items() if k not in content}
  return tables.fuse(content) | tables.split(rest, ("k", "v"))


def _is_query(key: str) -> bool:
  """Whether it is a weight of the queries' attention."""
  return key.startswith("query_blocks.") and key.endswith(".weight")
