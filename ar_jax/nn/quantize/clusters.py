"""Groups of the codes of a codebook, by where they lie.

V codes, C numbers of a code, M clusters.
"""

from __future__ import annotations

import warnings

import numpy as np

from ar_jax.core.errors import UserError


def kmeans(
  codes: np.ndarray, count: int, seed: int, restarts: int = 4
) -> np.ndarray:
  """The cluster of every code, i32[V]; none of the clusters is empty.

  Args:
    codes: f[V, C], as the decoder reads them: of unit length, where it takes
      them on the sphere.
    count: M.
    seed: of the search. The same one leads to the same clusters.
    restarts: searches, of which the best is taken.

  Raises:
    UserError: there are not 1 to V clusters.
  """
  from sklearn.cluster import KMeans  # slow to import
  from threadpoolctl import threadpool_limits

  if not 1 <= count <= len(codes):
    raise UserError(
      f"clusters={count}: {len(codes)} codes make 1 to {len(codes)} clusters"
    )
  codes = np.asarray(codes, np.float64)
  search = KMeans(count, n_init=restarts, max_iter=100, random_state=seed)
  # Several threads add up in any order, and then no two runs are the same.
  with threadpool_limits(1), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of fewer different codes than clusters
    label = search.fit_predict(codes)
  return filled(codes, label, count)


def filled(codes: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
  """The clusters i32[V] without empty ones: each of these takes, from the
  largest cluster, the code that is farthest from its mean."""
  label = np.array(label, np.int32)
  for empty in np.flatnonzero(np.bincount(label, minlength=count) == 0):
    largest = np.bincount(label, minlength=count).argmax()
    members = np.flatnonzero(label == largest)
    away = np.square(codes[members] - codes[members].mean(0)).sum(-1)
    label[members[away.argmax()]] = empty
  return label


def permuted(label: np.ndarray, seed: int) -> np.ndarray:
  """Clusters i32[V] of the same sizes, whose members are drawn at random."""
  return np.random.default_rng(seed).permutation(label)
