"""The key table of FlexVAR's transformer, d16, d20 and d24: that of VAR's with
one table of positions and no levels.

SAR's published weights have the same keys. The tokenizer comes in a file of
its own; see `convert/flex_vq.py`.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ar_jax.convert import var
from ar_jax.convert.var import HEADS, IGNORE, PLACE
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import Layout, Params, Rule, State

__all__ = ["HEADS", "PLACE", "TABLE", "config", "to_official", "to_ours"]

# Channels come first in theirs, behind an axis of size 1.
_GRID = Layout(
  lambda x: np.moveaxis(x[0], 0, -1), lambda x: np.moveaxis(x, -1, 0)[None]
)

TABLE = (
  *(r for r in var.TABLE if r.theirs not in ("pos_1LC", "lvl_embed.weight")),
  Rule("pos_1LC", "slots/table", _GRID),
)


def config(state: State, heads: int | None = None) -> dict[str, Any]:
  """The config of a state, as far as shapes tell; `heads` as in `var.stack`.

  Raises:
    UserError: this is not such a file, or its heads are not known.
  """
  model = var.stack(state, heads)
  grid = np.shape(state.get("pos_1LC", ()))
  if len(grid) != 4 or grid[2] != grid[3]:
    raise UserError("not a transformer of FlexVAR: pos_1LC is no square table")
  units = {name: model.pop(name) for name in ("vocab", "channels")}
  return {
    "system": "flexvar",
    "model": {
      "tokenizer": {"name": "flex_vq", **units},
      **model,
      "grid": grid[-1],
      "lists": {},
    },
  }


def to_ours(state: State, heads: int | None = None) -> dict[str, Any]:
  """The `params` of FlexVAR from an official state.

  Raises:
    UserError: the state is not one of this family.
  """
  flexvar = build("flexvar", **config(state, heads)["model"])
  like = jax.eval_shape(lambda key: flexvar.init(key, {})["params"],
                        jax.random.key(0))  # fmt: skip
  return tables.to_ours(TABLE, state, like, ignore=IGNORE)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the `params` of FlexVAR."""
  return tables.to_official(TABLE, params)
