"""Texts: where padding goes, and what the encoders make of it."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.system import UserError
from ar_jax.encoders import text


class TextTest(absltest.TestCase):
  def test_padding_goes_to_the_front(self):
    x = jnp.array([[5, 6, 0], [0, 7, 8], [0, 0, 0], [1, 2, 3]])
    moved, seen = text.right_aligned(x, x > 0, 4)
    want = [[0, 0, 5, 6], [0, 0, 7, 8], [0, 0, 0, 0], [0, 1, 2, 3]]
    np.testing.assert_array_equal(moved, want)
    np.testing.assert_array_equal(seen, moved > 0)
    deep = jnp.stack([x, 10 * x], -1)
    moved, _ = text.right_aligned(deep, x > 0, 4)
    np.testing.assert_array_equal(moved[..., 1], 10 * np.array(want))

  def test_bytes(self):
    encoder = text.make(name="bytes", length=6, width=8, depth=1, heads=2)
    words = jnp.array([[100, 111, 103, 0, 0], [99, 97, 116, 115, 0]])
    variables = jax.jit(encoder.init)(jax.random.key(0), words)
    features = jax.jit(encoder.apply)(variables, words)
    self.assertEqual(features.shape, (2, 6, 8))
    # The room that other texts need changes nothing.
    alone = jax.jit(encoder.apply)(variables, words[:1, :3])
    np.testing.assert_allclose(alone[:, 3:], features[:1, 3:], atol=1e-5)
    # What a text says depends on all of it.
    other = jax.jit(encoder.apply)(variables, words.at[0, 2].add(1))
    moved = np.abs(other - features).max(-1) > 0
    self.assertTrue(moved[0, 3:].all())
    self.assertFalse(moved[1].any())

  def test_features_are_taken_as_they_are(self):
    encoder = text.make(name="features", length=4, width=3)
    given = jnp.array([[[1.0, 2, 3], [4, 5, 6], [0, 0, 0]]])
    got = encoder.apply({}, given)
    np.testing.assert_array_equal(got[0, 2:], given[0, :2])
    np.testing.assert_array_equal(got[0, :2], 0)
    _, seen = encoder.align(given)
    np.testing.assert_array_equal(seen, [[False, False, True, True]])

  def test_mistakes(self):
    encoder = text.make(name="features", length=4, width=3)
    for given, message in (
      (jnp.zeros((1, 5, 3)), "text of 5 positions: this model has room for 4"),
      (jnp.zeros((1, 4, 2)), "features"),
      (jnp.zeros((1, 4), int), "features"),
    ):
      with self.assertRaisesRegex(UserError, message):
        encoder.align(given)
    with self.assertRaisesRegex(UserError, "reads bytes"):
      text.make(name="bytes").align(jnp.zeros((1, 4, 2)))
    with self.assertRaisesRegex(UserError, "choose one of"):
      text.make(name="t5")


if __name__ == "__main__":
  absltest.main()
