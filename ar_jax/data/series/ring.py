"""Points in the plane: normal laws around a ring."""

from __future__ import annotations

import numpy as np

from ar_jax.core import forms
from ar_jax.core.errors import UserError
from ar_jax.data.dataset import Arrays, Dataset


def centres(modes: int = 8, radius: float = 1.4) -> np.ndarray:
  """f64[modes, 2]: the means."""
  turn = 2 * np.pi * np.arange(modes) / modes
  return radius * np.stack([np.cos(turn), np.sin(turn)], 1)


def near(x: np.ndarray, modes: int, radius: float, std: float) -> float:
  """The share of points [N, ...] of two numbers each that lie within three
  deviations of a mean; 0.989 of the law itself."""
  gap = np.reshape(x, (-1, 1, 2)) - centres(modes, radius)
  return float((np.linalg.norm(gap, axis=-1).min(1) < 3 * std).mean())


def ring(
  *,
  modes: int = 8,
  radius: float = 1.4,
  std: float = 0.07,
  count: int = 20_000,
  test: float = 0.2,
  seed: int = 0,
  length: int = 1,
) -> Dataset:
  """Points of equally many normal laws whose means lie on a ring.

  From: a rule.
  Command: --config.data.name=ring
  Fields: series, label.

  `label` is the law that a point is of.

  Args:
    modes: laws.
    radius: of the ring.
    std: deviation of each coordinate.
    count: points.
    test: share of them, at the end.
    seed: of the draws.
    length: a point as a series of 1 time of 2 values, or of 2 times of 1.

  Raises:
    UserError: an option is out of range.
  """
  if modes < 1 or length not in (1, 2) or not 0 < test < 1 or count < 2:
    raise UserError(
      f"data: modes={modes}, length={length}, test={test}, count={count}: at "
      "least one law, 1 or 2 times, a share between 0 and 1, two points"
    )
  rng = np.random.default_rng((seed, 0))
  label = rng.integers(0, modes, count)
  x = centres(modes, radius)[label] + std * rng.normal(size=(count, 2))
  x = x.astype(np.float32).reshape(count, length, 2 // length)
  split = min(max(int(count * (1 - test)), 1), count - 1)

  def rows(part):
    fields = {"series": x[part], "label": label[part]}
    return Arrays(fields, num_classes=modes, where="ring")

  return Dataset(
    "ring",
    rows(slice(None, split)),
    rows(slice(split, None)),
    num_classes=modes,
    class_names=tuple(map(str, range(modes))),
    digest="rule 1",
    forms={"series": forms.Series(("x", "y")[: 2 // length])},
  )
