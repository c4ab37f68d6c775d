"""Toy laws that can be counted or integrated, and tests of samples against
them; N samples, L units, V codes."""

from __future__ import annotations

import numpy as np
from scipy import stats

from experiments.shared import energy


def sequences(vocab: int, length: int) -> np.ndarray:
  """i64[V^L, L], all of them, the last unit fastest."""
  return np.indices((vocab,) * length).reshape(length, -1).T


def numbers(units: np.ndarray, vocab: int) -> np.ndarray:
  """i64[N], which row of `sequences` each of units i[N, L] is."""
  units = np.asarray(units)
  return np.ravel_multi_index(units.T, (vocab,) * units.shape[1])


def chi_square(units: np.ndarray, law: np.ndarray, vocab: int) -> float:
  """The p-value of units i[N, L] against the law f64[V^L] of all sequences."""
  counts = np.bincount(numbers(units, vocab), minlength=vocab ** len(units[0]))
  return chi_square_of(counts, law)


def chi_square_of(counts: np.ndarray, law: np.ndarray) -> float:
  """The p-value of counts f[M] against a law f64[M]; what is rarer than five
  times is pooled."""
  wanted = np.asarray(law, np.float64) * counts.sum()
  keep = wanted >= 5
  pool = lambda x: np.append(x[keep], x[~keep].sum())
  # What is impossible has a share, too, that can be divided by.
  counts, wanted = pool(counts), np.maximum(pool(wanted), 1e-9)
  return stats.chisquare(counts, wanted * counts.sum() / wanted.sum()).pvalue


def kolmogorov(x: np.ndarray, other) -> float:
  """The least p-value of the coordinates of f[N, C]: against a second sample
  f[M, C], or a distribution function (values f[N], coordinate) -> f[N]."""
  x = np.asarray(x, np.float64)
  found = []
  for c in range(x.shape[1]):
    if callable(other):
      test = stats.kstest(x[:, c], lambda v, c=c: other(v, c))
    else:
      test = stats.ks_2samp(x[:, c], np.asarray(other, np.float64)[:, c])
    found.append(test.pvalue)
  return min(found)


def mixture_cdf(weights, means, stds):
  """Of a mixture of normal laws: weights f[M], the others f[M, C]."""

  def cdf(v, c):
    z = (v[:, None] - means[None, :, c]) / stds[None, :, c]
    return stats.norm.cdf(z) @ np.asarray(weights)

  return cdf


def energy_p(x: np.ndarray, y: np.ndarray, n: int = 300) -> float:
  """The p-value of the energy distance of the first n of two samples, 1/2001
  at least."""
  x, y = (np.asarray(z)[:n] for z in (x, y))
  return energy.compare(x, y, permutations=2000)[1]
