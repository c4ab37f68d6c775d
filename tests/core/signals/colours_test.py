"""Colours of one image given to another, against plain numpy."""

import jax
import numpy as np
from absl.testing import absltest

from ar_jax.core.signals import colours


def blur(x, apart):
  """One channel [H, W] by the 3 x 3 taps, dilated, borders repeated."""
  taps = np.outer([1, 2, 1], [1, 2, 1]) / 16
  wide = np.pad(x, apart, "edge")
  h, w = x.shape
  return sum(
    taps[i, j] * wide[i * apart : i * apart + h, j * apart : j * apart + w]
    for i in range(3)
    for j in range(3)
  )


class ColoursTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.x, self.like = rng.random((2, 2, 12, 9, 3)).astype(np.float32)
    self.like = 0.3 + 0.4 * self.like

  def test_moments(self):
    found = jax.jit(colours.with_moments)(self.x, self.like)
    np.testing.assert_allclose(
      found.mean((1, 2)), self.like.mean((1, 2)), atol=1e-5
    )
    np.testing.assert_allclose(
      found.std((1, 2)), self.like.std((1, 2)), atol=1e-4
    )
    # The details are those of x, each channel by one line.
    a, b = self.x[0, :, :, 1].ravel(), np.asarray(found)[0, :, :, 1].ravel()
    self.assertGreater(np.corrcoef(a, b)[0, 1], 0.99999)

  def test_bands(self):
    found = jax.jit(colours.with_low_bands)(self.x, self.like)

    def coarse(y):
      for level in range(5):
        y = blur(y, 2**level)
      return y

    for i in range(2):
      for c in range(3):
        x, like = self.x[i, ..., c], self.like[i, ..., c]
        want = x - coarse(x) + coarse(like)
        np.testing.assert_allclose(found[i, ..., c], want, atol=1e-5)

  def test_kinds(self):
    same = colours.transferred(self.x, self.like, "none")
    np.testing.assert_array_equal(same, self.x)
    both = colours.transferred(self.x, self.like)
    one = colours.with_moments(self.x, self.like)
    want = np.clip(colours.with_low_bands(one, self.like), 0, 1)
    np.testing.assert_allclose(both, want, atol=1e-6)
    with self.assertRaisesRegex(ValueError, "kind='x'"):
      colours.transferred(self.x, self.like, "x")


if __name__ == "__main__":
  absltest.main()
