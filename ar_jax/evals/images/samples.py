"""Samples for an evaluator, as the pixels that would be stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ar_jax.core.system import System, UserError, Vars
from ar_jax.evals.images.sketch import CHUNK

Draw = Callable[..., np.ndarray]  # as `ar_jax.step.draw`


def to_uint8(images: np.ndarray) -> np.ndarray:
  """f[..., ] in [0, 1] -> u8: floor(255 x + 0.5) of the clipped value.

  Raises:
    UserError: a pixel is not a number, so nothing after it would be.
  """
  if not np.isfinite(images).all():
    raise UserError("the system draws pixels that are not finite; see its loss")
  return np.floor(np.clip(images, 0, 1) * 255 + 0.5).astype(np.uint8)


def chunks(
  system: System,
  variables: Vars,
  cond: Mapping[str, np.ndarray],
  key: jax.Array,
  *,
  batch: int,
  options: Mapping[str, Any] | None = None,
  draw: Draw | None = None,
) -> Iterator[np.ndarray]:
  """Chunks u8[n, H, W, C], one image per row of `cond`.

  The chunks are whole batches, so that only the last one is padded.
  """
  if draw is None:
    from ar_jax.step import draw  # evaluation without samples does not need it
  step = batch * max(1, CHUNK // batch)
  n = len(next(iter(cond.values())))
  for start in range(0, n, step):
    part = {k: v[start : start + step] for k, v in cond.items()}
    yield to_uint8(
      draw(
        system,
        variables,
        part,
        key,
        batch=min(batch, n),
        start=start,
        options=dict(options or {}),
      )
    )
