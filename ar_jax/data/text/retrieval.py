"""For every chunk of a text those of other texts that are most like it.

Likeness is the cosine of tf-idf vectors (scikit-learn) of words and pairs of
words, or of stretches of 3 and 5 characters, hashed. The index is exact: of
40,000 chunks it is made in half a minute, once.

The chunks that may be found are those of the training texts, never of the
text that asks. Beside a chunk found stands the one that follows it there, or
nothing at the end of its text.

m ids of a chunk, l chunks of a window, k neighbours, n training chunks, F
hashed features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Text
from ar_jax.data import array_cache, notes
from ar_jax.data.dataset import Example
from ar_jax.data.text.vocabulary import STOP, UNKNOWN
from ar_jax.data.text.windows import Windows

_FEATURES = 2**18  # F
_BLOCK = 256  # chunks that are compared with all others at once
_VERSION = "tf-idf 1"  # whoever changes what is found changes this


@dataclasses.dataclass(frozen=True)
class Chunks:
  """The chunks of the texts of a source, cut at multiples of m.

  Attributes:
    source: of windows.
    size: m.
    document: i64[n], the text of each.
    begin: i64[n], its place there.
    first: i64[texts + 1], the number of the first chunk of each text.
  """

  source: Windows
  size: int
  document: np.ndarray
  begin: np.ndarray
  first: np.ndarray

  @classmethod
  def of(cls, source: Windows, size: int) -> Chunks:
    each = -(-np.diff(source.offset) // size)
    first = np.concatenate([[0], np.cumsum(each)])
    document = np.repeat(np.arange(len(each)), each)
    begin = (np.arange(first[-1]) - first[document]) * size
    return cls(source, size, document, begin, first)

  def read(self, i: int, length: int) -> np.ndarray:
    """i32[length]: what stands from chunk i on, filled up with `stop`."""
    text = self.document[i]
    start = self.source.offset[text] + self.begin[i]
    end = min(start + length, self.source.offset[text + 1])
    found = np.full(length, self.source.stop, np.int32)
    found[: end - start] = self.source.ids[start:end]
    return found

  def grams(self, orders: tuple[int, ...], plain: bool):
    """Sparse f32[n, F]: how often each chunk has each stretch of ids.

    Args:
      orders: lengths of the stretches.
      plain: without those that hold an end or an unknown symbol.
    """
    from scipy import sparse

    n, ids = len(self.document), self.source.ids.astype(np.uint64)
    # The chunk of every id, by the place where it stands.
    starts = self.source.offset[self.document] + self.begin
    chunk = np.searchsorted(starts, np.arange(len(ids)), "right") - 1
    bad = (ids == STOP) | (ids == UNKNOWN) if plain else ids < 0
    rows, columns = [], []
    for order in orders:
      count = max(len(ids) - order + 1, 0)
      key = np.full(count, order, np.uint64)
      good = chunk[:count] == chunk[order - 1 :][:count]
      for i in range(order):
        key = (key * np.uint64(1_000_003)) ^ ids[i : i + count]
        key ^= key >> np.uint64(29)
        good &= ~bad[i : i + count]
      rows.append(chunk[:count][good])
      columns.append((key % np.uint64(_FEATURES)).astype(np.int64)[good])
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    ones = np.ones(len(rows), np.float32)
    return sparse.csr_matrix((ones, (rows, columns)), (n, _FEATURES))


def beside(
  train: Windows, test: Windows, form: Text, size: int, k: int
) -> None:
  """Adds to the examples of both sources `document` i32[], the number of the
  text in its part, and `neighbours` i32[l, k, 2 m]: of every chunk those most
  like it, the most like first, each with what follows. A row of ids 0 is none.

  Args:
    train, test: sources whose windows begin at multiples of m.
    form: of their ids.
    size: m.
    k: neighbours of each chunk.

  Raises:
    UserError: there is one training text only, so there are no others.
  """
  if len(train.offset) < 3:
    raise UserError(
      "data.neighbours: come from other training texts, of which there is "
      "only one; give more files"
    )
  base = Chunks.of(train, size)
  orders = (1, 2) if form.joint else (3, 5)
  for source in (train, test):
    asked = Chunks.of(source, size)
    found = _found(asked, base, orders, bool(form.symbols), k)
    source.more = _fields(asked, base, found)


def _fields(
  asked: Chunks, base: Chunks, found: np.ndarray
) -> Callable[[int, int], Example]:
  """(text, place where a window begins) -> its further fields."""
  size, k = asked.size, found.shape[1]

  def fields(document: int, begin: int) -> Example:
    length = asked.source.length // size
    rows = np.zeros((length, k, 2 * size), np.int32)
    first = asked.first[document] + begin // size
    last = min(first + length, asked.first[document + 1])
    for i, chunk in enumerate(range(first, last)):
      for j, other in enumerate(found[chunk]):
        if other >= 0:
          rows[i, j] = base.read(int(other), 2 * size)
    return {"document": np.int32(document), "neighbours": rows}

  return fields


def _found(
  asked: Chunks, base: Chunks, orders: tuple[int, ...], plain: bool, k: int
) -> np.ndarray:
  """i32[chunks asked for, k]: the numbers of chunks of `base`, -1 for none."""
  parts = [x for c in (asked, base) for x in (c.source.ids, c.source.offset)]
  name = array_cache.digest(
    _VERSION, f"{asked.size} {orders} {k} {asked.source is base.source}", *parts
  )
  if (saved := array_cache.load("neighbours", name)) is not None:
    return saved["found"]
  found = nearest(asked, base, orders, plain, k)
  array_cache.save("neighbours", name, {"found": found})
  return found


def nearest(
  asked: Chunks, base: Chunks, orders: tuple[int, ...], plain: bool, k: int
) -> np.ndarray:
  """i32[chunks asked for, k]: of each chunk the k of `base` that are most like
  it, without those of its own text; -1 where nothing is like it at all."""
  from sklearn.feature_extraction.text import TfidfTransformer

  notes.once(f"comparing {len(asked.document):,} chunks of text")
  law = TfidfTransformer(sublinear_tf=True)
  table = law.fit_transform(base.grams(orders, plain)).astype(np.float32)
  same = asked.source is base.source
  queries = table
  if not same:
    queries = law.transform(asked.grams(orders, plain)).astype(np.float32)
  columns = table.T.tocsr()
  n = len(base.document)
  found = np.full((len(asked.document), k), -1, np.int32)
  for start in range(0, len(found), _BLOCK):
    like = (queries[start : start + _BLOCK] @ columns).toarray()
    if same:
      own = asked.document[start : start + _BLOCK]
      like[own[:, None] == base.document[None]] = 0
    most = min(k, n)
    best = np.argpartition(-like, most - 1, axis=1)[:, :most]
    value = np.take_along_axis(like, best, 1)
    # The most like first, and of equals the first.
    order = np.lexsort((best, -value))
    best = np.take_along_axis(best, order, 1)
    value = np.take_along_axis(value, order, 1)
    found[start : start + _BLOCK, :most] = np.where(value > 0, best, -1)
  return found
