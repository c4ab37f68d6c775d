"""How sure it is that the units of an image were drawn by a green list.

The units of an image are counted: n green ones of N. By chance n has the mean
gamma N. How far it may stray says one of three nulls:

  binomial      units are independent: deviation sqrt(N gamma (1 - gamma)). As
                published, and wrong where units repeat: of a flat background
                one code is a hundred units, all of one colour.
  permutation   the units are what they are, and the list is any of its size,
                drawn at random: exact, whatever repeats.
  unique        each code counts once, however often it is there; n is then
                hypergeometric. It finds more where a background repeats.

Where all units are green, z of the binomial is sqrt(N (1 - gamma) / gamma):
with half of the codes green 8 for 64 units, 14 for 196, 16 for 256, 26 for 680.
An image of no more units cannot say more.

Shapes: N images, L units, V codes, M lists, R random lists.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from ar_jax.core.decoding import green_lists
from ar_jax.core.decoding.green_lists import Pool
from ar_jax.core.errors import UserError, check_choice

NULLS = ("binomial", "permutation", "unique")
_AT_ONCE = 2**24  # numbers of random lists in memory


@dataclasses.dataclass(frozen=True)
class Found:
  """What is known of each image.

  Attributes:
    green: f64[N, M], the share of green units.
    z: f64[N, M], deviations above chance.
    p: f64[N, M], the chance of at least as many green units, of each list by
      itself.
  """

  green: np.ndarray
  z: np.ndarray
  p: np.ndarray

  @property
  def best(self) -> np.ndarray:
    """i64[N]: the list that stands out most."""
    return np.argmax(self.z, 1)

  @property
  def highest(self) -> np.ndarray:
    """f64[N]: its z."""
    return self.z.max(1)

  def pooled(self, more: int = 1) -> np.ndarray:
    """f64[N]: the chance that any of the lists stands out as much, each tried
    in `more` ways."""
    tries = self.p.shape[1] * more
    least = np.minimum(self.p.min(1), 1 - 1e-16)
    return -np.expm1(tries * np.log1p(-least))


@dataclasses.dataclass(frozen=True)
class Detector:
  """Looks for the lists of a pool.

  Attributes:
    pool: the lists.
    groups: i32[V], which units have one colour; see `Pool.groups`.
    counted: bool[L], the units that a list marks; None for all.
    null: of NULLS.
    draws: R, random lists of the permutation null, which says no p below
      1 / (R + 1).
    seed: of these.
    stop: the code that fills an example up behind its end, which does not
      count; None for none.
  """

  pool: Pool
  groups: np.ndarray
  counted: np.ndarray | None = None
  null: str = "permutation"
  draws: int = 4000
  seed: int = 0
  stop: int | None = None

  def __post_init__(self):
    check_choice("null", self.null, NULLS)
    if self.draws < 1:
      raise UserError(f"draws={self.draws}: must be at least 1")

  @functools.cached_property
  def lists(self) -> np.ndarray:
    """bool[M, V]."""
    return self.pool.colours()[:, self.groups]

  def with_key(self, key: str, count: int | None = None) -> Detector:
    """Looks for another key's lists."""
    count = self.pool.count if count is None else count
    pool = dataclasses.replace(self.pool, key=key, count=count)
    return dataclasses.replace(self, pool=pool)

  def counts(self, units: np.ndarray) -> np.ndarray:
    """f32[N, V]: how often each code is there, of units i32[N, L]."""
    units = np.asarray(units)
    if self.counted is not None:
      units = units[:, self.counted]
    units = units.reshape(len(units), -1)  # of windows of several codes, too
    found = np.zeros((len(units), self.pool.vocab), np.float32)
    np.add.at(found, (np.arange(len(units))[:, None], units), 1)
    if self.stop is not None:
      found[:, self.stop] = 0
    return np.minimum(found, 1) if self.null == "unique" else found

  def random(self, counts: np.ndarray) -> np.ndarray:
    """f32[N, R]: green units by random lists above their mean, sorted; of
    counts f32[N, V]."""
    groups = green_lists.groups_of(self.pool.vocab, self.pool.cluster)
    green = green_lists.size(groups, self.pool.share)
    rng, block = np.random.default_rng(self.seed), max(1, _AT_ONCE // groups)
    parts = []
    for start in range(0, self.draws, block):
      some = min(block, self.draws - start)
      lists = green_lists.random_colours(rng, groups, some, green)
      parts.append(_above(counts, lists[:, self.groups]))
    return np.sort(np.concatenate(parts, 1), 1)

  def __call__(
    self, units: np.ndarray, random: np.ndarray | None = None
  ) -> Found:
    """`Found` of units i32[N, L].

    Args:
      units: of the images.
      random: what `self.random` says of them, which does not depend on the
        key; made here if None.
    """
    counts = self.counts(units)
    total, lists = counts.sum(1, keepdims=True), self.lists
    share = lists.mean(1)[None]
    above = _above(counts, lists)
    green = above / np.maximum(total, 1) + share
    if self.null == "binomial":
      spread = np.sqrt(total * share * (1 - share))
      p = _tail(above, total, share)
    else:
      spread = self._spread(counts)
      if self.null == "unique" and self.pool.cluster == 1:
        p = _tail(above, total, share, of=self.pool.vocab)
      else:
        p = _rank(above, self.random(counts) if random is None else random)
    z = np.divide(above, spread, out=np.zeros_like(above), where=spread > 0)
    return Found(green, z, p)

  def _spread(self, counts: np.ndarray) -> np.ndarray:
    """f64[N, 1]: the deviation of `_above` over random lists, exactly: that of
    a sum over groups drawn without replacement."""
    groups = green_lists.groups_of(self.pool.vocab, self.pool.cluster)
    by_group = np.zeros((groups, len(counts) + 1))
    every = np.concatenate([counts, np.ones_like(counts[:1])]).T
    np.add.at(by_group, self.groups, every)
    own, size = by_group[:, :-1], by_group[:, -1:] / self.pool.vocab
    square = np.square(own - size * own.sum(0)).sum(0)
    share = green_lists.size(groups, self.pool.share) / groups
    variance = share * (1 - share) * groups / (groups - 1) * square
    return np.sqrt(variance)[:, None]

  def most(self, length: int) -> float:
    """The largest z of the binomial null, of so many units."""
    share = float(self.lists.mean(1).max())
    if self.counted is not None:
      length = int(self.counted.sum())
    return float(np.sqrt(length * (1 - share) / share))


def threshold(alpha: float, lists: int) -> float:
  """The z that the best of so many lists exceeds by chance with probability
  alpha, were each of them normal: 1 - Phi(z)^M = alpha."""
  from scipy import stats  # slow to import

  one = -np.expm1(np.log1p(-alpha) / lists)
  return float(stats.norm.isf(one))


def _above(counts: np.ndarray, lists: np.ndarray) -> np.ndarray:
  """f64[N, M]: green units above their mean; sums of whole numbers are exact
  in float32."""
  green = counts @ lists.T.astype(np.float32)
  return green - counts.sum(1, keepdims=True) * lists.mean(1)[None]


def _rank(above: np.ndarray, random: np.ndarray) -> np.ndarray:
  """f64[N, M]: the share of random lists, this one among them, that say as
  much, of rows that are sorted."""
  draws, found = random.shape[1], np.empty(above.shape)
  for i, row in enumerate(random):
    least = above[i] - 1e-3  # what is equal but for rounding counts
    found[i] = draws - np.searchsorted(row, least)
  return (1 + found) / (draws + 1)


def _tail(
  above: np.ndarray, total: np.ndarray, share: np.ndarray, of: int = 0
) -> np.ndarray:
  """P(n >= what is there): binomial, or hypergeometric of a vocabulary."""
  from scipy import stats  # slow to import

  green = np.rint(above + total * share)
  if not of:
    return stats.binom.sf(green - 1, total, share)
  return stats.hypergeom.sf(green - 1, of, np.rint(of * share), total)
