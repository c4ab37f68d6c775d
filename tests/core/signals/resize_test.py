"""Resizing equals PyTorch's, by its published fixtures and definitions."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.signals.resize import matrix, resize


class ResizeTest(parameterized.TestCase):
  def test_bicubic_fixtures(self):
    a, b = 1.10546875, 0.7734375
    np.testing.assert_allclose(
      matrix(2, 4, "bicubic"),
      [[a, 1 - a], [b, 1 - b], [1 - b, b], [1 - a, a]],
      atol=1e-6,
    )
    third = matrix(3, 5, "bicubic")
    np.testing.assert_allclose(third[1], [0.612, 0.46, -0.072], atol=1e-6)
    np.testing.assert_allclose(third[3], [-0.072, 0.46, 0.612], atol=1e-6)

  def test_bicubic_taps_half_way(self):
    # 8 -> 4 puts the first inner centre half way between inputs 2 and 3.
    np.testing.assert_allclose(
      matrix(8, 4, "bicubic")[1, 1:5],
      [-0.09375, 0.59375, 0.59375, -0.09375],
      atol=1e-6,
    )

  def test_area_fixture(self):
    np.testing.assert_array_equal(
      matrix(4, 3, "area"),
      [[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5]],
    )

  @parameterized.parameters(1, 2, 3, 4, 5, 6, 8, 10, 13)
  def test_area_cells(self, to):
    area = matrix(16, to, "area")
    for i, row in enumerate(area):
      inside = np.flatnonzero(row)
      self.assertEqual(inside[0], np.floor(i * 16 / to))
      self.assertEqual(inside[-1], np.ceil((i + 1) * 16 / to) - 1)
    np.testing.assert_allclose(area.sum(1), 1, atol=1e-6)

  def test_nearest_and_bilinear(self):
    np.testing.assert_array_equal(matrix(5, 3, "nearest").argmax(1), [0, 1, 3])
    np.testing.assert_array_equal(
      matrix(2, 4, "bilinear"),
      [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]],
    )

  @parameterized.product(
    method=("area", "bicubic", "bilinear", "nearest"), size=(1, 2, 7, 13)
  )
  def test_rows_sum_to_one(self, method, size):
    np.testing.assert_allclose(matrix(size, 16, method).sum(1), 1, atol=1e-6)

  def test_axes_and_leading_dimensions(self):
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 6, 5))
    small = resize(x, (3, 2), "area")
    expected = np.einsum(
      "iy,abyxc,jx->abijc", matrix(4, 3, "area"), x, matrix(6, 2, "area")
    )
    np.testing.assert_allclose(small, expected, atol=1e-6)
    np.testing.assert_array_equal(resize(x, (4, 6), "bicubic"), x)

  def test_keeps_the_dtype(self):
    x = jnp.ones((2, 2, 1), jnp.bfloat16)
    self.assertEqual(resize(x, (3, 3), "bicubic").dtype, jnp.bfloat16)

  def test_unknown_method(self):
    with self.assertRaisesRegex(ValueError, "lanczos"):
      resize(jnp.ones((2, 2, 1)), (3, 3), "lanczos")


if __name__ == "__main__":
  absltest.main()
