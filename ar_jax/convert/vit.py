"""Vision transformers, as encoders of images: DINOv2, CLIP, ViT; see
`encoders.vit_files` for the layouts that are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from ar_jax.encoders import vit_files
from ar_jax.encoders.vit_files import HEADS as HEADS
from ar_jax.files.tables import Params, State

PLACE = ("params", "encoder")


def config(
  state: State, *, heads: int | None = None, size: int | None = None
) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array; of another tower beside it nothing is read.
    heads: of attention; the published number for that width if None.
    size: side to which images are brought; as they are if None.

  Raises:
    UserError: this is no such file, or its heads are not known.
  """
  layout, own = vit_files.of_layout(state)
  model = vit_files.described(layout, own, heads)
  if size is not None:
    model["size"] = size
  return {"system": "vit", "model": model}


def to_ours(
  state: State, *, heads: int | None = None, size: int | None = None
) -> dict[str, Any]:
  """The parameters of `vit.Encoder`; arguments as in `config`.

  Raises:
    UserError: this is no such file.
  """
  del size  # of no parameter
  return vit_files.read(state, heads)[1]


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state, as transformers writes it."""
  return vit_files.to_official(vit_files.written(params), params)
