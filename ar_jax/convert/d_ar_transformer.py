"""The key table of D-AR's transformers over codes: LlamaGen's, whose rotations
are those of a line, which the file does not tell.

The tokenizer comes in a file of its own; see `convert/d_ar.py`.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ar_jax.convert import llamagen
from ar_jax.convert.llamagen import HEADS, TABLE, to_official
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import State

__all__ = ["HEADS", "PLACE", "config", "to_official", "to_ours"]
PLACE = ()


def config(
  state: State, *, heads: int | None = None, size: int | None = None
) -> dict[str, Any]:
  """The config of a state, as far as shapes tell; arguments as in
  `llamagen.config`.

  Raises:
    UserError: this is not such a file.
  """
  found = llamagen.config(state, heads=heads, size=size, name="D-AR")
  model = found["model"]
  if "positions" in model or "num_classes" not in model:
    raise UserError("not a transformer of D-AR: those are of classes, rotated")
  codes = {"name": "d_ar", "vocab": model["tokenizer"]["vocab"]}
  if size is not None:
    codes["size"] = size
  model.update(tokenizer=codes, prefix_rope="line")
  return found


def to_ours(
  state: State, *, heads: int | None = None, size: int | None = None
) -> dict[str, Any]:
  """`params` of LlamaGen over D-AR's codes from an official state; arguments
  as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  system = build("llamagen", **config(state, heads=heads, size=size)["model"])
  shapes = jax.eval_shape(lambda key: system.init_net(key), jax.random.key(0))
  like = {"params": dict(shapes["params"])}
  own = tables.to_ours(TABLE, state, like, ignore=("freqs_cis",))
  return {k: jax.tree.map(np.asarray, v) for k, v in own.items()}
