"""What a data set is here: two random-access sources and the class names.

A source answers `len(source)` and `source[i]`, a dict of arrays without a
batch axis:

  image   u8[H, W, C]   pixels 0..255, or `units` in its place
  label   i32[]         class, 0 <= label < num_classes
  ...                   whatever else the set knows (`style`, `text`)

`source[i]` is always the same example, and is what evaluation reads. A source
that has more than one honest view of an example (a random crop of a large
picture, one of several cached views) also has `draw(i, rng)`, which is what
training reads. One that knows a label without reading the image has
`label(i)`. A plain list of such dicts is a source, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Form, Image

Example = dict[str, np.ndarray]


class Source(Protocol):
  """Random access to examples; see the module's docstring."""

  def __len__(self) -> int: ...

  def __getitem__(self, i: int) -> Example: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A training and a test source that share no example.

  Attributes:
    name: as given to `load`.
    train: source for training.
    test: source for evaluation.
    num_classes: labels lie in [0, num_classes); 0 where there are none.
    class_names: one name per class.
    digest: of the files that it is read from; `load` makes it one of the
      options, too. "" where nobody knows.
    forms: name -> what the numbers of this field mean; fields that only
      condition, as `label`, have none.
  """

  name: str
  train: Source
  test: Source
  num_classes: int = 0
  class_names: tuple[str, ...] = ()
  digest: str = ""
  forms: Mapping[str, Form] = dataclasses.field(
    default_factory=lambda: {"image": Image()}
  )


def label(source: Source, i: int) -> int:
  """The label of example `i`, without reading more than is needed."""
  own = getattr(source, "label", None)
  return int(source[i]["label"] if own is None else own(i))


def draw(source: Source, i: int, rng: np.random.Generator) -> Example:
  """The random view of example `i`; `source[i]` where it has only one."""
  own = getattr(source, "draw", None)
  return dict(source[i] if own is None else own(i, rng))


class Arrays:
  """A source over arrays in memory.

  Args:
    image: u8[N, h, w(, c)], at the resolution in which they came.
    label: int[N].
    fit: brings one stored image to the final u8[H, W, C]. It runs on access,
      so that only the small originals are held.
    num_classes: labels must lie in [0, num_classes).
    where: names the data in messages.
    extra: further fields, each [N, ...].

  Raises:
    UserError: a label is out of range, or the lengths differ.
  """

  def __init__(
    self,
    image: np.ndarray,
    label: np.ndarray,
    fit: Callable[[np.ndarray], np.ndarray],
    *,
    num_classes: int,
    where: str,
    extra: Mapping[str, np.ndarray] | None = None,
  ):
    self._image = image
    self._fit = fit
    self._fields = {"label": np.asarray(label, np.int32), **(extra or {})}
    for name, field in self._fields.items():
      if len(field) != len(image):
        raise UserError(
          f"{where}: {len(image)} images but {len(field)} of {name!r}; "
          "the files do not belong together"
        )
    check_labels(self._fields["label"], num_classes, where)

  def __len__(self) -> int:
    return len(self._image)

  def labels(self) -> np.ndarray:
    return self._fields["label"]

  def label(self, i: int) -> int:
    return int(self._fields["label"][i])

  def __getitem__(self, i: int) -> Example:
    image = self._fit(self._image[i])
    return {"image": image, **{k: v[i] for k, v in self._fields.items()}}


def check_labels(label: Any, num_classes: int, where: str) -> None:
  """Raises UserError if a label lies outside [0, num_classes)."""
  label = np.asarray(label)
  bad = label[(label < 0) | (label >= num_classes)]
  if bad.size:
    raise UserError(
      f"{where}: label {bad.flat[0]} is out of range, there are "
      f"{num_classes} classes (0 to {num_classes - 1}); mend the labels or "
      "use a split that has them"
    )


def split_by_seed(n: int, test: int) -> tuple[np.ndarray, np.ndarray]:
  """A fixed random division of range(n): (train, test) positions, sorted."""
  order = np.random.default_rng(0).permutation(n)
  return np.sort(order[test:]), np.sort(order[:test])


def utf8(text: str, length: int) -> np.ndarray:
  """i32[length]: the bytes of a text, cut or filled up with zeros."""
  raw = text.encode("utf-8")[:length].ljust(length, b"\0")
  return np.frombuffer(raw, np.uint8).astype(np.int32)
