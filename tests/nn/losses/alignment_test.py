"""Cosines, means over some positions, and what they move."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.nn.losses import alignment


class AlignmentTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.x = rng.normal(size=(2, 5, 3)).astype(np.float32)
    self.y = rng.normal(size=(2, 3)).astype(np.float32)

  def test_a_mean_over_the_positions(self):
    mask = np.array([[1, 0, 1, 1, 0], [0, 0, 1, 0, 0]], bool)
    want = []
    for x, y, m in zip(self.x, self.y, mask, strict=True):
      near = [row @ y / np.linalg.norm(row) / np.linalg.norm(y) for row in x[m]]
      want.append(1 - np.mean(near))
    found = alignment.alignment(self.x, self.y, mask)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    wild = np.where(mask[..., None], self.x, np.nan)
    again = alignment.alignment(jnp.asarray(wild), self.y, mask)
    np.testing.assert_array_equal(again, found)
    every = alignment.alignment(self.x, self.y)
    all_on = alignment.alignment(self.x, self.y, np.ones((1, 5), bool))
    np.testing.assert_allclose(every, all_on, rtol=1e-6)

  def test_each_its_own_target_or_one_for_the_whole(self):
    same = np.repeat(self.y[:, None], 5, 1)
    one = alignment.alignment(self.x, self.y)
    np.testing.assert_allclose(alignment.alignment(self.x, same), one)
    whole = alignment.alignment(self.x[:, 0], self.y)
    first = alignment.alignment(self.x, self.y, np.arange(5)[None] == 0)
    np.testing.assert_allclose(whole, first, rtol=1e-6)
    lengths = alignment.alignment(self.x * 3.0, self.y * 0.1)
    np.testing.assert_allclose(lengths, one, rtol=1e-5)

  def test_what_is_aligned_to_is_not_moved(self):
    loss = lambda x, y: alignment.alignment(x, y).sum()
    dx, dy = jax.grad(loss, (0, 1))(jnp.asarray(self.x), jnp.asarray(self.y))
    self.assertGreater(np.abs(dx).min(), 0)
    np.testing.assert_array_equal(dy, 0)
    at_zero = jax.grad(loss)(jnp.zeros((2, 5, 3)), self.y)
    self.assertTrue(np.isfinite(at_zero).all())

  def test_the_projector(self):
    made = alignment.Projector(4, (6,))
    variables = made.init(jax.random.key(0), self.x)
    shapes = jax.tree.map(jnp.shape, variables["params"])
    self.assertEqual(
      shapes,
      {
        "fc1": {"kernel": (3, 6), "bias": (6,)},
        "fc2": {"kernel": (6, 4), "bias": (4,)},
      },
    )
    p = jax.tree.map(np.asarray, variables["params"])
    h = self.x @ p["fc1"]["kernel"]
    h = jax.nn.gelu(h, approximate=False) @ p["fc2"]["kernel"]
    np.testing.assert_allclose(made.apply(variables, self.x), h, atol=1e-6)


if __name__ == "__main__":
  absltest.main()
