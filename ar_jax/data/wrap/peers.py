"""Other examples beside an example: of the same class, or any.

`peer_<field>`, [k, ...], stands beside each `<field>`: k distinct others, never
the example itself. `source[i]` has the next k by their place in the source;
`draw` has random ones, each a random view.

It wraps any source, also stored units: `around` puts them in the place of the
examples that they were made of.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.data import digests
from ar_jax.data.dataset import Around, Dataset, Example, Source, draw, label


def add(dataset: Dataset, k: int, *, same_class: bool = True) -> Dataset:
  """The data set with k others beside each example, in both parts of the
  training part: an example of the test part is never shown.

  Raises:
    UserError: k is negative, or a class has too few examples.
  """
  train = Peers(dataset.train, k, same_class=same_class)
  test = Peers(dataset.test, k, same_class=same_class, pool=dataset.train)
  digest = dataset.digest
  if digest:
    digest = digests.fingerprint(digest, "peers", k, same_class)
  return dataclasses.replace(dataset, train=train, test=test, digest=digest)


def alone(source: Source) -> Source:
  """The source without what `Peers` puts beside its examples."""
  return source.source if isinstance(source, Peers) else source


def around(source: Source, like: Source) -> Source:
  """`source` with peers of its own, if `like` has them."""
  return like.of(source) if isinstance(like, Peers) else source


class Peers(Around):
  """See the module's docstring.

  Args:
    source: any.
    k: how many others.
    same_class: whether they have the label of the example.
    pool: where they are from, a source that shares no example with this one;
      by default it is this one.

  Raises:
    UserError: k is negative. When an example is first read: there are too few
      others, of its class or of another.
  """

  def __init__(
    self,
    source: Source,
    k: int,
    *,
    same_class: bool = True,
    pool: Source | None = None,
  ):
    super().__init__(source)
    if k < 1:
      raise UserError(f"data.peers={k}: must be at least 1, or 0 for none")
    self._k, self._same_class = k, same_class
    self._pool = source if pool is None else pool
    self._other = pool is not None and pool is not source

  def of(self, source: Source) -> Peers:
    """The same of another source, whose example i is example i of this one in
    another form, with peers of its own."""
    if len(source) != len(self):
      raise UserError(
        f"data.peers: {len(source)} stored examples in the place of "
        f"{len(self)}; remove them, they are encoded anew"
      )
    return Peers(source, self._k, same_class=self._same_class)

  def __getitem__(self, i: int) -> Example:
    one = self.source[i]
    candidates, own = self._candidates(i, one)
    first = np.searchsorted(candidates, i, side="right")
    chosen = [candidates[(first + j) % len(candidates)] for j in range(self._k)]
    assert own is None or i not in chosen
    return self._beside(one, [self._pool[int(j)] for j in chosen])

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    one = draw(self.source, i, rng)
    candidates, own = self._candidates(i, one)
    count = len(candidates) - (own is not None)
    places = rng.choice(count, self._k, replace=False)
    if own is not None:  # the place of the example itself is left out
      places = places + (places >= own)
    chosen = candidates[places]
    assert own is None or i not in chosen
    others = [draw(self._pool, int(j), rng) for j in chosen]
    return self._beside(one, others)

  def _candidates(self, i: int, one: Example) -> tuple[np.ndarray, int | None]:
    """(i64[n]: numbers in the pool, the place of example i among them, None
    where it is of another source)."""
    if self._same_class:
      which = int(one["label"]) if "label" in one else label(self.source, i)
      found = self._classes.get(which, np.zeros(0, np.int64))
      what = f"class {which}"
    else:
      found, what = self._everything, "the data"
    own = None if self._other else int(np.searchsorted(found, i))
    there = len(found) - (own is not None)
    if there < self._k:
      raise UserError(
        f"data.peers={self._k}: {what} has {there} other examples for "
        "training; choose fewer, or same_class=False, or add examples"
      )
    return found, own

  @functools.cached_property
  def _everything(self) -> np.ndarray:
    return np.arange(len(self._pool))

  @functools.cached_property
  def _classes(self) -> dict[int, np.ndarray]:
    """Label -> the numbers of its examples, ascending."""
    pool = self._pool
    if hasattr(pool, "labels"):
      labels = np.asarray(pool.labels())
    else:
      labels = np.asarray([label(pool, i) for i in range(len(pool))])
    order = np.argsort(labels, kind="stable")
    values, starts = np.unique(labels[order], return_index=True)
    groups = np.split(order, starts[1:])
    return {int(v): g for v, g in zip(values, groups, strict=True)}

  def _beside(self, one: Example, others: list[Example]) -> Example:
    peers = {
      f"peer_{name}": np.stack([other[name] for other in others])
      for name in one
    }
    return {**one, **peers}
