"""Masked models in numbers: how many units training hides, and how guidance
grows with those that are known.

Shapes: L units, K steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError, check_choice

Array = jax.Array
SCHEDULES = ("linear", "constant")


def visible(length: int, low: float) -> int:
  """How many units are seen at most where at least the share `low` of L is
  hidden; one at least, so that there is a row for it."""
  return max(1, length - math.ceil(length * low))


def hidden(key: Array, length: int, low: float, std: float | None) -> Array:
  """i32[]: how many of L units to hide, at least one (MAR).

  Args:
    key: of the draw.
    length: L.
    low: at least this share.
    std: the share is normal about 1 with this deviation, between `low` and 1;
      None is uniform between the two.
  """
  if std is None:
    share = jax.random.uniform(key, (), minval=low, maxval=1.0)
  else:
    drawn = jax.random.truncated_normal(key, (low - 1) / std, 0.0)
    share = 1 + std * drawn
  least = max(1, length - visible(length, low))
  return jnp.clip(jnp.ceil(length * share).astype(jnp.int32), least, length)


def scales(guidance: float, schedule: str, sizes: Sequence[int]) -> np.ndarray:
  """f32[K], the scale of guidance of every step.

  Args:
    guidance: at the end.
    schedule: "linear": it grows from 1 with the units that are known after a
      step, of which the published samplers count one too few at the last: it
      ends at 1 + (guidance - 1) (L - 1) / L; or "constant".
    sizes: units of each step.

  Raises:
    UserError: guidance is negative, or there is no such schedule.
  """
  if not guidance >= 0:
    raise UserError(f"guidance={guidance}: must be at least 0; 1.0 is off")
  check_choice("schedule", schedule, SCHEDULES)
  length = sum(sizes)
  share = np.minimum(np.cumsum(sizes), max(1, length - 1)) / length
  if schedule == "constant":
    share = np.ones(len(sizes))
  return (1 + (guidance - 1) * share).astype(np.float32)
