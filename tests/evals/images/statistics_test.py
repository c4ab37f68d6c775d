"""The statistics against plain implementations written another way."""

import numpy as np
import scipy.linalg
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError
from ar_jax.evals.images import statistics
from ar_jax.evals.images.statistics import Moments

RNG = np.random.default_rng(0)


def plain_frechet(x, y):
  """Form A: the general eigenvalues of the product of the covariances."""
  sx, sy = np.cov(x.T), np.cov(y.T)
  root = np.sqrt(np.maximum(np.linalg.eigvals(sx @ sy).real, 0)).sum()
  return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(sx + sy) - 2 * root


def plain_coverage(points, centres, k):
  """One point at a time, with sorted lists of distances."""
  radii = [sorted(np.linalg.norm(c - d) for d in centres)[k] for c in centres]
  hits = [
    any(np.linalg.norm(p - c) <= r for c, r in zip(centres, radii, strict=True))
    for p in points
  ]
  return np.mean(hits)


class FrechetTest(parameterized.TestCase):
  @parameterized.parameters((30, 20, 25), (30, 200, 150), (16, 10, 500))
  def test_three_forms_agree(self, d, n, m):
    x, y = RNG.normal(size=(n, d)), 2 * RNG.normal(size=(m, d)) + 0.3
    want = plain_frechet(x, y)
    a, b = Moments.of(x), Moments.of(y)
    np.testing.assert_allclose(statistics.frechet(a, b), want, rtol=1e-6)
    root = statistics.root_trace(a.cov, b.cov)
    centred = lambda z: (z - z.mean(0)) / np.sqrt(len(z) - 1)
    np.testing.assert_allclose(
      root,
      statistics.root_trace_of_factors(centred(x), centred(y)),
      rtol=1e-6,
    )

  def test_agrees_with_the_matrix_square_root(self):
    x, y = RNG.normal(size=(99, 8)), RNG.gamma(2, size=(80, 8))
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    want = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(
      np.cov(x.T) + np.cov(y.T) - 2 * root
    )
    got = statistics.frechet(Moments.of(x), Moments.of(y))
    np.testing.assert_allclose(got, want, rtol=1e-9)

  def test_converges_to_the_distance_of_the_gaussians(self):
    d, shift, scale = 8, 0.7, 2.0
    want = d * shift**2 + d * (scale - 1) ** 2
    errors = []
    for n in (100, 30_000):
      x = RNG.normal(size=(n, d))
      y = shift + scale * RNG.normal(size=(n, d))
      errors.append(
        abs(statistics.frechet(Moments.of(x), Moments.of(y)) - want)
      )
    self.assertLess(errors[1], 0.02 * want)
    self.assertLess(errors[1], errors[0])

  @parameterized.parameters(10, 500)
  def test_a_set_from_itself_is_nothing(self, n):
    x = Moments.of(RNG.normal(size=(n, 32)))
    self.assertLess(statistics.frechet(x, x), 1e-6)

  @parameterized.parameters(10, 500)
  def test_order_and_batches_do_not_matter(self, n):
    x, y = RNG.normal(size=(n, 20)), RNG.normal(size=(n, 20))
    parts = Moments(20)
    for part in np.array_split(RNG.permutation(x), 7):
      parts.add(part)
    y = Moments.of(y)
    np.testing.assert_allclose(
      statistics.frechet(parts, y), statistics.frechet(Moments.of(x), y)
    )

  @parameterized.parameters(5, 50)
  def test_moments_survive_a_file(self, n):
    x, y = Moments.of(RNG.normal(size=(n, 9))), Moments.of(np.eye(9))
    again = Moments.restore(x.arrays())
    self.assertEqual(statistics.frechet(again, y), statistics.frechet(x, y))
    given = Moments.given(x.mean, x.cov, x.n)
    np.testing.assert_allclose(
      statistics.frechet(given, y), statistics.frechet(x, y), rtol=1e-6
    )

  def test_one_image_has_no_covariance(self):
    with self.assertRaisesRegex(UserError, "at least 2 images"):
      statistics.frechet(Moments.of(np.ones((1, 3))), Moments.of(np.eye(3)))


class CoverageTest(parameterized.TestCase):
  def test_equals_brute_force(self):
    x, y = RNG.normal(size=(40, 5)), 1.5 * RNG.normal(size=(31, 5)) + 0.5
    precision, recall = statistics.precision_recall(x, y, k=3)
    self.assertAlmostEqual(precision, plain_coverage(x, y, 3), places=6)
    self.assertAlmostEqual(recall, plain_coverage(y, x, 3), places=6)

  def test_collapse_has_precision_and_no_recall(self):
    made = 0.1 * RNG.normal(size=(200, 16))
    real = 3 * RNG.normal(size=(200, 16))
    precision, recall = statistics.precision_recall(made, real)
    self.assertGreater(precision, 0.8)
    self.assertLess(recall, 0.3)
    self.assertEqual(
      statistics.precision_recall(real, made), (recall, precision)
    )
    self.assertEqual(
      statistics.precision_recall(made, real, block=64), (precision, recall)
    )

  def test_needs_neighbours(self):
    with self.assertRaisesRegex(UserError, "precision with k=3"):
      statistics.precision_recall(np.ones((3, 2)), np.ones((9, 2)))


class ScoreTest(absltest.TestCase):
  def test_of_nothing_is_one(self):
    self.assertAlmostEqual(statistics.score(np.zeros((50, 7))), 1)

  def test_of_sure_balanced_classes_is_their_number(self):
    logits = 50.0 * np.eye(7)[np.arange(700) % 7]
    self.assertAlmostEqual(statistics.score(logits), 7, delta=1e-3)

  def test_is_the_mean_over_random_blocks_by_their_size(self):
    logits = RNG.normal(size=(70, 5))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p = p[np.random.default_rng(0).permutation(70)]
    one = lambda q: np.exp((q * np.log(q / q.mean(0))).sum(1).mean())
    want = (50 * one(p[:50]) + 20 * one(p[50:])) / 70
    self.assertAlmostEqual(statistics.score(logits, block=50), want)

  def test_sorted_rows_and_a_short_last_block_do_not_matter(self):
    sure = lambda n: 50.0 * np.eye(10)[np.sort(np.arange(n) % 10)]
    for n in (10_000, 5001):
      self.assertAlmostEqual(statistics.score(sure(n)), 10, delta=0.02)


class KidTest(absltest.TestCase):
  def test_equals_the_sums_over_pairs(self):
    x, y = RNG.normal(size=(9, 4)), RNG.normal(size=(7, 4)) + 1
    k = lambda a, b: (a @ b / 4 + 1) ** 3
    among = lambda z: np.mean(
      [k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]
    )
    want = among(x) + among(y) - 2 * np.mean([k(a, b) for a in x for b in y])
    self.assertAlmostEqual(statistics.kid(x, y), want)

  def test_of_equal_laws_is_about_nothing(self):
    x, y = RNG.normal(size=(400, 4)), RNG.normal(size=(300, 4))
    same = statistics.kid(x, y, subsets=20, size=200)
    other = statistics.kid(x, y + 1, subsets=20, size=200)
    self.assertLess(abs(same), 0.05 * other)


if __name__ == "__main__":
  absltest.main()
