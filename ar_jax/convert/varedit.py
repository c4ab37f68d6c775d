"""The key table of VAREdit's transformers, `8B-512` and `8B-1024`: that of
Infinity's, whose first layer stands by itself here.

The tokenizer comes in a file of its own; see `convert/bitwise.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ar_jax.convert import infinity
from ar_jax.families.scale.referred import from_one_stack, to_one_stack
from ar_jax.files.tables import Params, State
from ar_jax.tokenizers.bitwise import SCALES

PLACE = ("params",)
_SIZE = 512  # pixels, of the smaller published model


def config(
  state: State,
  scales: Sequence[Any] | None = None,
  size: int | None = None,
  *,
  fold: bool | None = None,
) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    scales: of the maps, in units; those of square images of `size` if None.
    size: side of the images in pixels; 512 if None.
    fold: as of `infinity.config`.

  Raises:
    UserError: this is not such a file.
  """
  scales = scales or SCALES[size or _SIZE]
  found = infinity.config(state, scales, fold=fold)
  # The released weights were trained with places out of one table.
  model = {**found["model"], "rope_index": "table_1m"}
  return {"system": "varedit", "model": model}


def to_ours(
  state: State,
  scales: Sequence[Any] | None = None,
  size: int | None = None,
  *,
  fold: bool | None = None,
) -> dict[str, Any]:
  """The `params` of VAREdit from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  del size  # No parameter depends on it.
  return from_one_stack(infinity.to_ours(state, scales, fold=fold))


def to_official(params: Params, chunks: int = 8) -> dict[str, Any]:
  """The official state of the `params` of VAREdit; arguments as of
  `infinity.to_official`."""
  return infinity.to_official(to_one_stack(params), chunks)
