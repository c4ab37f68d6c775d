"""What a data set is here: two random-access sources and the class names.

A source answers `len(source)` and `source[i]`, a dict of arrays without a
batch axis:

  image    u8[H, W, C]     pixels 0..255
  video    u8[T, H, W, C]  frames
  audio    f32[N]          samples in [-1, 1]
  text     i32[N]          ids of symbols
  series   f32[T, D]       D values at each time
  label    i32[]           class, 0 <= label < num_classes
  ...                      whatever else the set knows (`style`), or `units`
                           in the place of what they are units of

No field is in every set; `Dataset.forms` says what the numbers mean.

`source[i]` is always the same example, and is what evaluation reads. A source
that has more than one honest view of an example (a random crop of a large
picture, one of several cached views) also has `draw(i, rng)`, which is what
training reads. One that knows a label without reading the rest has
`label(i)`, one that knows them all has `labels()`. A plain list of such dicts
is a source, too.
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
    order: in which training reads them, see `pipeline.batches`.
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
  order: str = "shuffled"


def label(source: Source, i: int) -> int:
  """The label of example `i`, without reading more than is needed.

  Raises:
    UserError: it has none.
  """
  own = getattr(source, "label", None)
  if own is not None:
    return int(own(i))
  example = source[i]
  if "label" not in example:
    raise UserError(
      f"data: the examples have no label, only {', '.join(sorted(example))}; "
      "choose a set with classes, or a system without"
    )
  return int(example["label"])


def draw(source: Source, i: int, rng: np.random.Generator | None) -> Example:
  """The random view of example `i`; `source[i]` where it has only one, which
  needs no generator."""
  own = getattr(source, "draw", None)
  return dict(source[i] if own is None else own(i, rng))


class Around:
  """A source around another, which says of labels what that one does: a
  source that knows none has neither `label` nor `labels`. Abstract.

  Attributes:
    source: the one inside.
  """

  def __init__(self, source: Source):
    self.source = source
    for name in ("label", "labels"):
      if hasattr(source, name):
        setattr(self, name, getattr(source, name))

  def __len__(self) -> int:
    return len(self.source)


class Arrays:
  """A source over arrays in memory.

  Args:
    fields: name -> [N, ...], as they are stored. Where `label` is among them,
      it is made i32, and `label(i)` and `labels()` say it.
    fit: name -> what brings one stored value to its final form. It runs on
      access, so that, for images, only the small originals are held.
    num_classes: labels must lie in [0, num_classes).
    where: names the data in messages.

  Raises:
    UserError: a label is out of range, or the lengths differ.
  """

  def __init__(
    self,
    fields: Mapping[str, np.ndarray],
    fit: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    *,
    num_classes: int = 0,
    where: str,
  ):
    self._fields, self._fit = dict(fields), dict(fit or {})
    first, *others = self._fields
    self._length = len(self._fields[first])
    for name in others:
      if len(self._fields[name]) != self._length:
        raise UserError(
          f"{where}: {self._length} of {first!r} but "
          f"{len(self._fields[name])} of {name!r}; the files do not belong "
          "together"
        )
    if "label" in self._fields:
      label = np.asarray(self._fields["label"], np.int32)
      check_labels(label, num_classes, where)
      self._fields["label"] = label
      self.labels = lambda: label
      self.label = lambda i: int(label[i])

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, i: int) -> Example:
    same = lambda x: x
    return {k: self._fit.get(k, same)(v[i]) for k, v in self._fields.items()}


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
  """i32[length]: the bytes of a text, cut behind a whole character or filled
  up with zeros."""
  raw = text.encode("utf-8")[:length].decode("utf-8", "ignore")
  raw = raw.encode("utf-8").ljust(length, b"\0")
  return np.frombuffer(raw, np.uint8).astype(np.int32)
