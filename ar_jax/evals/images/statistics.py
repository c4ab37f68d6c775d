"""Distances between two sets of feature vectors, from the vectors alone.

N samples, M reference rows, d features. Everything that sums over many rows
is in float64 on the host; pairwise distances are float32 on the device, block
by block.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.system import UserError

_BLOCK = 1024  # rows of a distance matrix that are in memory at once


class Moments:
  """Count, mean and covariance (over N - 1) of a stream of vectors.

  While there are fewer rows than features, the rows themselves are the
  smaller and the more exact description, and are kept.
  """

  def __init__(self, dim: int):
    self.n = 0
    self._sum = np.zeros(dim)
    self._outer = np.zeros((dim, dim))
    self._rows: np.ndarray | None = np.zeros((0, dim))

  @classmethod
  def of(cls, rows: np.ndarray) -> Moments:
    """The moments of rows f[N, d]."""
    made = cls(rows.shape[1])
    made.add(rows)
    return made

  @classmethod
  def given(cls, mean: np.ndarray, cov: np.ndarray, n: int) -> Moments:
    """From a mean f[d] and a covariance f[d, d] that were computed before."""
    made = cls(len(mean))
    made.n, made._rows = n, None
    made._sum = n * np.asarray(mean, np.float64)
    made._outer = (n - 1) * np.asarray(cov, np.float64) + n * np.outer(
      mean, mean
    )
    return made

  def add(self, rows: np.ndarray) -> None:
    """Takes in rows f[n, d]; padding must have been dropped before."""
    rows = np.asarray(rows, np.float64)
    self.n += len(rows)
    self._sum += rows.sum(0)
    self._outer += rows.T @ rows
    if self._rows is not None and self.n < len(self._sum):
      self._rows = np.concatenate([self._rows, rows])
    else:
      self._rows = None

  @property
  def mean(self) -> np.ndarray:
    return self._sum / self.n

  @property
  def cov(self) -> np.ndarray:
    return (self._outer - np.outer(self._sum, self.mean)) / (self.n - 1)

  @property
  def factor(self) -> np.ndarray | None:
    """F with F'F = cov, f64[N, d], if N < d; else None."""
    if self._rows is None:
      return None
    return (self._rows - self.mean) / np.sqrt(self.n - 1)

  def arrays(self) -> dict[str, np.ndarray]:
    """What `restore` needs, for a file."""
    if self._rows is not None:
      return {"rows": self._rows}
    return {"n": np.array(self.n), "sum": self._sum, "outer": self._outer}

  @classmethod
  def restore(cls, arrays: Mapping[str, np.ndarray]) -> Moments:
    if "rows" in arrays:
      return cls.of(arrays["rows"])
    made = cls(len(arrays["sum"]))
    made.n, made._rows = int(arrays["n"]), None
    made._sum, made._outer = arrays["sum"], arrays["outer"]
    return made


def frechet(a: Moments, b: Moments) -> float:
  """|m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2).

  Heusel et al. 2017, eq. 6: the Frechet distance of two Gaussians.

  Raises:
    UserError: fewer than two vectors on a side have no covariance.
  """
  _at_least(2, a.n, b.n, "a Frechet distance")
  x, y = a.factor, b.factor
  if x is not None and y is not None:
    root = root_trace_of_factors(x, y)
    traces = np.square(x).sum() + np.square(y).sum()
  else:
    root = root_trace(a.cov, b.cov)
    traces = np.trace(a.cov) + np.trace(b.cov)
  # Rounding can leave -1e-13 where the truth is 0.
  return float(max(np.square(a.mean - b.mean).sum() + traces - 2 * root, 0.0))


def root_trace(a: np.ndarray, b: np.ndarray) -> float:
  """tr (A B)^(1/2) of two positive semidefinite matrices f64[d, d].

  The eigenvalues of A B are those of the symmetric A^(1/2) B A^(1/2), whose
  solver is exact to rounding and four times as fast as a general one.
  """
  values, vectors = np.linalg.eigh(a)
  half = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
  product = np.linalg.eigvalsh(half @ b @ half)
  return float(np.sqrt(np.maximum(product, 0)).sum())


def root_trace_of_factors(x: np.ndarray, y: np.ndarray) -> float:
  """tr (X'X Y'Y)^(1/2) of f64[N, d] and f64[M, d]: the nuclear norm of X Y'.

  The same number as `root_trace` without forming a d x d matrix, and without
  the square roots of rounded zeros that rank deficiency brings there.
  """
  return float(np.linalg.svd(x @ y.T, compute_uv=False).sum())


@jax.jit
def _distances(x: jax.Array, y: jax.Array) -> jax.Array:
  """Squared Euclidean distances f32[n, m]."""
  cross = jnp.matmul(x, y.T, precision="highest")
  square = lambda z: jnp.square(z).sum(-1)
  return jnp.maximum(square(x)[:, None] + square(y)[None] - 2 * cross, 0)


def precision_recall(
  samples: np.ndarray,
  reference: np.ndarray,
  *,
  k: int = 3,
  block: int = _BLOCK,
) -> tuple[float, float]:
  """Improved precision and recall (Kynkaanniemi et al. 2019).

  A point has a ball up to its k-th nearest neighbour in its own set.
  Precision is the fraction of samples within a ball of the reference, recall
  the fraction of the reference within a ball of the samples.

  Args:
    samples: f[N, d].
    reference: f[M, d].
    k: which neighbour, the point itself not counted.
    block: rows of the distance matrix computed at once.

  Raises:
    UserError: a set has no k-th neighbour.
  """
  _at_least(k + 1, len(samples), len(reference), f"precision with k={k}")
  # Distances do not mind a shift, and float32 minds large common means.
  mean = np.mean(reference, 0, dtype=np.float64)
  samples, reference = (
    jnp.asarray(np.asarray(z, np.float64) - mean, jnp.float32)
    for z in (samples, reference)
  )
  inside = lambda points, of: np.mean(
    _covered(points, of, _radii(of, k, block), block)
  )
  return float(inside(samples, reference)), float(inside(reference, samples))


def _radii(points, k: int, block: int):
  """Squared distance of every point to its k-th neighbour, f32[N]."""
  nearest = lambda rows: -jax.lax.top_k(-_distances(rows, points), k + 1)[0]
  parts = [
    nearest(points[i : i + block])[:, k] for i in range(0, len(points), block)
  ]
  return jnp.concatenate(parts)


def _covered(points, centres, radii, block: int) -> np.ndarray:
  """Whether each point lies in at least one ball, bool[N]."""
  return np.concatenate(
    [
      np.asarray(
        (_distances(points[i : i + block], centres) <= radii[None]).any(1)
      )
      for i in range(0, len(points), block)
    ]
  )


SCORE = (
  "mean over blocks of 5000 in a random order with a fixed seed, a shorter "
  "last block counts by its size"
)


def score(logits: np.ndarray, *, block: int = 5000, seed: int = 0) -> float:
  """The Inception Score (Salimans et al. 2016) of logits f[N, classes].

  exp of the mean divergence of p(class | x) from p(class), over blocks of the
  size that the ADM suite takes, averaged over the blocks. It takes them as
  they come, which is too low where the rows are sorted by class, and gives a
  short last block, whose score is low, the weight of a whole one; so here the
  rows are put into a random order, and blocks count by their size.

  Args:
    logits: one row per image.
    block: rows of a block.
    seed: of the order.
  """
  _at_least(1, len(logits), 1, "a score")
  z = np.asarray(logits, np.float64)
  z = z - z.max(1, keepdims=True)
  log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
  log_p = log_p[np.random.default_rng(seed).permutation(len(log_p))]
  scores, sizes = [], []
  for start in range(0, len(log_p), block):
    part = log_p[start : start + block]
    p = np.exp(part)
    # A class with p = 0 everywhere contributes 0, whatever its logarithm.
    log_mean = np.log(np.maximum(p.mean(0), np.finfo(np.float64).tiny))
    scores.append(np.exp((p * (part - log_mean)).sum(1).mean()))
    sizes.append(len(part))
  return float(np.average(scores, weights=sizes))


def kid(
  samples: np.ndarray,
  reference: np.ndarray,
  *,
  subsets: int = 100,
  size: int = 1000,
  seed: int = 0,
) -> float:
  """Kernel Inception Distance (Binkowski et al. 2018).

  The unbiased squared MMD with kernel (x.y / d + 1)^3, averaged over random
  subsets of both sets. Sets that fit into one subset are compared once.

  Args:
    samples: f[N, d].
    reference: f[M, d].
    subsets: how many.
    size: rows of a subset, or the smaller set if that has fewer.
    seed: of the choice of subsets.
  """
  n, m = len(samples), len(reference)
  _at_least(2, n, m, "KID")
  if max(n, m) <= size:
    return _mmd(samples, reference)
  size, rng = min(size, n, m), np.random.default_rng(seed)
  pick = lambda rows: rows[rng.choice(len(rows), size, replace=False)]
  return float(
    np.mean([_mmd(pick(samples), pick(reference)) for _ in range(subsets)])
  )


def _mmd(x: np.ndarray, y: np.ndarray) -> float:
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3
  among = lambda a: (
    (kernel(a, a).sum() - ((a * a).mean(1) + 1).dot((1 + (a * a).mean(1)) ** 2))
    / (len(a) * (len(a) - 1))
  )
  return float(among(x) + among(y) - 2 * kernel(x, y).mean())


def _at_least(least: int, n: int, m: int, what: str) -> None:
  if min(n, m) < least:
    raise UserError(
      f"{what} needs at least {least} images on either side and got {n} and "
      f"{m}; raise n or take a larger split"
    )
