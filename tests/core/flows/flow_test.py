"""Paths, predictions, times and guidance against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.errors import UserError
from ar_jax.core.flows import flow

every_path = parameterized.parameters(*[(p,) for p in flow.PATHS.values()])


class PathTest(parameterized.TestCase):
  @every_path
  def test_ends_are_noise_and_data(self, path):
    a, s, _, _ = path.coefficients(jnp.array([0.0, 1.0]))
    # The variance-preserving path keeps exp(-10.05 / 2) of the data.
    np.testing.assert_allclose(a, [0.0, 1.0], atol=7e-3)
    np.testing.assert_allclose(s, [1.0, 0.0], atol=1e-4)

  @every_path
  def test_velocity_is_the_derivative(self, path):
    x, noise = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    t = jnp.linspace(0.05, 0.9, 5)
    _, want = jax.jvp(
      lambda t: path.noisy(x, noise, t), (t,), (jnp.ones_like(t),)
    )
    np.testing.assert_allclose(path.velocity(x, noise, t), want, rtol=1e-4)

  @every_path
  def test_predictions_convert_into_each_other(self, path):
    draw = np.random.default_rng(1)
    x, noise = draw.normal(size=(2, 3, 4, 2)).astype(np.float32)
    t = jnp.asarray(draw.uniform(0.2, 0.9, (3, 4)), jnp.float32)
    xt, v = path.noisy(x, noise, t), path.velocity(x, noise, t)
    s = path.coefficients(t[..., None])[1]
    for of, value in (("velocity", v), ("noise", noise), ("data", x)):
      got = path.convert(of, value, xt, t)
      for part, want in zip(got, (x, noise, v, -noise / s), strict=True):
        np.testing.assert_allclose(part, want, rtol=2e-3, atol=2e-4)
      np.testing.assert_array_equal(getattr(got, of), value)

  def test_linear_formulas(self):
    x, v = np.random.default_rng(2).normal(size=(2, 7)).astype(np.float32)
    t = np.float32(0.3)
    got = flow.LINEAR.convert("velocity", v, x, t)
    np.testing.assert_allclose(got.data, x + (1 - t) * v, rtol=1e-5)
    np.testing.assert_allclose(got.noise, x - t * v, rtol=1e-5)
    score = (t * v - x) / (1 - t)
    np.testing.assert_allclose(got.score, score, rtol=1e-5)
    # xAR's drift, whose time u = 1 - t and velocity -v count the other way:
    # (2 - u) (-v) + x is its velocity less u times the score.
    u = 1 - t
    np.testing.assert_allclose(
      (2 - u) * -v + x, -v - u * score, rtol=1e-4, atol=1e-6
    )

  def test_the_data_is_known_at_t_1_even_where_the_velocity_is_not(self):
    x = jnp.ones((1, 2))
    for path in (flow.LINEAR, flow.COSINE):
      got = path.convert("velocity", 0.5 * x, x, jnp.ones(1))
      np.testing.assert_allclose(got.data, x, atol=1e-6)

  def test_bad_names(self):
    with self.assertRaisesRegex(UserError, "path='line'"):
      flow.path("line")
    with self.assertRaisesRegex(UserError, "choose velocity"):
      flow.LINEAR.convert("v", jnp.ones(1), jnp.ones(1), jnp.ones(1))
    with self.assertRaisesRegex(UserError, "times='sorted'"):
      flow.Times("sorted")
    with self.assertRaisesRegex(UserError, "shift=0"):
      flow.Times(shift=0)


class TimesTest(absltest.TestCase):
  def test_uniform(self):
    t = flow.Times().draw(jax.random.key(0), (100_000,))
    self.assertAlmostEqual(float(t.mean()), 0.5, delta=5e-3)
    self.assertAlmostEqual(float(t.std()), 12**-0.5, delta=5e-3)

  def test_logit_normal(self):
    t = flow.Times("logit_normal").draw(jax.random.key(0), (200_000,))
    t = np.asarray(t)
    self.assertAlmostEqual(t.mean(), 0.5, delta=3e-3)
    self.assertAlmostEqual(t.std(), 0.208, delta=3e-3)
    self.assertAlmostEqual(np.mean((t > 0.1) & (t < 0.9)), 0.972, delta=3e-3)
    self.assertAlmostEqual(np.quantile(t, 0.05), 0.162, delta=3e-3)

  def test_shift(self):
    key = jax.random.key(1)
    t = flow.Times().draw(key, (1000,))
    moved = flow.Times(shift=3.0).draw(key, (1000,))
    # In noise time u = 1 - t this is 3 u / (1 + 2 u), as in the paper.
    u = 1 - t
    np.testing.assert_allclose(1 - moved, 3 * u / (1 + 2 * u), atol=1e-6)
    self.assertLess(float(moved.mean()), float(t.mean()))


class GuideTest(absltest.TestCase):
  def test_scales(self):
    cond, null = jnp.array([1.0, 2.0]), jnp.array([0.5, -1.0])
    np.testing.assert_array_equal(flow.guide(cond, null, 1.0), cond)
    np.testing.assert_array_equal(flow.guide(cond, null, 0.0), null)
    np.testing.assert_allclose(flow.guide(cond, null, 3.0), [2.0, 8.0])

  def test_interval(self):
    cond, null = jnp.array([1.0]), jnp.array([0.0])
    at = lambda t: float(
      flow.guide(cond, null, 2.0, jnp.float32(t), (0.1, 0.7))[0]
    )
    self.assertEqual(
      [at(t) for t in (0.0, 0.1, 0.5, 0.7, 0.8)], [1, 2, 2, 2, 1]
    )


if __name__ == "__main__":
  absltest.main()
