"""Keyed lists of units that a watermark prefers (LBW, arXiv 2506.01011).

A list says of every unit of the vocabulary whether it is green, at all places
of an example alike, so units that change where an image is read again do not
change the list. A pool has several; who does not have its key cannot tell them
from chance.

Shapes: V units, M lists, G groups of units.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import near_codes
from ar_jax.core.errors import UserError

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Pool:
  """The lists of a key.

  Attributes:
    key: the secret.
    vocab: V.
    count: M.
    share: of the vocabulary that is green; the whole number below.
    cluster: so many units that are alike have one colour, so a unit that turns
      into a near one often stays green. 1 asks nothing of the codes.
  """

  key: str
  vocab: int
  count: int = 8
  share: float = 0.5
  cluster: int = 1

  def __post_init__(self):
    if self.count < 1:
      raise UserError(f"lists={self.count}: a pool has at least 1 list")
    if self.cluster < 1:
      raise UserError(f"cluster={self.cluster}: must be at least 1")
    groups = groups_of(self.vocab, self.cluster)
    if not 0 < size(groups, self.share) < groups:
      raise UserError(
        f"share={self.share}: {size(groups, self.share)} of {groups} "
        f"{'codes' if self.cluster == 1 else 'groups of codes'} would be "
        "green; must be some and not all"
      )

  def colours(self) -> np.ndarray:
    """bool[M, G], of groups; of units where a group is one."""
    groups = groups_of(self.vocab, self.cluster)
    return _colours(self.key, groups, self.count, size(groups, self.share))

  def lists(self, codes: Array | None = None) -> Array | np.ndarray:
    """bool[M, V].

    Args:
      codes: f32[V, d], what is known of each unit; only read where `cluster`
        is above 1.
    """
    if self.cluster == 1:
      return self.colours()
    return jnp.asarray(self.colours())[:, self.groups(codes)]

  def groups(self, codes: Array | None = None) -> Array | np.ndarray:
    """i32[V], which group a unit is in; arguments as in `lists`."""
    if self.cluster == 1:
      return np.arange(self.vocab, dtype=np.int32)
    return near_codes.partition(codes, self.cluster)


def groups_of(vocab: int, cluster: int) -> int:
  """G: the groups that `near_codes.partition` makes."""
  if cluster == 1:
    return vocab
  return 1 << max(0, (-(-vocab // cluster) - 1).bit_length())


def size(groups: int, share: float) -> int:
  """How many groups are green; a product that is whole but for rounding is
  that."""
  return int(np.floor(groups * share + 1e-9))


@functools.lru_cache(maxsize=64)
def _colours(key: str, groups: int, count: int, green: int) -> np.ndarray:
  """bool[M, G]: list m has the groups whose words of a stream of SHAKE-256,
  seeded by the key and m, are the smallest. That is a random permutation, cut
  off, and the same wherever it is made."""
  found = np.zeros((count, groups), bool)
  for m in range(count):
    seed = b"green list\0" + key.encode() + b"\0" + str(m).encode()
    words = hashlib.shake_256(seed).digest(8 * groups)
    order = np.argsort(np.frombuffer(words, "<u8"), kind="stable")
    found[m, order[:green]] = True
  found.flags.writeable = False
  return found


def random_colours(
  rng: np.random.Generator, groups: int, count: int, green: int
) -> np.ndarray:
  """bool[R, G]: so many lists of no key, of the same size; for a null."""
  order = rng.random((count, groups), np.float32).argpartition(green - 1, 1)
  found = np.zeros((count, groups), bool)
  np.put_along_axis(found, order[:, :green], True, 1)
  return found
