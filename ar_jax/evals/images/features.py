"""Feature networks by name: what a Frechet distance is measured in.

  inception     TF-2015 Inception, from a file that the user names: FID
  efficientnet  ImageNet EfficientNet-Lite0 from a PyPI package: FD-EffNet
  judge         a classifier trained here on the data itself: FD-judge
  pixels        64 principal components of the pixels: FD-pixels
  values, frames, differences: the same of any field, see `components`

Only the first gives numbers that may be called FID.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import processes
from ar_jax.core.forms import Form, Image, Video
from ar_jax.core.system import UserError
from ar_jax.data import Dataset


class Embedding(NamedTuple):
  """What a network says about N images.

  Attributes:
    pooled: f32[N, d], the features.
    logits: f32[N, classes], or None if the network has no classes.
    spatial: f32[N, e], features that keep the place, for sFID, or None.
  """

  pooled: np.ndarray
  logits: np.ndarray | None = None
  spatial: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Features:
  """A frozen feature network.

  Attributes:
    name: as given to `features`.
    note: for the protocol: the network, its weights, its preprocessing.
    digest: changes whenever the features could.
    embed: what `rows` gives, u8[N, H, W, C] of images, -> Embedding, for any N.
    accuracy: of the network on the test split, where it knows the classes.
    cited: the name that a Frechet distance in these features may be cited by,
      beside `frechet`; "" where there is none.
    rows: examples of the field [N, ...] -> what is embedded, [M, ...]: the
      images themselves, or the frames of videos.
  """

  name: str
  note: str
  digest: str
  embed: Callable[[np.ndarray], Embedding]
  accuracy: float | None = None
  cited: str = ""
  rows: Callable[[np.ndarray], np.ndarray] = lambda x: x


_MODULES = {
  "inception": "inception",
  "efficientnet": "efficientnet",
  "judge": "judge",
  "pixels": "components",
  "values": "components",
  "frames": "components",
  "differences": "components",
}


def by_form(form: Form | None) -> str:
  """The features that are taken where none are named."""
  named = {Image: "judge", Video: "frames"}
  return named.get(type(form), "values")


def features(
  name: str, data: Dataset | None, field: str = "image", **options
) -> Features:
  """The feature network `name`, ready to embed a field of `data`.

  Args:
    name: see the module's docstring.
    data: what those that are no published network are fitted to (its training
      split); published ones need none.
    field: of the examples; networks see images only.
    **options: `path` of the weights for `inception`; `batch` images at once.

  Raises:
    UserError: unknown name or option, or the weights are missing or wrong.
  """
  if name not in _MODULES:
    close = difflib.get_close_matches(name, _MODULES, n=1)
    hint = f"did you mean {close[0]!r}" if close else "there are"
    raise UserError(f"features={name!r}: {hint} ({', '.join(_MODULES)})")
  if _MODULES[name] == "components":
    options |= {"name": name, "field": field}
  elif data is not None and not isinstance(data.forms.get(field), Image):
    raise UserError(
      f"features={name!r}: sees images, which {field!r} of {data.name!r} is "
      f"not; take {by_form(data.forms.get(field))!r}"
    )
  module = importlib.import_module(f"{__package__}.{_MODULES[name]}")
  try:
    return module.make(data, **options)
  except TypeError as e:
    if "argument" not in str(e):
      raise
    raise UserError(f"features={name!r}: {e}") from e


def batched(
  apply: Callable[[Any, jax.Array], tuple[jax.Array, ...]],
  variables: Any,
  batch: int,
) -> Callable[[np.ndarray], Embedding]:
  """`embed` from a function of one batch, compiled for one batch size.

  Args:
    apply: (variables, u8[batch, H, W, C]) -> the fields of an Embedding.
    variables: passed through; an argument, since constants of this size make
      compilation slow.
    batch: images at once; the last batch is padded and the padding dropped.
      The processes of a run take the batches in turns.
  """
  variables = jax.device_put(variables)
  compiled = jax.jit(apply)

  def embed(images: np.ndarray) -> Embedding:
    parts = []
    for turn in range(0, len(images), batch * jax.process_count()):
      start = turn + batch * jax.process_index()
      part = images[start : start + batch]
      padded = np.zeros((batch, *images.shape[1:]), images.dtype)
      padded[: len(part)] = part
      # Reduced precision (TF32, bfloat16) moves these distances visibly.
      with jax.default_matmul_precision("float32"):
        out = compiled(variables, padded)
      parts.append([np.asarray(x) for x in out])
    fields = (np.stack(x) for x in zip(*parts, strict=True))
    return Embedding(*(_in_turn(x, len(images)) for x in fields))

  return embed


def _in_turn(rows: np.ndarray, n: int) -> np.ndarray:
  """[n, ...] of all processes, from [turns, batch, ...] of this one."""
  taken = processes.gather(rows).swapaxes(0, 1)
  return taken.reshape(-1, *rows.shape[2:])[:n]


def to_rgb(images: jax.Array) -> jax.Array:
  """u8[N, H, W, 1 or 3] -> f32[N, H, W, 3], still 0..255."""
  images = jnp.asarray(images, jnp.float32)
  return jnp.broadcast_to(images, (*images.shape[:3], 3))


def check(name: str, path: str = "") -> None:
  """Whether a feature network can be had, without loading it.

  Args:
    name: as in `features`; "" is none.
    path: of its weights, where they are a file that the user names.

  Raises:
    UserError: there is no such network, or its weights are not there.
  """
  if name and name not in _MODULES:
    close = difflib.get_close_matches(name, _MODULES, n=1)
    hint = f"did you mean {close[0]!r}" if close else "there are"
    raise UserError(f"features={name!r}: {hint} ({', '.join(_MODULES)})")
  if name == "efficientnet":
    module = importlib.import_module(f"{__package__}.{_MODULES[name]}")
    module.weights_path()
  if path and not pathlib.Path(path).expanduser().is_file():
    raise UserError(f"features={name!r}: path={path}: no such file")
