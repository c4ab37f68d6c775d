"""Discrete noise levels against the formulas and on a Gaussian."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.errors import UserError
from ar_jax.core.flows import ddpm

LEVELS = ddpm.cosine()


def exact(levels, std):
  """The best prediction for data N(0, std^2), of any variance r."""
  signal = jnp.asarray(levels.tables["signal"], jnp.float32)
  place = {name: i for i, name in enumerate(levels.names)}
  table = np.full(max(place) + 1, -1)
  table[list(place)] = list(place.values())

  def predict(x, name):
    a2 = signal[jnp.asarray(table)[name]] ** 2
    noise = jnp.sqrt(1 - a2) * x / (a2 * std**2 + 1 - a2)
    return noise, jnp.ones_like(x)

  return predict


class LevelsTest(absltest.TestCase):
  def test_schedule(self):
    kept = LEVELS.tables["signal"] ** 2
    u = np.arange(1, 1001) / 1000
    want = np.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    want = want / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    np.testing.assert_allclose(kept[:-1], want[:-1], rtol=1e-9)
    self.assertEqual(LEVELS.betas[-1], 0.999)

  def test_respacing_keeps_what_is_known_of_the_data(self):
    few = LEVELS.respaced(100)
    self.assertLen(few, 100)
    self.assertEqual(few.names[:3], (0, 10, 20))
    self.assertEqual(few.names[-2:], (989, 999))
    np.testing.assert_allclose(
      few.tables["signal"],
      LEVELS.tables["signal"][list(few.names)],
      rtol=1e-9,
    )
    self.assertEqual(LEVELS.respaced(1000).names, LEVELS.names)
    with self.assertRaisesRegex(UserError, "1 denoising steps"):
      LEVELS.respaced(1)

  def test_step_down_with_the_true_noise_is_the_posterior(self):
    # By Bayes, from x_{i-1} given x and x_i given x_{i-1}.
    draw = np.random.default_rng(0)
    x, e = draw.normal(size=(2, 4, 3))
    i = np.array([1, 40, 500, 990])
    kept = LEVELS.tables["signal"] ** 2
    beta = np.array(LEVELS.betas)
    xi = np.sqrt(kept[i])[:, None] * x + np.sqrt(1 - kept[i])[:, None] * e
    precision = 1 / (1 - kept[i - 1]) + (1 - beta[i]) / beta[i]
    mean = np.sqrt(kept[i - 1])[:, None] * x / (1 - kept[i - 1])[:, None]
    mean += (np.sqrt(1 - beta[i]) / beta[i])[:, None] * xi
    got, log_variance = LEVELS.down(
      jnp.asarray(e, jnp.float32), -jnp.ones((4, 3)), xi.astype(np.float32), i
    )
    np.testing.assert_allclose(got, mean / precision[:, None], atol=2e-3)
    np.testing.assert_allclose(
      log_variance[:, 0], -np.log(precision), rtol=1e-4, atol=1e-4
    )

  def test_losses(self):
    draw = jax.random.split(jax.random.key(0), 4)
    x, e, guess, r = (jax.random.normal(k, (5, 2)) for k in draw)
    i = jnp.array([0, 3, 200, 700, 999])
    error, bits = LEVELS.losses(guess, r, x, e, i)
    np.testing.assert_allclose(error, ((e - guess) ** 2).mean(-1), rtol=1e-5)
    xi = LEVELS.noisy(x, e, i)
    mean, log_variance = LEVELS.down(guess, r, xi, i)
    true, true_log = LEVELS.down(e, -jnp.ones_like(x), xi, i)
    # The divergence of two normal laws, from its definition.
    p = np.exp(np.asarray(true_log, np.float64))
    q = np.exp(np.asarray(log_variance, np.float64))
    want = np.log(q / p) / 2 + (p + (true - mean) ** 2) / (2 * q) - 0.5
    np.testing.assert_allclose(
      bits[1:], want.mean(-1)[1:] / math.log(2), rtol=2e-3
    )
    # Only the variance learns from the second term.
    gradient = jax.grad(lambda *a: LEVELS.losses(*a, x, e, i)[1].sum(), (0, 1))
    of_noise, of_r = gradient(guess, r)
    self.assertEqual(float(jnp.abs(of_noise).max()), 0.0)
    self.assertGreater(float(jnp.abs(of_r).min()), 0.0)

  def test_mass_of_the_first_level(self):
    # Bins that fill the line have mass 1 in all.
    x = jnp.arange(256) / 127.5 - 1
    logs = ddpm._log_mass(x, jnp.full_like(x, 0.1), jnp.full_like(x, -1.5))
    self.assertAlmostEqual(float(jnp.exp(logs).sum()), 1.0, delta=1e-2)

  def test_samples_and_bound_of_a_gaussian(self):
    keys = jax.random.split(jax.random.key(1), 1)
    levels = LEVELS.respaced(100)
    x = levels.sample(exact(levels, 1.0), keys, (20_000, 1))
    self.assertAlmostEqual(float(x.std()), 1.0, delta=0.02)
    self.assertAlmostEqual(float(x.mean()), 0.0, delta=0.03)
    # With data N(0, 1) the variance r = 1 is right at every level, and then
    # the bound is the entropy itself.
    data = jax.random.normal(jax.random.key(2), (1, 4000, 1))
    nats = levels.bound(exact(levels, 1.0), data, keys)
    want = 0.5 * math.log(2 * math.pi) + 0.5 * jnp.mean(data**2)
    self.assertAlmostEqual(float(nats.mean()), float(want), delta=0.03)
    # And a wrong model pays.
    worse = levels.bound(exact(levels, 0.5), data, keys)
    self.assertGreater(float(worse.mean()), float(want) + 0.05)

  def test_temperature(self):
    keys = jax.random.split(jax.random.key(1), 1)
    levels = LEVELS.respaced(20)
    run = lambda t: float(
      levels.sample(exact(levels, 1.0), keys, (2000, 1), temperature=t).std()
    )
    self.assertLess(run(0.8), run(1.0))


if __name__ == "__main__":
  absltest.main()
