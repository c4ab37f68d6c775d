"""The key table of VAR's transformer, `var_d{16,20,24,30,36}.pth`.

Its tokenizer comes in a file of its own; see `convert/multiscale_vq.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ar_jax.convert.heads import count
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Layout, Params, Rule, State, affine
from ar_jax.tokenizers.multiscale_vq import SCALES


def _axes(*shape: int) -> Layout:
  """Axes of size 1 that only the official array has."""
  ones = tuple(axis for axis, size in enumerate(shape) if size == 1)
  return Layout(lambda x: np.squeeze(x, ones), lambda x: np.reshape(x, shape))


# Axes of size 1 that only our array has: the last norm is a stack of one.
_ONE_LAYER = Layout(lambda x: x.T[None], lambda x: x[0].T)
_ONE_LAYER_BIAS = Layout(lambda x: x[None], lambda x: x[0])
# The parts of a modulation lie behind each other in our tables.
_PARTS = Layout(np.ravel, lambda x: np.reshape(x, (1, 1, 6, -1)))

# Where the converted tree belongs among the variables of the system.
PLACE = ("params",)

_THEIRS, _OURS = "blocks.{i}", "backbone/block"

TABLE = (
  *affine("word_embed", "latent", LINEAR),
  Rule("class_emb.weight", "label/embedding"),
  Rule("pos_start", "start", _axes(1, 1, -1)),
  Rule("pos_1LC", "slots/slot", Layout(lambda x: x[0], lambda x: x[None])),
  Rule("lvl_embed.weight", "slots/step"),
  Rule(f"{_THEIRS}.attn.mat_qkv.weight", f"{_OURS}/mixer/qkv/kernel", LINEAR),
  Rule(f"{_THEIRS}.attn.q_bias", f"{_OURS}/mixer/bias_q"),
  Rule(f"{_THEIRS}.attn.v_bias", f"{_OURS}/mixer/bias_v"),
  Rule(
    f"{_THEIRS}.attn.scale_mul_1H11",
    f"{_OURS}/mixer/norm/log_scale",
    _axes(1, -1, 1, 1),
  ),
  *affine(f"{_THEIRS}.attn.proj", f"{_OURS}/mixer/out", LINEAR),
  *affine(f"{_THEIRS}.ffn.fc1", f"{_OURS}/mlp/fc1", LINEAR),
  *affine(f"{_THEIRS}.ffn.fc2", f"{_OURS}/mlp/fc2", LINEAR),
  *affine(f"{_THEIRS}.ada_lin.1", "backbone/ada", LINEAR),
  *affine("shared_ada_lin.1", "backbone/ada/shared", LINEAR),
  Rule(f"{_THEIRS}.ada_gss", "backbone/ada/table", _PARTS),
  Rule("head_nm.ada_lin.1.weight", "backbone/out_ada/kernel", _ONE_LAYER),
  Rule("head_nm.ada_lin.1.bias", "backbone/out_ada/bias", _ONE_LAYER_BIAS),
  *affine("head", "head/linear", LINEAR),
)

# Constants: the level of each slot, the mask, and the bias that keys lack.
IGNORE = ("lvl_1L", "attn_bias_for_masking", f"{_THEIRS}.attn.zero_k_bias")


# Heads by width, where the file has no temperatures of them: one of 64 features
# for each layer.
HEADS = {64 * depth: depth for depth in (12, 16, 20, 24, 30, 32, 36)}


def stack(state: State, heads: int | None = None) -> dict[str, Any]:
  """What shapes tell of the stack, as arguments of the system, and of the
  units: `vocab` and `channels`.

  Args:
    state: official key -> array.
    heads: of attention; what the file says, else the published number for
      that width, if None.

  Raises:
    UserError: this is not such a file, or its heads are not known.
  """
  try:
    vocab, width = state["head.weight"].shape
    labels = len(state["class_emb.weight"])
    channels = state["word_embed.weight"].shape[1]
  except KeyError as e:
    raise UserError(
      f"not a transformer of VAR: there is no {e.args[0]} in the file"
    ) from e
  return {
    "vocab": vocab,
    "channels": channels,
    "depth": sum(key.endswith("ffn.fc1.bias") for key in state),
    "width": width,
    "heads": count(state, width, HEADS, heads, "VAR"),
    "num_classes": labels - 1,
    "qk_norm": "blocks.0.attn.scale_mul_1H11" in state,
    "shared_ada": "blocks.0.ada_gss" in state,
  }


def config(
  state: State,
  scales: Sequence[int] | None = None,
  heads: int | None = None,
) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    scales: sides of the maps; the published list of that length if None.
    heads: see `stack`.

  Raises:
    UserError: this is not such a file, or its scales or heads are not known.
  """
  model = stack(state, heads)
  if "lvl_embed.weight" not in state:
    raise UserError("not a transformer of VAR: there is no lvl_embed.weight")
  slots, steps = state["pos_1LC"].shape[1], len(state["lvl_embed.weight"])
  for published in SCALES.values():
    if scales is None and sum(p * p for p in published) == slots:
      scales = published
  if scales is None:
    raise UserError(
      f"{steps} scales of {slots} slots in all are no published list; "
      "say which with --scales=1,2,..."
    )
  if sum(p * p for p in scales) != slots or len(scales) != steps:
    raise UserError(
      f"scales={tuple(scales)} do not make the {slots} slots of {steps} scales "
      "that the file has"
    )
  units = {name: model.pop(name) for name in ("vocab", "channels")}
  units |= {"name": "multiscale_vq", "scales": tuple(scales)}
  return {"system": "var", "model": {"tokenizer": units, **model}}


def to_ours(
  state: State,
  scales: Sequence[int] | None = None,
  heads: int | None = None,
) -> dict[str, Any]:
  """The `params` of VAR from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  var = build("var", **config(state, scales, heads)["model"])
  like = jax.eval_shape(lambda key: var.init(key, {})["params"],
                        jax.random.key(0))  # fmt: skip
  return tables.to_ours(TABLE, state, like, ignore=IGNORE)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the `params` of VAR."""
  return tables.to_official(TABLE, params)
