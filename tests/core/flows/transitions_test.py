"""Transitions: the two oracles of Transition Matching, for every T, and the
processes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.errors import UserError
from ar_jax.core.flows import transitions

COUNT = {"1": 250_000, "2": 20_000}  # samples, by the numbers of each
KEY = jax.random.split(jax.random.key(0), 1)
CORRELATED = np.array([[1.0, 0.9], [0.9, 1.0]])


def posterior(tau, sigma, xp):
  """(gain, covariance) of Y = X_T - X_0 given X_tau, of data N(0, sigma)."""
  one = xp.eye(len(sigma))
  v = (1 - tau) ** 2 * one + tau**2 * sigma
  c = tau * sigma - (1 - tau) * one
  gain = c @ xp.linalg.inv(v)
  return gain, one + sigma - gain @ c.T


def closed_form(steps, sigma, diagonal):
  """The covariance of X_T: P <- A P A' + S / T^2 with A = I + C V^-1 / T."""
  p = np.eye(len(sigma))
  for s in range(steps):
    gain, rest = posterior(s / steps, sigma, np)
    rest = np.diag(np.diag(rest)) if diagonal else rest
    a = np.eye(len(sigma)) + gain / steps
    p = a @ p @ a.T + rest / steps**2
  return p


@functools.partial(jax.jit, static_argnums=(0, 1))
def sampled(steps, kind):
  """The covariance of samples of a sampler whose kernel is the posterior:
  "joint", "factors" (its diagonal), or "mean" (Euler's flow matching)."""
  sigma = jnp.asarray(CORRELATED if kind[0] == "2" else [[0.25]])

  def kernel(x, s, tau, keys):
    del s
    gain, rest = posterior(tau, sigma, jnp)
    y = jnp.einsum("ij,bnj->bni", gain, x)
    if kind.endswith("mean"):
      return y
    if kind.endswith("factors"):
      rest = jnp.diag(jnp.diag(rest))
    noise = jax.random.normal(keys[0], x.shape)
    return y + jnp.einsum("ij,bnj->bni", jnp.linalg.cholesky(rest), noise)

  x = jax.random.normal(jax.random.key(1), (1, COUNT[kind[0]], len(sigma)))
  taus = transitions.times(steps)
  x = transitions.differences(kernel, x, taus, KEY)[0]
  return jnp.einsum("ni,nj->ij", x, x) / len(x)


class OraclesTest(parameterized.TestCase):
  @parameterized.parameters(
    (1, 0.0), (2, 0.04), (4, 0.116), (8, 0.172), (16, 0.208), (32, 0.228)
  )  # fmt: skip
  def test_one_number_is_exact_for_every_number_of_steps(self, steps, euler):
    np.testing.assert_allclose(closed_form(steps, np.eye(1) / 4, False), 0.25)
    deviation = 0.25 * np.sqrt(2 / COUNT["1"])
    found = sampled(steps, "1 joint")[0, 0]
    self.assertAlmostEqual(found, 0.25, delta=3 * deviation)
    found = sampled(steps, "1 mean")[0, 0]
    self.assertAlmostEqual(found, euler, delta=1.5e-3)

  @parameterized.parameters(
    (1, 0.0, 1.0), (2, 0.519, 0.811), (4, 0.796, 0.831), (8, 0.853, 0.902),
    (16, 0.877, 0.947), (32, 0.889, 0.973),
  )  # fmt: skip
  def test_a_head_of_factors_is_bounded(self, steps, correlation, variance):
    exact = closed_form(steps, CORRELATED, True)
    self.assertAlmostEqual(exact[0, 0], variance, delta=6e-4)
    self.assertAlmostEqual(exact[0, 1] / exact[0, 0], correlation, delta=6e-4)
    error = 4 * np.sqrt(2 / COUNT["2"])
    np.testing.assert_allclose(sampled(steps, "2 factors"), exact, atol=error)
    np.testing.assert_allclose(
      closed_form(steps, CORRELATED, False), CORRELATED, rtol=1e-9
    )
    np.testing.assert_allclose(
      sampled(steps, "2 joint"), CORRELATED, atol=error
    )


class ProcessesTest(parameterized.TestCase):
  @parameterized.parameters(*transitions.PROCESSES)
  def test_covariances(self, process):
    """Cov(X_s, X_t) = tau_s tau_t Var(x), and with one noise for all also (1 -
    tau_s) (1 - tau_t)."""
    taus = transitions.times(3, "exponential")
    x = 2.0 * jax.random.normal(jax.random.key(2), (1, 200_000))
    found = transitions.states(x, KEY, taus, process)[0]
    self.assertEqual(found.shape, (4, 200_000))
    np.testing.assert_array_equal(found[-1], x[0])
    want = 4 * np.outer(taus, taus)
    own = np.outer(1 - taus, 1 - taus)
    want += own if process == "linear" else np.diag(np.diag(own))
    np.testing.assert_allclose(np.cov(found), want, atol=0.04)

  def test_grids(self):
    close = np.testing.assert_allclose
    close(transitions.times(3, "exponential"), [0, 0.5, 0.75, 1])
    close(transitions.times(2, "exponential"), [0, 0.5, 1])
    close(transitions.times(1, "exponential"), [0, 1])
    close(transitions.times(4), [0, 0.25, 0.5, 0.75, 1])

  def test_wrong_values(self):
    with self.assertRaisesRegex(UserError, "0 transitions"):
      transitions.times(0)
    with self.assertRaisesRegex(UserError, "process='smooth'"):
      transitions.states(jnp.zeros((1, 2)), KEY, (0, 1), "smooth")


if __name__ == "__main__":
  absltest.main()
