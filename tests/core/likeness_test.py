"""What is looked up within a program is what the host finds."""

import jax
import numpy as np
from absl.testing import absltest

from ar_jax.core import likeness
from ar_jax.data.text import retrieval
from ar_jax.data.text.windows import Windows

M = 6


class LikenessTest(absltest.TestCase):
  def test_the_same_hash(self):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 60_000, (50, 9)).astype(np.int32)
    ids[::7, 3] = -1
    for orders in ((1, 2), (3, 5)):
      want = likeness.hashed(ids, orders)
      found = jax.jit(lambda x, o=orders: likeness.hashed_in_jit(x, o))(ids)
      np.testing.assert_array_equal(found, want)
    self.assertGreater((want < 0).sum(), 0)
    self.assertGreater(len(np.unique(want)), 300)

  def test_as_the_host(self):
    """The neighbours of `data.text.retrieval`, of the texts of the test part,
    for words and for characters."""
    rng = np.random.default_rng(1)
    texts = [
      rng.choice(40, 60, p=np.arange(1, 41) / 820).astype(np.int32) + 2
      for _ in range(14)
    ]
    train, test = (Windows(x, M, M) for x in (texts[:10], texts[10:]))
    base, asked = (retrieval.Chunks.of(s, M) for s in (train, test))
    for orders in ((1, 2), (3, 5)):
      want = retrieval.nearest(asked, base, orders, True, 3)
      read = lambda c: np.stack([c.read(i, 2 * M) for i in range(len(c.begin))])
      texts, queries = read(base), read(asked)[:, :M]
      index = likeness.fill(len(texts) + 5, texts, texts[:, :M], orders)
      found, there = jax.jit(
        lambda i, q, o=orders: likeness.search(i, q, q, 3, o)
      )(index, queries)
      np.testing.assert_array_equal(there, want >= 0)
      same = 0
      for i, row in enumerate(want):
        for j in np.flatnonzero(row >= 0):
          same += np.array_equal(found[i, j], texts[row[j]])
      # Of equally good ones either may come first.
      self.assertGreater(same / (want >= 0).sum(), 0.97)

  def test_nothing_finds_itself(self):
    texts = np.arange(2, 26).reshape(2, 12).astype(np.int32)
    texts = np.concatenate([texts, texts[:1]])
    texts[2, 5] = 1
    index = likeness.fill(4, texts, texts[:, :M], (1, 2))
    found, there = likeness.search(
      index, texts[:1, :M], texts[:1, :M], 2, (1, 2)
    )
    np.testing.assert_array_equal(there, [[True, False]])
    np.testing.assert_array_equal(found[0], [texts[2], np.zeros(12)])


if __name__ == "__main__":
  absltest.main()
