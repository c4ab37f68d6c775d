"""Samples for an evaluator: what to ask for, and the pixels that come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ar_jax.core.system import System, UserError, Vars
from ar_jax.data import Dataset
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


def check_labels(labels: str) -> None:
  """Raises UserError unless this is a way of choosing labels."""
  if labels not in ("balanced", "uniform"):
    raise UserError(f"labels={labels!r}: must be 'balanced' or 'uniform'")


def described(system: System, labels: str) -> str:
  """What `conditions` does, for the protocol."""
  if system.needs == ("label",):
    return labels
  return f"{', '.join(system.needs) or 'nothing'} of the test split, in order"


def conditions(
  system: System, data: Dataset, n: int, labels: str = "balanced"
) -> dict[str, np.ndarray]:
  """What to draw: n labels, or what the system needs of test examples.

  Balanced labels take turns, so that any run of samples (a block of the
  Inception Score) has all classes. Uniform ones are drawn with a fixed seed.
  """
  if set(system.needs) <= {"label"}:
    label = np.arange(n) % data.num_classes
    if labels == "uniform":
      label = np.random.default_rng(0).integers(data.num_classes, size=n)
    return {"label": label.astype(np.int32)}
  rows = [data.test[i % len(data.test)] for i in range(n)]
  missing = [name for name in system.needs if name not in rows[0]]
  if missing:
    raise UserError(
      f"the system needs {', '.join(missing)}, which the examples of "
      f"{data.name!r} do not have"
    )
  return {name: np.stack([r[name] for r in rows]) for name in system.needs}


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
