"""CTC against the sum over all paths, and its greedy reading."""

import itertools

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.nn.heads import ctc


def collapsed(path):
  return tuple(k for k, _ in itertools.groupby(path) if k)


class CtcTest(absltest.TestCase):
  def test_loss_is_that_of_all_paths(self):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 3)).astype(np.float32)
    there = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]], bool)
    target = np.array([[1, 2], [1, 1], [2, 0]])
    real = np.array([[1, 1], [1, 1], [1, 0]], bool)
    found = ctc.loss(
      *map(jnp.asarray, (logits, there, target, real))
    )  # fmt: skip
    law = np.exp(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
    for i in range(3):
      wanted = tuple(target[i][real[i]])
      n = there[i].sum()
      total = sum(
        np.prod([law[i, t, k] for t, k in enumerate(path)])
        for path in itertools.product(range(3), repeat=int(n))
        if collapsed(path) == wanted
      )
      np.testing.assert_allclose(found[i], -np.log(total), rtol=1e-5)

  def test_collapse(self):
    ids = jnp.array([[0, 1, 1, 0, 1, 2], [2, 2, 2, 0, 0, 3]])
    there = jnp.array([[True] * 6, [True] * 5 + [False]])
    front, count = ctc.collapse(ids, there)
    np.testing.assert_array_equal(
      front, [[1, 1, 2, 0, 0, 0], [2, 0, 0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(count, [3, 1])
    logits = jnp.eye(4)[ids]
    np.testing.assert_array_equal(ctc.greedy(logits, there)[0], front)


if __name__ == "__main__":
  absltest.main()
