"""How far samples are from the data: FID and its relatives, of images or of
any other field.

Every number stands beside its floor, the same number for real test images in
place of the samples. Both are taken at the same sizes on both sides, since
all of these statistics depend on how many images they see: equal N by default
(the test split, an equal number of training images as the reference).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ar_jax import conditions
from ar_jax.core.system import UserError
from ar_jax.data import Dataset
from ar_jax.evals import samples
from ar_jax.evals.images import sketch, statistics
from ar_jax.evals.images.features import by_form
from ar_jax.evals.images.features import features as load_features

_NAMES = {"fid": {"score": "inception_score"}}


def build(
  data: Dataset,
  *,
  field: str = "image",
  features: str = "",
  n: int = 0,
  reference: int | str = 0,
  labels: str = "",
  batch: int = 100,
  k: int = 3,
  options: Mapping[str, Any] | None = None,
  network: Mapping[str, Any] | None = None,
  draw: samples.Draw | None = None,
):
  """The evaluator of the distance between samples and data.

  Args:
    data: the reference is taken from its training split.
    field: of the examples, which the system makes.
    features: name of the feature network, see `features.py`; "" is "judge" for
      images, "frames" for videos, whose movement "differences" compares, and
      "values" for other fields.
    n: how many samples; 0 means as many as the test split has.
    reference: how many training images; 0 means n. Or the path of an npz file
      with `mu` and `sigma` in the same features.
    labels: "balanced", "uniform" or "data" (classes as often as in the data);
      "" is "balanced", or "data" where the largest class has more than twice
      as many training examples as the smallest. See `conditions`.
    batch: samples drawn at once.
    k: neighbour of precision and recall.
    options: of `system.sample`.
    network: options of the feature network, for example its `path`.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. Its results are `features`, `frechet`, `precision`,
    `recall`, `kid`, `score`, each also with `_floor`, and `protocol`. In
    Inception features, and only there, the names that these may be cited by
    stand beside them: `fid`, `sfid` and `inception_score`. Without Inception
    weights the evaluator says so and substitutes nothing.

  Raises:
    UserError: an option is wrong, or the data are too few for it.
  """
  network = dict(network or {})
  if field not in data.forms:
    raise UserError(
      f"evals.frechet: field={field!r} is not in {data.name!r}, which has "
      f"{', '.join(data.forms)}"
    )
  features = features or by_form(data.forms[field])
  if features == "inception" and not network.get("path"):
    missing = (
      "unavailable: set network.path to the Inception weights, "
      "pt_inception-2015-12-05-6726825d.pth or classify_image_graph_def.pb"
    )
    return lambda *_: {"features": "inception", "fid": missing}
  law = conditions.law_of(data, labels)
  n = n or min(len(data.test), len(data.train))
  if n <= k:
    raise UserError(f"n={n}: a Frechet evaluation needs more than k={k} images")
  net = load_features(features, data, field, **network)
  size = 0 if isinstance(reference, str) else reference or n

  @functools.cache
  def real():
    """(reference, floor), which do not depend on the system."""
    if not isinstance(reference, str):
      return sketch.reference(net, data, n, size, k, field)
    against = sketch.published(reference, net)
    if n > len(data.test):
      return against, {
        "frechet": f"unavailable: the test split has fewer than {n} images"
      }
    rows = conditions.some(len(data.test), n)
    test = sketch.real(data, [("test", rows)], field)
    return against, sketch.compare(sketch.sketch(net, test), against, k=k)

  def evaluate(system, variables, batches, key):
    del batches  # the test split is read by `real`, once
    samples.check_makes(system, field, "frechet")
    against, floor = real()
    drawn = samples.field(
      field,
      system,
      variables,
      conditions.conditions(system, data, n, law=law),
      key,
      evaluator="frechet",
      batch=batch,
      forms=data.forms,
      options=options,
      draw=draw,
    )
    measured = sketch.sketch(net, _checked(drawn, data, field))
    found = named(sketch.compare(measured, against, k=k), floor, net.cited)
    return {
      "features": net.name,
      **found,
      "protocol": {
        "samples": n,
        "reference": reference
        if isinstance(reference, str)
        else f"{size} random training examples of {data.name}",
        "floor": "random test examples, topped up with training examples "
        "outside the reference, in place of the samples",
        "features": net.note,
        "field": field,
        "pixels": "floor(255 x + 0.5) of x clipped to [0, 1]",
        "labels": conditions.described(system, law),
        "score": statistics.SCORE,
        "k": k,
        "options": dict(options or {}),
        "seed": np.asarray(jax.random.key_data(key)).tolist(),
      },
    }

  return evaluate


def named(
  found: Mapping[str, float | str],
  floor: Mapping[str, float | str],
  cited: str,
) -> dict[str, float | str]:
  """The results with their floors, and under the names they are cited by."""
  both = {
    name: value
    for key, number in found.items()
    for name, value in ((key, number), (f"{key}_floor", floor.get(key)))
    if value is not None
  }
  names = {"frechet": cited, **_NAMES.get(cited, {})} if cited else {}
  for key, name in names.items():
    for suffix in ("", "_floor"):
      if key + suffix in both:
        both[name + suffix] = both[key + suffix]
  return both


def _checked(
  chunks: Iterator[np.ndarray], data: Dataset, field: str
) -> Iterator[np.ndarray]:
  """The chunks, if they are of the shape that the data have."""
  want = np.shape(data.train[0][field])
  for images in chunks:
    if images.shape[1:] != want:
      raise UserError(
        f"the system draws {images.shape[1:]}, the field {field!r} of "
        f"{data.name!r} is {want}; evaluate it on the data that it was "
        "trained on"
      )
    yield images
