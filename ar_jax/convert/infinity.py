"""The key table of Infinity's transformers, `infinity_2b_reg`, `infinity_8b`.

The tokenizer comes in a file of its own; see `convert/bitwise.py`. Layers lie
in chunks there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ar_jax.convert import var
from ar_jax.core.plans import aspects
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Layout, Params, Rule, State, affine
from ar_jax.tokenizers.bitwise import SCALES, frozen_scales

PLACE = ("params",)

_FLAT = Layout(np.ravel, lambda x: np.reshape(x, (1, 1, -1)))
_FIRST = Layout(lambda x: x[0], lambda x: x[None])
_THEIRS, _OURS = "blocks.{i}", "backbone/block"
_POOL = "text_proj_for_sos.ca"
# Rules of VAR's whose names are the same here.
_SHARED = tuple(
  rule
  for rule in var.TABLE
  if rule.theirs.startswith(("word_embed", "head", "shared_ada_lin"))
  or re.search(r"ffn|ada_gss", rule.theirs)
)

TABLE = (
  *_SHARED,
  Rule("cfg_uncond", "text/null"),
  Rule("text_norm.weight", "text/norm/scale"),
  Rule(f"{_POOL}.mat_q", "text/pool/query", _FIRST),
  Rule(f"{_POOL}.mat_kv.weight", "text/pool/key_value/kernel", LINEAR),
  Rule(f"{_POOL}.v_bias", "text/pool/bias_v"),
  *affine(f"{_POOL}.proj", "text/pool/out", LINEAR),
  *affine("text_proj_for_ca.0", "text/fc1", LINEAR),
  *affine("text_proj_for_ca.2", "text/fc2", LINEAR),
  Rule("pos_start", "start", _FLAT),
  Rule("lvl_embed.weight", "level"),
  Rule(f"{_THEIRS}.sa.mat_qkv.weight", f"{_OURS}/mixer/qkv/kernel", LINEAR),
  Rule(f"{_THEIRS}.sa.q_bias", f"{_OURS}/mixer/bias_q"),
  Rule(f"{_THEIRS}.sa.v_bias", f"{_OURS}/mixer/bias_v"),
  Rule(
    f"{_THEIRS}.sa.scale_mul_1H11",
    f"{_OURS}/mixer/norm/log_scale",
    Layout(np.ravel, lambda x: np.reshape(x, (1, -1, 1, 1))),
  ),
  *affine(f"{_THEIRS}.sa.proj", f"{_OURS}/mixer/out", LINEAR),
  Rule(f"{_THEIRS}.ca.mat_q.weight", f"{_OURS}/cross/query/kernel", LINEAR),
  Rule(f"{_THEIRS}.ca.mat_q.bias", f"{_OURS}/cross/bias_q"),
  Rule(
    f"{_THEIRS}.ca.mat_kv.weight", f"{_OURS}/cross/key_value/kernel", LINEAR
  ),
  Rule(f"{_THEIRS}.ca.v_bias", f"{_OURS}/cross/bias_v"),
  *affine(f"{_THEIRS}.ca.proj", f"{_OURS}/cross/out", LINEAR),
  *tables.norm(f"{_THEIRS}.ca_norm", f"{_OURS}/cross_norm"),
)

# Keys have no bias; its place is held.
IGNORE = (
  f"{_POOL}.zero_k_bias",
  f"{_THEIRS}.sa.zero_k_bias",
  f"{_THEIRS}.ca.zero_k_bias",
)

_CHUNKS = 8  # of the published models
_FOLDED = 56  # bits of a unit of those that fold 2 x 2 cells


def flattened(state: State) -> dict[str, np.ndarray]:
  """The state with its layers in one list: block_chunks.c.module.m is layer
  c N / chunks + m."""
  found = re.compile(r"block_chunks\.(\d+)\.module\.(\d+)\.(.*)")
  parts = {key: found.fullmatch(key) for key in state}
  inside = [int(m.group(2)) for m in parts.values() if m]
  each = max(inside, default=0) + 1

  def name(key):
    m = parts[key]
    if m is None:
      return key
    return f"blocks.{int(m.group(1)) * each + int(m.group(2))}.{m.group(3)}"

  return {name(key): array for key, array in state.items()}


def _chunked(state: State, chunks: int) -> dict[str, np.ndarray]:
  """Undoes `flattened`; a single chunk has no name."""
  found = re.compile(r"blocks\.(\d+)\.(.*)")
  layers = {int(m.group(1)) for m in map(found.fullmatch, state) if m}
  chunks = chunks if len(layers) % chunks == 0 else 1
  each = len(layers) // chunks

  def name(key):
    m = found.fullmatch(key)
    if m is None or chunks == 1:
      return key
    chunk, place = divmod(int(m.group(1)), each)
    return f"block_chunks.{chunk}.module.{place}.{m.group(2)}"

  return {name(key): array for key, array in state.items()}


def config(
  state: State,
  scales: Sequence[Any] | None = None,
  *,
  fold: bool | None = None,
) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    scales: of the maps, in units; those of square images of a megapixel if
      None: the same weights serve every list.
    fold: whether 2 x 2 cells are one unit; if None, where a unit has 56 bits,
      as the published 8B.

  Raises:
    UserError: this is not such a file.
  """
  state = flattened(state)
  try:
    width, bits = state["word_embed.weight"].shape
    heads = state["blocks.0.sa.scale_mul_1H11"].size
    length, channels = state["cfg_uncond"].shape
    levels = len(state["lvl_embed.weight"])
  except KeyError as e:
    raise UserError(
      f"not a transformer of Infinity: there is no {e.args[0]} in the file"
    ) from e
  fold = bits == _FOLDED if fold is None else fold
  scales = SCALES[1024] if scales is None else frozen_scales(scales)
  return {
    "system": "infinity",
    "model": {
      "tokenizer": {
        "name": "bitwise",
        "bits": bits // 4 if fold else bits,
        "scales": scales,
        "fold": fold,
      },
      "depth": sum(key.endswith("ffn.fc1.bias") for key in state),
      "width": width,
      "heads": heads,
      "text": {"name": "features", "length": length, "width": channels},
      "levels": levels,
      "ground": aspects.ground(1.0),
      "pairs": True,
    },
  }


def to_ours(
  state: State,
  scales: Sequence[Any] | None = None,
  *,
  fold: bool | None = None,
) -> dict[str, Any]:
  """The `params` of Infinity from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  model = config(state, scales, fold=fold)["model"]
  system = build("infinity", **model)
  like = jax.eval_shape(system.fresh_net, jax.random.key(0))
  return tables.to_ours(TABLE, flattened(state), like, ignore=IGNORE)


def to_official(params: Params, chunks: int = _CHUNKS) -> dict[str, np.ndarray]:
  """The official state of the `params` of Infinity, its layers in so many
  chunks, if they can be."""
  return _chunked(tables.to_official(TABLE, params), chunks)
