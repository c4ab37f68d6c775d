"""Samplers on laws whose velocity is known exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from ar_jax.core.errors import UserError
from ar_jax.core.flows import flow, solvers

KEYS = jax.random.split(jax.random.key(0), 1)


def gaussian(mean, std, path=flow.LINEAR):
  """The exact velocity of data N(mean, std^2)."""

  def velocity(x, t):
    a, s, da, ds = path.coefficients(t)
    variance = (a * std) ** 2 + s**2
    slope = (a * da * std**2 + s * ds) / variance
    return da * mean + slope * (x - a * mean)

  return velocity


MIXTURE = {
  "weights": (0.3, 0.5, 0.2),
  "means": (-2.0, 0.5, 2.5),
  "stds": (0.3, 0.5, 0.2),
}


def mixture(path=flow.LINEAR, *, weights, means, stds):
  """The exact velocity of a mixture: that of its parts, by their weight."""

  def velocity(x, t):
    a, s, _, _ = path.coefficients(t)
    parts, logs = [], []
    for w, m, d in zip(weights, means, stds, strict=True):
      variance = (a * d) ** 2 + s**2
      parts.append(gaussian(m, d, path)(x, t))
      logs.append(
        jnp.log(w) - jnp.log(variance) / 2 - (x - a * m) ** 2 / variance / 2
      )
    return jnp.sum(jax.nn.softmax(jnp.stack(logs), 0) * jnp.stack(parts), 0)

  return velocity


def mixture_cdf(x):
  parts = zip(*MIXTURE.values(), strict=True)
  return sum(w * stats.norm.cdf(x, m, d) for w, m, d in parts)


def mixture_density(x):
  parts = zip(*MIXTURE.values(), strict=True)
  return sum(w * stats.norm.pdf(x, m, d) for w, m, d in parts)


class SolversTest(parameterized.TestCase):
  def test_variance_of_a_gaussian_after_few_steps(self):
    # Closed forms: the map is linear, so one point tells the deviation.
    velocity = gaussian(0.0, 0.5)
    run = lambda n, method: float(
      solvers.integrate(
        velocity, jnp.ones((1, 1)), solvers.uniform_grid(n), method
      )[0, 0]
    )
    euler = [run(n, "euler") ** 2 for n in (1, 2, 4, 8, 16, 32)]
    np.testing.assert_allclose(
      euler, [0, 0.04, 0.116, 0.172, 0.2076, 0.2279], atol=1e-3
    )
    heun = [run(n, "heun") ** 2 for n in (1, 2, 4, 8, 16)]
    np.testing.assert_allclose(
      heun, [0.25, 0.2304, 0.2549, 0.2524, 0.2508], atol=1e-3
    )

  @parameterized.parameters(
    ("euler", 1, (32, 128)),
    ("heun", 2, (24, 96)),
    ("adams_bashforth", 2, (32, 128)),
  )
  def test_order_of_convergence(self, method, order, steps):
    # The flow of a Gaussian moves x to mean + std x. Uneven steps, too.
    velocity, x = gaussian(0.3, 0.4), jnp.full((1, 1), 0.8)
    for warp in (lambda t: t, lambda t: t**1.5):
      error = [
        abs(
          float(
            solvers.integrate(
              velocity, x, warp(solvers.uniform_grid(n)), method
            )[0, 0]
          )
          - (0.3 + 0.4 * 0.8)
        )
        for n in steps
      ]
      measured = np.log(error[0] / error[1]) / np.log(steps[1] / steps[0])
      self.assertAlmostEqual(measured, order, delta=0.2)

  @parameterized.parameters(("heun", "linear"), ("adams_bashforth", "cosine"))
  def test_mixture(self, method, name):
    velocity = mixture(flow.path(name), **MIXTURE)
    x = jax.random.normal(jax.random.key(1), (4000, 1))
    grid = solvers.uniform_grid(200)
    x = np.asarray(solvers.integrate(velocity, x, grid, method))[:, 0]
    self.assertGreater(stats.kstest(x, mixture_cdf).pvalue, 0.01)

  def test_stochastic_mixture(self):
    # On the variance-preserving path, whose velocity has no end at t = 1.
    path = flow.VP
    velocity = mixture(path, **MIXTURE)
    x = jax.random.normal(jax.random.key(2), (1, 4000))
    grid = np.append(solvers.uniform_grid(400, 0.0, 0.998), 1.0)
    x = solvers.euler_maruyama(
      velocity, x, grid, KEYS, path=path, diffusion="sigma^2", last="data"
    )
    self.assertGreater(stats.kstest(np.asarray(x)[0], mixture_cdf).pvalue, 0.01)

  @parameterized.parameters((1.0, 0.987), (0.5, 0.492), (0.2, 0.188))
  def test_deviations_of_xar(self, std, want):
    # 50 points from noise to 0.04, then the last step without noise.
    x = jax.random.normal(jax.random.key(3), (1, 200_000))
    grid = np.append(np.linspace(0, 0.96, 50), 1.0)
    x = solvers.euler_maruyama(gaussian(0.7, std), x, grid, KEYS)
    self.assertAlmostEqual(float(x.std()), want, delta=4e-3)
    # The tolerance of the mean is the sheet's; it, too, has a bias.
    self.assertAlmostEqual(float(x.mean()), 0.7, delta=5e-3)

  @parameterized.parameters((25, 0.2397), (250, 0.2444))
  def test_variance_of_the_stochastic_sampler(self, n, want):
    x = jax.random.normal(jax.random.key(4), (1, 200_000))
    grid = np.append(np.linspace(0, 0.96, n), 1.0)
    x = solvers.euler_maruyama(gaussian(0.0, 0.5), x, grid, KEYS)
    self.assertAlmostEqual(float(x.var()), want, delta=5e-3)

  def test_last_steps(self):
    x, v = jnp.full((1, 1), 2.0), 0.5
    run = lambda last: float(
      solvers.euler_maruyama(
        lambda x, t: jnp.full_like(x, v), x, (0.9, 1.0), KEYS, last=last
      )[0, 0]
    )
    score = (0.9 * v - 2.0) / 0.1
    self.assertAlmostEqual(run("euler"), 2.05, places=5)
    self.assertAlmostEqual(run("data"), 2.05, places=5)
    self.assertAlmostEqual(run("mean"), 2 + 0.1 * (v + 0.1 * score), places=5)

  def test_the_way(self):
    times = np.array([0.0, 0.3, 0.8, 1.0])
    x, field = jnp.full((1, 2), 2.0), lambda x, t: (1 + t) * jnp.cos(x)
    for method in solvers.SOLVERS:
      end, way = solvers.integrate(field, x, times, method, trail=True)
      np.testing.assert_array_equal(
        end, solvers.integrate(field, x, times, method)
      )
      self.assertEqual(way.shape, (3, 1, 2))
      np.testing.assert_array_equal(way[-1], end)
      part = solvers.integrate(field, x, times[:3], method)
      np.testing.assert_allclose(way[1], part, rtol=1e-6)
    run = functools.partial(solvers.euler_maruyama, field, x, times, KEYS)
    end, way = run(trail=True)
    np.testing.assert_array_equal(end, run())
    self.assertEqual(way.shape, (3, 1, 2))
    np.testing.assert_array_equal(way[-1], end)
    # The first step, with the noise that every run of these keys has.
    slope = field(x, 0.0) - x  # the score is -x at t = 0
    fresh = solvers.noise(KEYS, (2,), 0)
    first = x + 0.3 * slope + np.sqrt(0.6) * fresh
    np.testing.assert_allclose(way[0], first, rtol=1e-5)

  def test_noise_of_an_example_is_its_own(self):
    keys = jax.random.split(jax.random.key(5), 3)
    whole = solvers.noise(keys, (2, 4), 7)
    part = solvers.noise(keys[1:], (2, 4), 7)
    np.testing.assert_array_equal(whole[1:], part)
    self.assertFalse(np.allclose(whole, solvers.noise(keys, (2, 4), 8)))

  def test_bad_arguments(self):
    still = lambda x, t: x
    x = jnp.ones((1, 1))
    with self.assertRaisesRegex(UserError, "method='rk4'"):
      solvers.integrate(still, x, (0.0, 1.0), "rk4")
    with self.assertRaisesRegex(UserError, "none twice"):
      solvers.integrate(still, x, (0.0, 0.0, 1.0))
    with self.assertRaisesRegex(UserError, "must rise"):
      solvers.euler_maruyama(still, x, (1.0, 0.5, 0.0), KEYS)
    with self.assertRaisesRegex(UserError, "last='none'"):
      solvers.euler_maruyama(still, x, (0.0, 1.0), KEYS, last="none")


class LikelihoodTest(absltest.TestCase):
  def test_mixture(self):
    x = np.linspace(-3, 3.2, 40, dtype=np.float32)[None, :, None]
    got = solvers.log_likelihood(
      mixture(**MIXTURE), jnp.asarray(x), solvers.uniform_grid(300)
    )
    want = np.log(mixture_density(x[..., 0]))
    np.testing.assert_allclose(got, want, atol=0.02)

  def test_probes_are_unbiased(self):
    # A velocity that mixes three features: v = A x, so that div v = tr A.
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)) / 2)
    velocity = lambda x, t: x @ matrix.astype(x.dtype)
    x = jnp.broadcast_to(jnp.array([[0.3, -0.2, 0.5]]), (4000, 3))
    grid = solvers.uniform_grid(20)
    exact = solvers.log_likelihood(velocity, x[:1], grid)[0]
    start = np.asarray(x[0]) @ np.asarray(jax.scipy.linalg.expm(-matrix))
    want = stats.norm.logpdf(start).sum() - np.trace(matrix)
    self.assertAlmostEqual(float(exact), want, delta=2e-3)
    keys = jax.random.split(jax.random.key(0), len(x))
    some = solvers.log_likelihood(velocity, x, grid, keys=keys)
    error = float(some.std()) / len(x) ** 0.5
    self.assertGreater(error, 0)
    self.assertAlmostEqual(float(some.mean()), want, delta=4 * error + 2e-3)


if __name__ == "__main__":
  absltest.main()
