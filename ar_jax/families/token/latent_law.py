"""What the latents of a tokenizer are like over a data set, on the host.

Shapes: B batch, L latents, C channels, V codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.nn.quantize import clusters

_MOST, _AT_ONCE = 512, 16  # examples


class Law(NamedTuple):
  """The law of latents.

  Attributes:
    mean, deviation: f32[C] each.
    rows: f64[n, C], the means of latents, brought to mean 0 and deviation 1.
  """

  mean: np.ndarray
  deviation: np.ndarray
  rows: np.ndarray


def measured(
  encode: Callable[[dict], tuple], source: Any, fields: Sequence[str]
) -> Law:
  """The law of the latents of the first examples, 512 at most.

  Args:
    encode: a batch -> means f32[B, L, C] and variances f32[B, L, C] of its
      latents, and which count, bool[B, L].
    source: of the examples, see `data.dataset`.
    fields: that are read, where they are there.
  """
  means, squares, rows = 0.0, 0.0, []
  for i in range(0, min(len(source), _MOST), _AT_ONCE):
    # All batches are of one shape: the last goes round.
    examples = [source[j % len(source)] for j in range(i, i + _AT_ONCE)]
    batch = {
      k: np.stack([e[k] for e in examples]) for k in fields if k in examples[0]
    }
    mean, variance, real = jax.device_get(encode(batch))
    real = real & (i + np.arange(_AT_ONCE) < len(source))[:, None]
    mean, variance = (x[real].astype(np.float64) for x in (mean, variance))
    means = means + mean.sum(0)
    squares = squares + (np.square(mean) + variance).sum(0)
    rows.append(mean)
  rows = np.concatenate(rows)
  mean = means / len(rows)
  deviation = np.sqrt(np.maximum(squares / len(rows) - mean**2, 1e-12))
  f32 = lambda x: np.asarray(x, np.float32)
  return Law(f32(mean), f32(deviation), (rows - mean) / deviation)


def codes(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
  """f32[V, C]: the middles of so many clusters of rows f64[n, C].

  Raises:
    UserError: there are fewer rows.
  """
  if len(rows) < count:
    raise UserError(
      f"codes={count}: the first examples have {len(rows)} latents"
    )
  label = clusters.kmeans(rows, count, seed, restarts=1)
  middles = [rows[label == k].mean(0) for k in range(count)]
  return np.asarray(middles, np.float32)
