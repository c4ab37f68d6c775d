"""A set of images in a feature network, and one such set against another.

The same comparison serves samples, reconstructions and, as the floor beside
every number, real images that are neither: a distance means nothing until one
knows what two real sets of that size are apart.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Iterable, Iterator

import numpy as np

from ar_jax.conditions import some
from ar_jax.core import json_text
from ar_jax.core.system import UserError
from ar_jax.data import Dataset, array_cache
from ar_jax.evals import cache
from ar_jax.evals.images import statistics
from ar_jax.evals.images.features import Features

CHUNK = 1000  # images in memory at once, about
_MOST_REFERENCE = 10_000  # rows for precision and recall, as in the ADM suite
_MOST_KEPT = 50_000


@dataclasses.dataclass
class Sketch:
  """What the statistics need to know of a set of images.

  Attributes:
    moments: of the pooled features of all images.
    rows: f32[n, d], the first of them, for precision, recall and KID.
    logits: f32[n, classes] of the same, or None.
    spatial: moments of the spatial features, or None.
  """

  moments: statistics.Moments
  rows: np.ndarray
  logits: np.ndarray | None = None
  spatial: statistics.Moments | None = None


def sketch(
  features: Features, chunks: Iterable[np.ndarray], most: int = _MOST_KEPT
) -> Sketch:
  """Embeds chunks of examples, images u8[n, H, W, C] or others, keeping `most`
  rows.

  Raises:
    UserError: there are no images.
  """
  moments = spatial = None
  rows, logits = [], []
  for images in chunks:
    e = features.embed(features.rows(images))
    moments = moments or statistics.Moments(e.pooled.shape[1])
    moments.add(e.pooled)
    if e.spatial is not None:
      spatial = spatial or statistics.Moments(e.spatial.shape[1])
      spatial.add(e.spatial)
    if sum(map(len, rows)) < most:
      rows.append(e.pooled)
      logits.append(e.logits)
  if moments is None:
    raise UserError("there are no images to take statistics of")
  return Sketch(
    moments,
    np.concatenate(rows)[:most],
    None if logits[0] is None else np.concatenate(logits)[:most],
    spatial,
  )


def compare(
  a: Sketch, reference: Sketch, *, k: int = 3
) -> dict[str, float | str]:
  """Every distance of `a` from the reference, by its general name.

  `frechet`, `precision`, `recall`, `kid`, and where the network allows them
  `score` (of `a` alone) and `sfid`.

  Raises:
    UserError: the reference has other features, or there are too few images.
  """
  ours, theirs = len(a.moments.mean), len(reference.moments.mean)
  if ours != theirs:
    raise UserError(
      f"the reference has {theirs} features, the network {ours}; take the "
      "network with which the reference was made"
    )
  found: dict[str, float | str] = {
    "frechet": statistics.frechet(a.moments, reference.moments)
  }
  if a.spatial is not None and reference.spatial is not None:
    found["sfid"] = statistics.frechet(a.spatial, reference.spatial)
  if len(reference.rows):
    precision, recall = statistics.precision_recall(a.rows, reference.rows, k=k)
    found["precision"], found["recall"] = precision, recall
    found["kid"] = statistics.kid(a.rows, reference.rows)
  else:
    found["precision"] = found["recall"] = (
      "unavailable: the reference file holds no images"
    )
  if a.logits is not None:
    found["score"] = statistics.score(a.logits)
  return found


def real(
  data: Dataset,
  parts: Iterable[tuple[str, np.ndarray]],
  field: str = "image",
) -> Iterator[np.ndarray]:
  """Chunks [n, ...] of a field of the rows of ("train" or "test", rows)."""
  for split, rows in parts:
    source = getattr(data, split)
    for start in range(0, len(rows), CHUNK):
      yield np.stack(
        [source[int(i)][field] for i in rows[start : start + CHUNK]]
      )


def reference(
  features: Features,
  data: Dataset,
  n: int,
  m: int,
  k: int,
  field: str = "image",
) -> tuple[Sketch, dict[str, float | str]]:
  """m random training images, and the floor: n other real ones against them.

  The n are random rows of the test split, topped up with training images
  outside the reference if it is smaller. Never the first n: a split that is
  sorted by class would give a few classes. Both results are cached.

  Raises:
    UserError: the training split has fewer than m images.
  """
  if m > len(data.train):
    raise UserError(
      f"a reference of {m} images asked for, but {data.name!r} has only "
      f"{len(data.train)} training images"
    )
  other = "" if field == "image" else f" {field}"
  name = array_cache.digest(
    features.digest, cache.data_digest(data), f"{n} {m} {k} v2{other}"
  )
  if (saved := array_cache.load("reference", name)) is not None:
    return _restore(saved), json.loads(str(saved["floor"]))
  order = np.random.default_rng(0).permutation(len(data.train))
  made = sketch(
    features, real(data, [("train", order[:m])], field), _MOST_REFERENCE
  )
  spare = m + max(0, n - len(data.test))
  if spare <= len(order):
    test = some(len(data.test), min(n, len(data.test)))
    parts = [("test", test), ("train", order[m:spare])]
    others = real(data, parts, field)
    floor = compare(sketch(features, others), made, k=k)
  else:
    others = len(data.test) + len(order) - m
    floor = {
      "frechet": f"unavailable: only {others} real images lie outside the "
      f"reference, {n} are needed"
    }
  saved = {"floor": np.array(json_text.dumps(floor)), "rows": made.rows}
  for part in ("moments", "spatial"):
    if (moments := getattr(made, part)) is not None:
      saved |= {f"{part}/{key}": v for key, v in moments.arrays().items()}
  array_cache.save("reference", name, saved)
  return made, floor


def _restore(saved: dict[str, np.ndarray]) -> Sketch:
  def part(prefix: str) -> statistics.Moments | None:
    arrays = {
      key.removeprefix(prefix): v
      for key, v in saved.items()
      if key.startswith(prefix)
    }
    return statistics.Moments.restore(arrays) if arrays else None

  return Sketch(part("moments/"), saved["rows"], spatial=part("spatial/"))


def published(path: str, features: Features) -> Sketch:
  """The reference of a statistics file as the ADM suite publishes them.

  It holds `mu`, `sigma`, for sFID `mu_s`, `sigma_s`, and for precision and
  recall images `arr_0`. The number of images behind the moments is not in
  it and does not matter, since the covariance is given as such.

  Raises:
    UserError: no such file, or not such a file.
  """
  try:
    with np.load(path, allow_pickle=False) as f:
      arrays = {key: f[key] for key in f.files}
    given = lambda mu, sigma: statistics.Moments.given(
      arrays[mu], arrays[sigma], n=2
    )
    moments = given("mu", "sigma")
    spatial = given("mu_s", "sigma_s") if "mu_s" in arrays else None
  except (OSError, KeyError, ValueError, zipfile.BadZipFile) as e:
    raise UserError(
      f"reference={path!r}: not a readable npz with mu and sigma ({e})"
    ) from e
  rows = np.zeros((0, len(moments.mean)), np.float32)
  if "arr_0" in arrays:
    images = arrays["arr_0"][:_MOST_REFERENCE]
    rows = features.embed(images).pooled
  return Sketch(moments, rows, spatial=spatial)
