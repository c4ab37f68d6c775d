"""What to ask a system for: sample i's condition is a function of i alone.

It depends neither on how many are drawn nor in which batches, so a run of 64
samples is the beginning of one of 50,000, and any stretch of samples (a block
of an Inception Score) has the classes in their shares. What is true of a
sample is in the test example that its condition comes from.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.forms import Text
from ar_jax.core.system import System
from ar_jax.data import Dataset
from ar_jax.data.dataset import Source, label
from ar_jax.encoders.text import encoder_of

LAWS = ("balanced", "uniform", "data")
_MOST = 20_000  # labels that are counted where they must be read one by one
_UNEVEN = 2.0  # times as many in the largest class as in the smallest


def conditions(
  system: System,
  data: Dataset,
  n: int,
  *,
  labels: Sequence[int] = (),
  law: str = "balanced",
) -> dict[str, np.ndarray]:
  """The conditions of n samples.

  Args:
    system: its `needs` say what it reads.
    data: gives the classes and the test split.
    n: how many.
    labels: sample i has the class labels[i mod len(labels)]; -1 is none, for
      systems that can do without. Empty means by `law`.
    law: of the labels, see `draw_labels`.

  Returns:
    name -> [n, ...]. A system that needs no more than a label gets labels by
    law; one that needs nothing gets `index`, the numbers of the samples, so
    that rows can be counted; another gets what it needs of test examples in a
    fixed random order without repeats, and in the same order again if there
    are too few.

  Raises:
    UserError: a label is out of range, or there are no classes, or the
      examples lack something.
  """
  if of_examples(system):
    return rows(data, system.needs, "the system needs", n)
  if "label" not in system.needs:
    return {"index": np.arange(n, dtype=np.int32)}
  return {"label": labels_of(system, data, n, labels, law)}


def prompted(
  system: System,
  data: Dataset,
  n: int,
  text: str | Sequence[str],
  key: str = "sample.prompt",
) -> dict[str, np.ndarray]:
  """The conditions of n samples that are asked for by a text, or by several in
  turn.

  Of a system that reads texts it is the text that it reads; of one that goes
  on with texts it is how each begins: `prompt` i32[n, M], its ids, and `known`
  i32[n], how many they are.

  Args:
    system, data: see `conditions`.
    n: how many.
    text: one or more; sample i has number i mod their number.
    key: of the config, for messages.

  Raises:
    UserError: the system does neither; a symbol is not in the vocabulary of
      the data; or the text is too long.
  """
  texts = [text] if isinstance(text, str) else list(text)
  turn = np.arange(n) % len(texts)
  field = next((k for k in system.needs if k in TEXTS), None)
  try:
    if field is not None:
      form, length = _typed(system, data, field)
      return {field: np.stack([form.ids(x, length) for x in texts])[turn]}
    form = data.forms.get(system.makes[0])
    if "prompt" not in system.takes or not isinstance(form, Text):
      raise UserError(
        f"this system reads {', '.join(system.needs) or 'nothing'}, makes "
        f"{', '.join(system.makes)}, and cannot go on with a text"
      )
    ids = [form.ids(x) for x in texts]
  except UserError as e:
    said = repr(texts[0][:40]) if isinstance(text, str) else "..."
    raise UserError(f"{key}={said}: {e}") from e
  known = np.asarray([len(x) for x in ids], np.int32)
  room = known.max()
  ids = np.stack([np.pad(x, (0, room - len(x))) for x in ids])
  return {"prompt": ids[turn], "known": known[turn]}


TEXTS = ("text",)  # conditions that may be typed


def _typed(system: System, data: Dataset, field: str) -> tuple[Text, int]:
  """(the form of a text that is typed, its length): that which the encoder of
  the system reads, or that of the texts of the data."""
  fields = getattr(data, "fields", None)  # a run knows them without reading
  if fields is None:
    fields = {k: (v.shape, str(v.dtype)) for k, v in data.test[0].items()}
  form = getattr(encoder_of(system), "form", None) or data.forms.get(field)
  shape, kind = fields.get(field, ((), "no numbers"))
  if form is None or len(shape) != 1:
    raise UserError(
      f"this system reads {field} as another encoder made it, {kind} of shape "
      f"{list(shape)}, and no words; give it in the data"
    )
  return form, shape[0]


def labels_of(
  system: System,
  data: Dataset,
  n: int,
  labels: Sequence[int] = (),
  law: str = "balanced",
) -> np.ndarray:
  """i32[n]: the classes of n samples; arguments as in `conditions`.

  Raises:
    UserError: a label is out of range, or there are no classes.
  """
  if not data.num_classes:
    raise UserError(
      f"the system reads a label; {data.name} has no classes: train it on data "
      "that have, or build it without"
    )
  if len(labels):
    return _given(system, data, n, labels)
  return draw_labels(data, n, law)


def of_examples(system: System) -> bool:
  """Whether conditions are those of test examples, so that each sample has a
  truth of its own."""
  return not set(system.needs) <= {"label"}


def truth(
  system: System,
  data: Dataset,
  n: int,
  *,
  fields: Sequence[str] = (),
  start: int = 0,
) -> dict[str, np.ndarray]:
  """What is true of the samples start .. start + n - 1.

  Args:
    system: its `makes` are the fields.
    data: gives the test split.
    n: how many.
    fields: in place of `system.makes`.
    start: the number of the first sample.

  Returns:
    name -> [n, ...], of the test examples from which `conditions` takes what
    it asks for. Where it asks for labels or for nothing, they are test
    examples in the same random order, which belong to no one sample: see
    `of_examples`.

  Raises:
    UserError: the examples lack such a field.
  """
  names = tuple(fields or system.makes)
  return rows(data, names, "the truth of a sample is", n, start)


def rows(
  data: Dataset, names: Sequence[str], why: str, n: int, start: int = 0
) -> dict[str, np.ndarray]:
  """Fields of the test examples of the samples start .. start + n - 1; `why`
  they are read is said where they are lacking.

  Raises:
    UserError: the examples lack one of them.
  """
  if not len(data.test):
    raise UserError(f"{data.name}: its test split holds no example")
  order = some(len(data.test), start + n)[start:]
  examples = [data.test[int(i)] for i in order]
  missing = [k for k in names if examples and k not in examples[0]]
  if missing:
    raise UserError(
      f"{why} {', '.join(missing)}, which the examples of {data.name!r} do not "
      "have"
    )
  return {name: np.stack([e[name] for e in examples]) for name in names}


def draw_labels(data: Dataset, n: int, law: str) -> np.ndarray:
  """i32[n]: the classes of n samples.

  - balanced: sample i has class i * stride mod classes; see `stride`.
  - uniform: drawn evenly, with a fixed seed.
  - data: those of training examples drawn with a fixed seed, so that classes
    have the shares that they have in the data.

  Raises:
    UserError: there is no such law.
  """
  check_law(law)
  classes = data.num_classes
  if law == "balanced":
    return (np.arange(n) * stride(classes) % classes).astype(np.int32)
  rng = np.random.default_rng(0)
  if law == "uniform":
    return rng.integers(classes, size=n).astype(np.int32)
  rows = rng.integers(len(data.train), size=n)
  return np.asarray([label(data.train, int(i)) for i in rows], np.int32)


@functools.cache
def stride(classes: int) -> int:
  """A whole number s without a common divisor with `classes`, such that the
  multiples of s lie evenly on a circle of so many classes.

  Without a common divisor each class comes once before any comes again. The
  multiples of s lie the more evenly, however many there are of them, the
  smaller the partial quotients of the continued fraction of s / classes are;
  so it is the s with the smallest largest one, and of these the nearest to
  the golden section, where all of them would be 1.
  """
  golden = classes * (math.sqrt(5) - 1) / 2

  def key(s: int) -> tuple[int, float]:
    above, below, largest = classes, s, 1
    while below:
      largest = max(largest, above // below)
      above, below = below, above % below
    return largest, abs(s - golden)

  coprime = (s for s in range(1, classes + 1) if math.gcd(s, classes) == 1)
  return min(coprime, key=key)


def some(size: int, n: int, seed: int = 0) -> np.ndarray:
  """i64[n]: rows of `size`, in a random order that depends on the seed alone;
  all of them before any comes again."""
  order = np.random.default_rng(seed).permutation(size)
  return np.resize(order, n)


def law_of(data: Dataset, wanted: str) -> str:
  """The law of the labels in an evaluation against the data.

  "" is "balanced", as published figures have it, unless the data are uneven:
  where the largest class has more than twice as many training examples as the
  smallest, samples of even classes are not what the reference holds, and the
  law is "data". Sets of more than 20,000 examples whose labels are not at
  hand count as even.

  Raises:
    UserError: there is no such law.
  """
  if wanted:
    check_law(wanted)
    return wanted
  if not data.num_classes:
    return "balanced"
  count = _counts(data.train, data.num_classes)
  if count is None or count.max() <= _UNEVEN * count.min():
    return "balanced"
  return "data"


def described(system: System, law: str) -> str:
  """What `conditions` does, for the protocol."""
  if not of_examples(system):
    return law if "label" in system.needs else "none"
  return f"{', '.join(system.needs)} of the test split, in a random order"


def by_class(label: np.ndarray, columns: int) -> tuple[np.ndarray, int]:
  """(which samples to show, columns of the grid): samples i32[N] class by
  class, a row each where every class has several, and `columns` rows at most;
  else as they come, sorted."""
  classes, counts = np.unique(label, return_counts=True)
  each = min(columns, int(counts.min()))
  if each < 2:
    order = np.argsort(label, kind="stable")[: columns * columns]
    return order, min(columns, len(order))
  rows = [np.flatnonzero(label == c)[:each] for c in classes[:columns]]
  return np.concatenate(rows), each


def check_law(law: str) -> None:
  """Raises UserError unless there is such a law."""
  check_choice("labels", law, LAWS)


def _given(
  system: System, data: Dataset, n: int, labels: Sequence[int]
) -> np.ndarray:
  classes = np.asarray(labels)
  null = getattr(system, "null", None)
  lowest = 0 if null is None else -1
  whole = np.issubdtype(classes.dtype, np.integer)
  if not whole or classes.min() < lowest or classes.max() >= data.num_classes:
    raise UserError(
      f"sample.labels={tuple(labels)}: {data.name} has the classes 0 to "
      f"{data.num_classes - 1}, in whole numbers"
    )
  classes = np.where(classes < 0, null or 0, classes).astype(np.int32)
  return np.resize(classes, n)


def _counts(source: Source, classes: int) -> np.ndarray | None:
  """i64[classes]: examples of each class, or None where it takes too long."""
  n = len(source)
  if hasattr(source, "labels"):
    return np.bincount(source.labels(), minlength=classes)
  if n > _MOST or not (hasattr(source, "label") or isinstance(source, list)):
    return None
  found = [label(source, i) for i in range(n)]
  return np.bincount(found, minlength=classes)
