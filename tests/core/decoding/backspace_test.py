"""Nodes of texts that are written with a backspace, against a list of them."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.decoding import backspace

V, STOP, A, L = 4, 0, 14, 6


def texts(seed: int, batch: int):
  """Random actions i32[batch, A] that keep to the rules, and their number."""
  rng = np.random.default_rng(seed)
  action = rng.integers(0, V + 1, (batch, A))  # what is behind the end, too
  count = np.zeros(batch, int)
  for b in range(batch):
    depth = 0
    for t in range(A):
      may = [1, 2, 3, 1, 2, 3] + ([V] * 4 if depth else [])
      action[b, t] = rng.choice(may + ([STOP] if t > 8 else []))
      if action[b, t] == V:
        depth -= 1
      count[b] = t + 1
      if action[b, t] == STOP:
        break
      depth += action[b, t] != V
      if depth == L:
        break
  return action.astype(np.int32), count.astype(np.int32)


class BackspaceTest(absltest.TestCase):
  def test_walk_is_that_of_a_list(self):
    action, count = texts(0, 40)
    self.assertGreater((action == V).sum(), 40)
    size = backspace.nodes(A, L)
    self.assertEqual(size, 11)
    found = jax.jit(
      lambda a, n: backspace.walk(a, n, vocab=V, stop=STOP, size=size, length=L)
    )(action, count)
    found = jax.tree.map(np.asarray, found)
    for b in range(len(action)):
      stack, made = [0], [(0, 0, {0})]
      for t in range(count[b]):
        a = action[b, t]
        self.assertEqual(found.state[b, t], stack[-1])
        if a == V:
          stack.pop()
        elif a != STOP:
          stack.append(len(made))
          made.append((a, len(stack) - 1, set(stack)))
        self.assertEqual(found.next[b, t], stack[-1])
        full = a != V and len(stack) - 1 == L
        self.assertEqual(found.ends[b, t], a == STOP or full)
      np.testing.assert_array_equal(found.valid[b], np.arange(A) < count[b])
      self.assertLessEqual(len(made), size)
      for n, (token, depth, below) in enumerate(made):
        self.assertEqual(found.token[b, n], token)
        self.assertEqual(found.depth[b, n], depth)
        self.assertEqual(set(np.flatnonzero(found.sees[b, n])), below)
      self.assertTrue(found.sees[b, :, 0].all())
      self.assertFalse(found.ends[b, count[b] :].any())

  def test_wrong_keys_are_taken_back(self):
    rng = np.random.default_rng(1)
    units = rng.integers(1, V, (200, L)).astype(np.int32)
    units[:100, 3:] = STOP
    noised = lambda most: jax.tree.map(
      np.asarray,
      backspace.noised(
        jnp.asarray(units), jax.random.split(jax.random.key(0), 200),
        rate=0.4, vocab=V, stop=STOP, actions=most, prompt=2,
      ),
    )  # fmt: skip
    action, count, wrong = noised(3 * L)
    for b in range(200):
      written = []
      for t, a in enumerate(action[b, : count[b]]):
        if a == V:
          self.assertTrue(wrong[b, t - 1])
          written.pop()
        else:
          written.append(a)
      real = units[b, :4] if b < 100 else units[b]
      np.testing.assert_array_equal(written, real)
      # Nothing happens in the prompt.
      np.testing.assert_array_equal(action[b, :2], units[b, :2])
    self.assertFalse((action[wrong] == STOP).any())
    self.assertFalse((action[wrong] == V).any())
    # Of 4 units behind the prompt but the last, and of 2.
    self.assertAlmostEqual(wrong.sum() / 500, 0.4, delta=0.07)
    short, number, _ = noised(L + 1)
    np.testing.assert_array_equal(short, action[:, : L + 1])
    self.assertEqual(number.max(), L + 1)
    none = backspace.symbols(jax.random.key(0), (99,), V, None)
    self.assertCountEqual(np.unique(none), range(V))


if __name__ == "__main__":
  absltest.main()
