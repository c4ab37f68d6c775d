"""Features that need no network: principal components of the values of a
field, of the frames of a video, or of what changes from frame to frame.

  pixels, values   a vector of an example, whatever its form
  frames           a vector of a frame, of how a video looks
  differences      a vector of two neighbours in time, of how it moves

N examples, T times, d components.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.conditions import some
from ar_jax.core.forms import Form, Image, Series, Text, Video
from ar_jax.core.system import UserError
from ar_jax.data import Dataset, array_cache
from ar_jax.evals.images.features import Features, batched

_COMPONENTS = 64  # d, or fewer where there are fewer values or examples


def _frames(x: np.ndarray) -> np.ndarray:
  return x.reshape(-1, *x.shape[2:])


def _differences(x: np.ndarray) -> np.ndarray:
  scale = np.float32(255 if x.dtype == np.uint8 else 1)
  x = x.astype(np.float32) / scale
  return _frames(x[:, 1:] - x[:, :-1])


_ROWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  "pixels": lambda x: x,
  "values": lambda x: x,
  "frames": _frames,
  "differences": _differences,
}
_OF: dict[str, tuple[type[Form], ...]] = {
  "pixels": (Image, Video),
  "frames": (Video,),
  "differences": (Video, Series),
}


def make(
  data: Dataset,
  *,
  name: str = "pixels",
  field: str = "image",
  batch: int = 1000,
  fit: int = 5000,
) -> Features:
  """Projections on the leading principal components.

  The reference of a distance is of the examples that the components are
  fitted to. That shifts the distances of samples and of the floor, which is of
  other examples, alike: they are projections on the same axes.

  Args:
    data: its training split is what the components are fitted to.
    name: "pixels", "values", "frames" or "differences".
    field: of the examples.
    batch: vectors at once.
    fit: to how many random vectors of the training split.

  Raises:
    UserError: the field is not of a form that has these.
  """
  form = data.forms.get(field)
  kinds = _OF.get(name, (Form,))
  if not isinstance(form, kinds) or isinstance(form, Text):
    has = type(form).__name__.lower() if form else "no form"
    raise UserError(
      f"features={name!r}: the field {field!r} of {data.name!r} is {has}; "
      + (
        "text is compared by evals.ngrams"
        if isinstance(form, Text)
        else f"these are of {' or '.join(k.__name__.lower() for k in kinds)}"
      )
    )
  rows = _ROWS[name]
  each = len(rows(np.asarray(data.train[0][field])[None]))
  if not each:
    raise UserError(
      f"features={name!r}: the examples of {data.name!r} have a single time"
    )
  count = -(-min(fit, each * len(data.train)) // each)
  chosen = np.sort(some(len(data.train), count))
  x = rows(np.stack([data.train[int(i)][field] for i in chosen]))
  scale = 255 if x.dtype == np.uint8 else 1
  flat = x.reshape(len(x), -1).astype(np.float64) / scale
  mean = flat.mean(0)
  if flat.shape[1] <= len(flat):
    _, vectors = np.linalg.eigh((flat - mean).T @ (flat - mean))
    axes = vectors[:, ::-1]
  else:
    axes = np.linalg.svd(flat - mean, full_matrices=False)[2].T
  variables = {
    "mean": mean.astype(np.float32),
    "axes": axes[:, :_COMPONENTS].astype(np.float32),
  }

  def project(v, values: jax.Array) -> tuple[jax.Array]:
    flat = jnp.reshape(values, (values.shape[0], -1)) / jnp.float32(scale)
    return (jnp.matmul(flat - v["mean"][None], v["axes"]),)

  what = {
    "pixels": "the pixels of",
    "values": f"the values of {field!r} of",
    "frames": f"the frames of {field!r} of",
    "differences": f"the changes from time to time of {field!r} of",
  }[name]
  return Features(
    name=name,
    note=f"{variables['axes'].shape[1]} principal components of {what} "
    f"{len(chosen)} random training "
    f"{'images' if isinstance(form, Image) else 'examples'}",
    digest=array_cache.digest(name, mean, variables["axes"]),
    embed=batched(project, variables, batch),
    rows=rows,
  )
