"""Spectra are those of NumPy, of windows that lie where they should."""

import numpy as np
from absl.testing import absltest

from ar_jax.core.signals import stft
from ar_jax.nn.losses import spectral


def reference(x, size, hop):
  """Magnitudes of one sound, window by window."""
  found = []
  for i in range(-(-len(x) // hop)):
    row = np.zeros(size)
    for j in range(size):
      at = i * hop + j - size // 2
      if 0 <= at < len(x):
        row[j] = x[at] * (0.5 - 0.5 * np.cos(2 * np.pi * j / size))
    found.append(np.abs(np.fft.rfft(row)) / (size / 4))
  return np.asarray(found)


class StftTest(absltest.TestCase):
  def test_reference(self):
    x = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    own = stft.magnitudes(x, 16, 4)
    self.assertEqual(own.shape, (2, 13, 9))
    for i in range(2):
      np.testing.assert_allclose(own[i], reference(x[i], 16, 4), atol=2e-4)

  def test_a_sine_has_one(self):
    x = np.sin(2 * np.pi * np.arange(256) / 8).astype(np.float32)[None]
    own = np.asarray(stft.magnitudes(x, 64, 16))[0, 6]
    self.assertEqual(own.argmax(), 8)
    self.assertAlmostEqual(own[8], 1.0, places=3)

  def test_distance(self):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 1, 64)).astype(np.float32)
    same, other = (spectral.multi_scale(x, v, (16, 32)) for v in (x, y))
    self.assertLess(float(same[0]), 1e-4)
    total = 0.0
    for size in (16, 32):
      a, b = (reference(v[0], size, size // 4) for v in (x, y))
      total += np.linalg.norm(a - b) / np.linalg.norm(a)
      total += np.abs(np.log(a + 1e-3) - np.log(b + 1e-3)).mean()
    self.assertAlmostEqual(float(other[0]), total / 2, delta=0.02)


if __name__ == "__main__":
  absltest.main()
