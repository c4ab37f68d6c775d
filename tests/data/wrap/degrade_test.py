"""Poorer images: a function of the position, as strong as they are asked."""

import numpy as np
from absl.testing import absltest
from scipy import ndimage

from ar_jax import data
from ar_jax.core.errors import UserError
from ar_jax.data.wrap import degrade


def load(**options):
  return data.load(
    "fake", size=16, channels=3, length=20, derive={"degrade": options}
  )


def smooth(seed=0, side=32, channels=3):
  x = np.random.default_rng(seed).random((side, side, channels))
  x = ndimage.gaussian_filter(x, (2, 2, 0), mode="wrap")
  return degrade.pixels((x - x.min()) / np.ptp(x))


class DegradeTest(absltest.TestCase):
  def test_fields_and_positions(self):
    found = load(factor=4, enlarge=False)
    self.assertEqual(found.train[0]["low"].shape, (4, 4, 3))
    found = load(factor=4)
    self.assertEqual(set(found.forms), {"image", "low"})
    one, other = found.train[3], found.train[4]
    self.assertEqual(one["low"].shape, (16, 16, 3))
    np.testing.assert_array_equal(one["low"], found.train[3]["low"])
    self.assertFalse(np.array_equal(one["low"], other["low"]))
    batch = data.batch_at(found.train, 1, batch=4, seed=1)
    again = data.batch_at(found.train, 1, batch=4, seed=1)
    np.testing.assert_array_equal(batch["low"], again["low"])
    # Each time it is shown it is made worse in another way.
    views = [
      found.train.draw(3, np.random.default_rng(seed))["low"] for seed in (1, 2)
    ]
    self.assertFalse(np.array_equal(*views))

  def test_no_round_is_the_mean_of_areas(self):
    x = smooth()
    found = degrade.degraded(x, (8, 8), np.random.default_rng(0), rounds=0)
    want = (x / 255).reshape(8, 4, 8, 4, 3).mean((1, 3))
    np.testing.assert_allclose(found, 255 * want, atol=0.51)

  def test_two_rounds_are_worse_than_one_and_one_than_none(self):
    x = smooth()
    plain = degrade.degraded(x, (8, 8), np.random.default_rng(0), rounds=0)

    def error(rounds, **options):
      rngs = map(np.random.default_rng, range(40))
      found = [degrade.degraded(x, (8, 8), r, rounds, **options) for r in rngs]
      apart = np.stack(found).astype(float) - plain
      return np.abs(apart).mean()

    self.assertGreater(error(2), 1.1 * error(1))
    self.assertGreater(error(1), 1)
    self.assertLess(error(2, strength=0.1, kernel=7), 0.7 * error(2))

  def test_kernels(self):
    """Each sums to 1; of a Gaussian the variances are those asked for."""
    rng = np.random.default_rng(0)
    kernels = [degrade.random_kernel(rng, (0.2, 3.0)) for _ in range(200)]
    for kernel in kernels:
      self.assertAlmostEqual(kernel.sum(), 1, places=9)
    self.assertEqual({len(k) for k in kernels}, set(range(7, 22, 2)))
    self.assertTrue(any(k.min() < 0 for k in kernels))  # sinc
    y, x = np.mgrid[:21, :21] - 10
    one = degrade.bell(21, 2.0, 1.0, np.pi / 2)
    self.assertAlmostEqual((one * x**2).sum(), 1, places=2)
    self.assertAlmostEqual((one * y**2).sum(), 4, places=2)
    flat = degrade.bell(21, 2.0, 2.0, 0, 2.0, plateau=True)
    round_ = degrade.bell(21, 2.0, 2.0)
    ratio = lambda k: k[10, 11] / k[10, 10]
    self.assertGreater(ratio(flat), ratio(round_))
    np.testing.assert_allclose(flat, flat.T, atol=1e-12)

  def test_a_sinc_lets_low_frequencies_pass(self):
    taps = degrade.sinc(np.pi / 2, 21)
    answer = lambda f: (taps * np.cos(f * (np.arange(21) - 10))[None]).sum()
    self.assertGreater(answer(np.pi / 8), 0.9)
    self.assertLess(abs(answer(0.95 * np.pi)), 0.1)

  def test_mistakes(self):
    for options, message in (
      ({"factor": 0}, "factor=0"),
      ({"rounds": 3}, "rounds=3"),
      ({"kernel": 8}, "a kernel is odd"),
      ({"factor": 5}, "images of 16x16 are no multiple"),
      ({"field": "label"}, "not the pixels of an image"),
    ):
      with self.assertRaisesRegex(UserError, message):
        load(**options)


if __name__ == "__main__":
  absltest.main()
