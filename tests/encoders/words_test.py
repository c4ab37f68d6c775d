"""Hashed words: the same word is the same vector wherever it stands."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.forms import Text
from ar_jax.core.system import UserError
from ar_jax.encoders import text, words


def spelled(*texts, length=24):
  return jnp.stack([jnp.asarray(Text().ids(t, length)) for t in texts])


class WordsTest(absltest.TestCase):
  def test_words_of_bytes(self):
    given = spelled(
      "a Red  cat", "red", "cat red", "", "act a", "one two three"
    )
    codes, seen = words.hashed(given, 3)
    codes, seen = np.asarray(codes), np.asarray(seen)
    want = [[1, 1, 1], [0, 0, 1], [0, 1, 1], [0, 0, 0], [0, 1, 1], [1, 1, 1]]
    np.testing.assert_array_equal(seen, np.array(want, bool))
    a, red, cat = codes[0]
    self.assertEqual(codes[1, 2], red)
    self.assertEqual((codes[2, 1], codes[2, 2]), (cat, red))
    self.assertEqual(codes[4, 2], a)
    self.assertNotEqual(codes[4, 1], cat)  # the same letters
    # Of too many words the first are there.
    short, seen = words.hashed(given, 2)
    np.testing.assert_array_equal(short[5], codes[5, :2])
    self.assertTrue(seen[5].all())

  def test_features(self):
    encoder = text.make(name="words", length=4, width=64)
    given = spelled("top half", "erase top half", "half")
    found = np.asarray(jax.jit(lambda x: encoder.apply({}, x))(given))
    self.assertEqual(found.shape, (3, 4, 64))
    np.testing.assert_array_equal(found[0, :2], 0)
    waves = words._waves(4, 64)
    vectors = found[1, 1:] - waves[:3]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found[0, 2] - waves[0], vectors[1], atol=1e-6)
    np.testing.assert_allclose(found[2, 3] - waves[0], vectors[2], atol=1e-6)
    self.assertLess(np.abs(vectors @ vectors.T - np.eye(3)).max(), 0.5)
    # Many words, no two alike.
    many = words.mixed(jnp.arange(1, 10_000, dtype=jnp.uint32))
    self.assertLen(set(np.asarray(many).tolist()), 9_999)

  def test_numbers_of_words(self):
    encoder = text.make(name="words", length=3, width=8, spelled=False)
    found = encoder.apply({}, jnp.array([[5, 7, 0], [7, 0, 0]]))
    waves = words._waves(3, 8)
    np.testing.assert_allclose(
      found[0, 2] - waves[1], found[1, 2] - waves[0], atol=1e-6
    )
    np.testing.assert_array_equal(
      encoder.align(jnp.array([[5, 7, 0]]))[1], [[False, True, True]]
    )
    with self.assertRaisesRegex(UserError, "room for 3"):
      encoder.align(jnp.ones((1, 4), int))
    with self.assertRaisesRegex(UserError, "reads bytes or numbers"):
      encoder.align(jnp.ones((1, 4, 8)))
    with self.assertRaisesRegex(UserError, "an even number"):
      text.make(name="words", width=7).apply({}, jnp.ones((1, 4), int))


if __name__ == "__main__":
  absltest.main()
