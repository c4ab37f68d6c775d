"""Codes of patches fitted to data: k-means, and principal components.

Everything is a function of the data and the seed, to the bit, and looks at a
bounded part of the data.

N images, n points, C numbers of a patch, V codes, K bits.
"""

from __future__ import annotations

import warnings
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import ops
from ar_jax.core.signals.resize import resize

POINTS = 100_000  # patches that are looked at
_ROUNDS = 2  # over the maps of a pyramid, once each has codes of its own


def fitted(
  tokenizer: nn.Module, quantizer: dict[str, Any], source: Any, seed: int
) -> dict[str, np.ndarray]:
  """The parameters of the quantizer of a tokenizer of `patch_codes`.

  Args:
    tokenizer: a module of any form.
    quantizer: those that it has; codes are left of them where the data have
      fewer patches than there are codes.
    source: of examples with `image`.
    seed: of all that is random.
  """
  rng = np.random.default_rng(seed)
  cells = (tokenizer.size // tokenizer.stride) ** 2
  count = min(len(source), max(1, POINTS // cells))
  chosen = np.sort(rng.choice(len(source), count, replace=False))
  images = np.stack([source[int(i)]["image"] for i in chosen])
  x = jnp.asarray(images, jnp.float32) / 127.5 - 1
  bound = tokenizer.bind({"params": {"quantizer": quantizer}})
  if "basis" in quantizer:
    z = _points(bound.latent(x))
    return components(z, len(quantizer["basis"]))
  first = np.asarray(quantizer["codebook"])
  if hasattr(bound, "seen"):
    return {"codebook": _pyramid(tokenizer, x, first, rng)}
  latent = bound.body.latent(x) if hasattr(tokenizer, "body") else None
  if latent is None:
    z = _points(bound.latent(x))
  else:
    maps = [resize(latent, shape, "area") for shape in tokenizer.shapes]
    z = np.concatenate([_points(m) for m in maps])
  return {"codebook": codes(_some(z, rng), first, rng)}


def _points(x: Any) -> np.ndarray:
  """f32[n, C] of f32[..., C]."""
  x = np.asarray(x)
  return x.reshape(-1, x.shape[-1])


def _some(z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """At most POINTS rows."""
  if len(z) <= POINTS:
    return z
  return z[np.sort(rng.choice(len(z), POINTS, replace=False))]


def codes(
  z: np.ndarray,
  first: np.ndarray,
  rng: np.random.Generator,
  weight: np.ndarray | None = None,
  begin: np.ndarray | None = None,
) -> np.ndarray:
  """f32[V, C]: k-means of points.

  Args:
    z: f32[n, C].
    first: f32[V, C], what is left where there are fewer points than codes.
    rng: draws the seed.
    weight: f32[n] of the points; None for equal ones.
    begin: f32[V, C], where the search begins; None: k-means++.
  """
  from sklearn import cluster  # slow to import
  from threadpoolctl import threadpool_limits

  seed = int(rng.integers(2**31))
  different = np.unique(z, axis=0)
  if len(different) <= len(first):
    return np.concatenate([different, first[len(different) :]])
  large = len(first) > 256
  kind = cluster.MiniBatchKMeans if large else cluster.KMeans
  search = kind(
    len(first),
    init="k-means++" if begin is None else begin,
    n_init=1,
    max_iter=50,
    random_state=seed,
    **({"batch_size": 8192} if large else {}),
  )
  # Several threads add up in any order, and then no two runs are the same.
  with threadpool_limits(1), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of codes that no point is nearest to
    search.fit(z, sample_weight=weight)
  return search.cluster_centers_.astype(np.float32)


def _pyramid(
  tokenizer: nn.Module,
  x: jax.Array,
  first: np.ndarray,
  rng: np.random.Generator,
) -> np.ndarray:
  """f32[V, C], the codes of residual maps: those of every map in turn are
  fitted to what the maps before it leave, each a share of the codebook; then
  all of them to what all maps are to code."""
  steps = len(tokenizer.scales)
  shares = np.diff(np.linspace(0, len(first), steps + 1).astype(int))
  own = [first[:0]]
  for k, share in enumerate(shares):
    z, weight = _residuals(tokenizer, x, np.concatenate(own), k + 1)
    last = z[k], weight[k]
    ends = slice(shares[:k].sum(), shares[: k + 1].sum())
    if share:
      own.append(codes(_some(last[0], rng), first[ends], rng))
  book = np.concatenate(own)
  for _ in range(_ROUNDS):
    z, weight = map(np.concatenate, _residuals(tokenizer, x, book, steps))
    if len(z) > POINTS:
      some = np.sort(rng.choice(len(z), POINTS, replace=False))
      z, weight = z[some], weight[some]
    book = codes(z, book, rng, weight, book)
  return book


def _residuals(
  tokenizer: nn.Module, x: jax.Array, book: np.ndarray, maps: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """What each of the first maps is to code, f32[n, C], with these codes on the
  maps before it; and how much of an image each of these points is, f32[n]."""
  # Those that are not there yet are as the first, or nothing.
  book = book if len(book) else np.zeros((1, book.shape[1]), np.float32)
  rest = np.repeat(book[:1], tokenizer.vocab - len(book), 0)
  book = np.concatenate([book, rest])
  params = {"quantizer": {"codebook": jnp.asarray(book)}}
  bound = tokenizer.bind({"params": params})
  quantizer = bound.quantizer
  f = bound.latent(x)
  fhat, points, weights = jnp.zeros_like(f), [], []
  for k in range(maps):
    rest = quantizer.down(quantizer.goal(f, k) - fhat, k)
    points.append(_points(rest))
    share = 1 / tokenizer.scales[k] ** 2
    weights.append(np.full(len(points[-1]), share, np.float32))
    ids = ops.nearest_code(rest, quantizer.codebook())
    fhat = quantizer.add(fhat, k, quantizer.codebook()[ids])
  return points, weights


def components(z: np.ndarray, bits: int) -> dict[str, np.ndarray]:
  """What `patch_codes.Signs` holds: the mean f32[C] of points f32[n, C], their
  first principal components f32[K, C], and the means f32[K, 2] of what points
  have of each, of those below 0 and of those above."""
  mean = z.mean(0, dtype=np.float64)
  spread = np.cov((z - mean).T.astype(np.float64)).reshape(z.shape[1], -1)
  _, vectors = np.linalg.eigh(spread)
  basis = vectors[:, ::-1][:, :bits].T
  # A sign is free; the largest number of each is made positive.
  largest = np.take_along_axis(basis, np.abs(basis).argmax(1, keepdims=True), 1)
  basis = basis * np.sign(largest)
  parts = (z - mean) @ basis.T
  high = parts > 0
  below = (parts * ~high).sum(0) / np.maximum((~high).sum(0), 1)
  above = (parts * high).sum(0) / np.maximum(high.sum(0), 1)
  return {
    "mean": mean.astype(np.float32),
    "basis": basis.astype(np.float32),
    "levels": np.stack([below, above], 1).astype(np.float32),
  }
