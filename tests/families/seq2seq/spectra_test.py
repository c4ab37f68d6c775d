"""Masses as waves: quotients to the last bit, and phases that float64 has."""

import jax
import numpy as np
from absl.testing import absltest

from ar_jax.core.domains import spectra as domain
from ar_jax.families.seq2seq import spectra


class WavesTest(absltest.TestCase):
  def test_quotients_are_rounded_as_ieee_has_it(self):
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 6000, 50_000).astype(np.float32)
    x[:3] = 0, 1, 4096
    y = np.exp(rng.uniform(-9, 8, 50_000)).astype(np.float32)
    y[:3] = 1, 3, 2**-13
    np.testing.assert_array_equal(jax.jit(spectra.quotient_of)(x, y), x / y)

  def test_phases_are_those_of_float64(self):
    mass = np.random.default_rng(1).uniform(50, 5000, 200)
    waves = spectra.Waves(32)
    found = jax.jit(waves)(domain.split(mass))
    angle = mass[:, None] / waves.terms
    want = np.concatenate([np.sin(angle), np.cos(angle)], -1)
    np.testing.assert_allclose(found, want, atol=5e-4)

  def test_published_phases_are_those_of_float32_quotients(self):
    mass = np.random.default_rng(2).uniform(50, 5000, 200).astype(np.float32)
    mass[0] = -17.026549  # a loss
    waves = spectra.Waves(32, released=True)
    found = jax.jit(waves)(domain.split(mass.astype(np.float64)))
    angle = (mass[:, None] / waves.terms).astype(np.float32).astype(float)
    want = np.concatenate([np.sin(angle), np.cos(angle)], -1)
    np.testing.assert_allclose(found, want, atol=1e-5)


if __name__ == "__main__":
  absltest.main()
