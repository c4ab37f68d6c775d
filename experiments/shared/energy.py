"""The energy distance of two samples, and its permutation test.

2 E|X - Y| - E|X - X'| - E|Y - Y'| is 0 of equal laws and positive of all others
(Szekely and Rizzo, 2013).
"""

from __future__ import annotations

import numpy as np


def _apart(z: np.ndarray) -> np.ndarray:
  """f32[N, N], distances of f32[N, D]."""
  square = np.sum(z * z, 1)
  gap = square[:, None] + square[None] - 2 * z @ z.T
  return np.sqrt(np.maximum(gap, 0.0), dtype=np.float32)


def _statistic(apart: np.ndarray, first: np.ndarray) -> float:
  """Of the rows `first` bool[N] against the others."""
  n, m = first.sum(), (~first).sum()
  to_first = apart @ first.astype(np.float32)
  cross = to_first[~first].sum() / (n * m)
  own = to_first[first].sum() / n**2
  rest = (apart.sum() - 2 * to_first.sum() + to_first[first].sum()) / m**2
  return float(2 * cross - own - rest)


def compare(
  x: np.ndarray, y: np.ndarray, *, permutations: int = 200, seed: int = 0
) -> tuple[float, float]:
  """The distance of f32[N, ...] and f32[M, ...], and the share of random
  divisions of all into two such parts that are as far apart, at least
  1 / (permutations + 1)."""
  z = np.concatenate([x.reshape(len(x), -1), y.reshape(len(y), -1)])
  apart = _apart(z.astype(np.float32))
  first = np.arange(len(z)) < len(x)
  found = _statistic(apart, first)
  rng = np.random.default_rng(seed)
  others = [
    _statistic(apart, rng.permutation(first)) for _ in range(permutations)
  ]
  return found, (1 + sum(x >= found for x in others)) / (1 + permutations)
