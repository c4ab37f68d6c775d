"""Which chunks of text are most like a given one, within a compiled program.

The cosine of tf-idf vectors of hashed stretches of ids, as the host has it in
`data.text.retrieval`; so what is looked up while a text is written is what
stood beside the texts of training. A chunk has few stretches, so that the n
chunks that may be found are a table of their numbers and weights, and no matrix
of n by F: an answer is exact and reads n E numbers.

Shapes: B batch, n chunks, m ids of a chunk, E stretches of a chunk, F hashed
stretches, k answers.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
FEATURES = 2**18  # F
_PRIME = 1_000_003
NONE = -1  # of ids: a place that no stretch crosses


def hashed(ids: np.ndarray, orders: tuple[int, ...]) -> np.ndarray:
  """i32[..., E]: the number of every stretch of ids i[..., m], by order and
  place; -1 of those that hold a negative id."""
  found = []
  for order in orders:
    count = max(ids.shape[-1] - order + 1, 0)
    key = np.full((*ids.shape[:-1], count), order, np.uint64)
    good = np.ones(key.shape, bool)
    for i in range(order):
      part = ids[..., i : i + count]
      good &= part >= 0
      key = key * np.uint64(_PRIME) ^ part.astype(np.uint64)
      key ^= key >> np.uint64(29)
    number = (key % np.uint64(FEATURES)).astype(np.int32)
    found.append(np.where(good, number, -1))
  return np.concatenate(found, -1).astype(np.int32)


def hashed_in_jit(ids: Array, orders: tuple[int, ...]) -> Array:
  """As `hashed`, of i32[..., m], by halves of 32 bits."""
  found = []
  for order in orders:
    count = max(ids.shape[-1] - order + 1, 0)
    low = jnp.full((*ids.shape[:-1], count), order, jnp.uint32)
    high, good = jnp.zeros_like(low), jnp.ones(low.shape, bool)
    for i in range(order):
      part = ids[..., i : i + count]
      good &= part >= 0
      low, high = _times(low, high)
      low ^= part.astype(jnp.uint32)
      low, high = low ^ (low >> 29 | high << 3), high ^ (high >> 29)
    number = (low % FEATURES).astype(jnp.int32)
    found.append(jnp.where(good, number, -1))
  return jnp.concatenate(found, -1)


def _times(low: Array, high: Array) -> tuple[Array, Array]:
  """A number of 64 bits times the prime, which has 20: by parts of 11 bits,
  whose products fit into 32."""
  prime, mask = np.uint32(_PRIME), np.uint32(2**11 - 1)
  p0 = (low & mask) * prime
  p1 = (low >> 11 & mask) * prime
  p2 = (low >> 22) * prime
  carry = (p2 + (((p0 >> 11) + p1) >> 11)) >> 10
  return low * prime, high * prime + carry


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Index:
  """The chunks that may be found.

  Attributes:
    ids: i32[n, R], what is returned of each, its own m ids first.
    number: i32[n, E], its different stretches.
    weight: f32[n, E], their share of its vector, of length 1; 0 of none.
    rarity: f32[F], the factor of each stretch in a question.
  """

  ids: Array
  number: Array
  weight: Array
  rarity: Array


def empty(n: int, width: int, chunk: int, orders: tuple[int, ...]) -> Index:
  """An index of nothing, with room for n chunks."""
  stretches = sum(max(chunk - order + 1, 0) for order in orders)
  return Index(
    jnp.zeros((n, width), jnp.int32),
    jnp.zeros((n, stretches), jnp.int32),
    jnp.zeros((n, stretches)),
    jnp.ones(FEATURES),
  )


def fill(
  n: int, ids: np.ndarray, own: np.ndarray, orders: tuple[int, ...]
) -> Index:
  """The index of these chunks, on the host.

  Args:
    n: it has room for so many; further ones are left out.
    ids: i32[n', R], what is returned of each.
    own: i32[n', m], its own ids, negative where no stretch may cross.
    orders: lengths of the stretches.
  """
  ids, own = ids[:n], own[:n]
  number = np.sort(hashed(own, orders), 1)
  new = np.diff(number, axis=1, prepend=-1) > 0  # -1 stands in front
  often = np.zeros(number.shape)
  for j in range(number.shape[1]):  # each as often as it comes, at its first
    often += new & (number[:, j : j + 1] == number)
  frequency = np.bincount(number[new], minlength=FEATURES)
  # As scikit-learn's TfidfTransformer, sublinear.
  rarity = np.log((1 + len(ids)) / (1 + frequency)) + 1
  weight = np.where(new, (1 + np.log(np.maximum(often, 1))) * rarity[number], 0)
  length = np.sqrt(np.sum(np.square(weight), 1, keepdims=True))
  weight /= np.maximum(length, 1e-9)
  room = lambda x, dtype: np.concatenate(
    [x, np.zeros((n - len(x), x.shape[1]))]
  ).astype(dtype)
  return Index(
    room(ids, np.int32),
    room(np.maximum(number, 0), np.int32),
    room(weight, np.float32),
    rarity.astype(np.float32),
  )


def search(
  index: Index,
  own: Array,
  compared: Array,
  k: int,
  orders: tuple[int, ...],
) -> tuple[Array, Array]:
  """What is most like chunks i32[B, m]; `compared` are their ids, but negative
  where no stretch may cross.

  Returns:
    i32[B, k, R], those of the k most like, the most like first, and 0 where
    nothing is like it; and which are there, bool[B, k]. A chunk with the
    very same ids is not found: it would be the one that asks.
  """
  index = jax.tree.map(jnp.asarray, index)
  number, chunk = hashed_in_jit(compared, orders), own.shape[1]

  def one(number, own):
    at = jnp.where(number < 0, FEATURES, number)
    often = jnp.zeros(FEATURES).at[at].add(1.0, mode="drop")
    asked = (1 + jnp.log(jnp.maximum(often, 1.0))) * index.rarity
    asked = jnp.where(often > 0, asked, 0.0)
    like = jnp.sum(index.weight * asked[index.number], 1)
    same = jnp.all(index.ids[:, :chunk] == own[None], 1)
    best, row = jax.lax.top_k(jnp.where(same, 0.0, like), k)
    there = best > 0
    return jnp.where(there[:, None], index.ids[row], 0), there

  return jax.lax.map(lambda x: one(*x), (number, own))
