"""The key table of M-VAR, d16, d20, d24 and d32: that of VAR's with a Mamba-2
layer in each block.

Its tokenizer is VAR's; see `convert/multiscale_vq.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ar_jax.convert import var
from ar_jax.convert.var import HEADS, PLACE
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Layout, Params, Rule, State

__all__ = ["HEADS", "PLACE", "TABLE", "config", "to_official", "to_ours"]

_THEIRS, _OURS = "blocks.{i}.mamba", "backbone/block/memory"
# A filter for each channel: [C, 1, W] there, [W, C] here.
_DEPTHWISE = Layout(lambda x: x[:, 0].T, lambda x: x.T[:, None])

TABLE = (
  *(r for r in var.TABLE if "shared" not in r.theirs and "gss" not in r.theirs),
  Rule(f"{_THEIRS}.in_proj.weight", f"{_OURS}/in/kernel", LINEAR),
  Rule(f"{_THEIRS}.conv1d.weight", f"{_OURS}/conv_kernel", _DEPTHWISE),
  Rule(f"{_THEIRS}.conv1d.bias", f"{_OURS}/conv_bias"),
  Rule(f"{_THEIRS}.dt_bias", f"{_OURS}/bias"),
  Rule(f"{_THEIRS}.A_log", f"{_OURS}/log_a"),
  Rule(f"{_THEIRS}.D", f"{_OURS}/skip"),
  Rule(f"{_THEIRS}.norm.weight", f"{_OURS}/norm/scale"),
  Rule(f"{_THEIRS}.out_proj.weight", f"{_OURS}/out/kernel", LINEAR),
)

# With the units of each scale.
IGNORE = (*var.IGNORE, "blocks.{i}.attn.patch_nums")


def config(
  state: State,
  scales: Sequence[int] | None = None,
  heads: int | None = None,
) -> dict[str, Any]:
  """The config of a state; arguments as those of `var.config`.

  Raises:
    UserError: this is not such a file, or its scales are not known.
  """
  try:
    channels = len(state["blocks.0.mamba.conv1d.weight"])
    groups = len(state["blocks.0.mamba.A_log"])
    inner = len(state["blocks.0.mamba.norm.weight"])
  except KeyError as e:
    raise UserError(f"not M-VAR: there is no {e.args[0]} in the file") from e
  model = var.config(state, scales, heads)["model"]
  del model["shared_ada"]
  own = {"features": inner // groups, "states": (channels - inner) // 2}
  return {"system": "m_var", "model": model | own}


def to_ours(
  state: State,
  scales: Sequence[int] | None = None,
  heads: int | None = None,
) -> dict[str, Any]:
  """The `params` of M-VAR from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  m_var = build("m_var", **config(state, scales, heads)["model"])
  like = jax.eval_shape(lambda key: m_var.init(key, {})["params"],
                        jax.random.key(0))  # fmt: skip
  return tables.to_ours(TABLE, state, like, ignore=IGNORE)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the `params` of M-VAR."""
  return tables.to_official(TABLE, params)
