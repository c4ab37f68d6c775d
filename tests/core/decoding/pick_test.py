"""The sampling law against a plain NumPy oracle, and its edges."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.decoding import pick
from ar_jax.core.system import UserError


def oracle(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
  """VAR's filters on one row, by sorting; probabilities."""
  logits = np.asarray(logits, np.float64) / temperature
  softmax = lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum()
  if top_k:
    logits = np.where(logits >= np.sort(logits)[-top_k], logits, -np.inf)
  if top_p < 1:
    rows = np.sort(logits)
    keep = np.cumsum(softmax(rows)) > 1 - top_p
    keep[-1] = True
    logits = np.where(logits >= rows[keep][0], logits, -np.inf)
  probs = softmax(logits)
  return softmax(np.where(probs >= min_p * probs.max(), logits, -np.inf))


class BiasTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(1)
    self.logits = rng.normal(size=(3, 2, 9)).astype(np.float32)
    self.bias = rng.normal(size=(3, 9)).astype(np.float32)

  def test_it_acts_behind_the_temperature_and_before_the_filters(self):
    for filters in ({}, {"top_k": 4}, {"top_p": 0.7}, {"min_p": 0.2}):
      biased = pick.biased(self.logits, self.bias, 0.5)
      got = np.exp(pick.law(biased, temperature=0.5, **filters))
      both = self.logits / 0.5 + self.bias[:, None]
      want = np.apply_along_axis(oracle, -1, both, **filters)
      np.testing.assert_allclose(got, want, atol=1e-6)

  def test_shapes(self):
    one = pick.biased(self.logits, self.bias[0])
    np.testing.assert_allclose(one, self.logits + self.bias[0], rtol=1e-6)
    flat = pick.biased(self.logits[:, 0], self.bias)
    np.testing.assert_allclose(flat, self.logits[:, 0] + self.bias, rtol=1e-6)
    each = pick.biased(self.logits, 2 * self.logits)
    np.testing.assert_allclose(each, 3 * self.logits, rtol=1e-6)
    self.assertIs(pick.biased(self.logits, None), self.logits)
    for shape in ((8,), (2, 9), (3, 1), (1, 3, 2, 9)):
      with self.assertRaisesRegex(UserError, "bias of shape"):
        pick.biased(self.logits, np.zeros(shape))

  @parameterized.parameters(0.0, 1e-30, 0.5, 1.0)
  def test_what_is_forbidden_never_is(self, temperature):
    bias = np.where(np.arange(9) % 3, np.float32(-np.inf), self.bias)
    biased = pick.biased(self.logits, bias, temperature)
    probs = np.exp(pick.law(biased, temperature=temperature))
    self.assertEqual(probs[..., [1, 2, 4, 5, 7, 8]].max(), 0)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-5)
    if temperature < 1e-20:
      best = 3 * self.logits[..., ::3].argmax(-1)
      np.testing.assert_array_equal(probs.argmax(-1), best)
    nothing = pick.biased(self.logits, np.full(9, -1e30), temperature)
    law = np.exp(pick.law(nothing, temperature=temperature))
    np.testing.assert_allclose(law.sum(-1), 1, rtol=1e-5)

  def test_a_step_of_several(self):
    bias = np.arange(3 * 4 * 9).reshape(3, 4, 9)
    np.testing.assert_array_equal(pick.bias_at(bias, 2), bias[:, 2])
    steps = np.array([0, 1, 1, 3])
    np.testing.assert_array_equal(pick.bias_at(bias, steps), bias[:, steps])
    self.assertIs(pick.bias_at(self.bias, 7), self.bias)


class LawTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(),
    dict(temperature=0.7),
    dict(top_k=1),
    dict(top_k=5),
    dict(top_k=50),
    dict(top_p=0.9),
    dict(top_p=1e-9),
    dict(top_p=0.999),
    dict(min_p=0.1),
    dict(min_p=1.0),
    dict(temperature=1.3, top_k=20, top_p=0.8),
    dict(temperature=0.5, top_k=30, top_p=0.95, min_p=0.02),
  )
  def test_equals_sorting(self, **options):
    logits = 3 * np.random.default_rng(0).standard_normal((7, 3, 50))
    logits = logits.astype(np.float32)
    got = np.exp(pick.law(logits, **options))
    want = np.apply_along_axis(lambda x: oracle(x, **options), -1, logits)
    np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_array_equal(got > 0, want > 0)

  def test_ties_share_one_fate(self):
    logits = jnp.array([0.0, 1.0, 1.0, -0.0, 1.0])
    third = np.exp(pick.law(logits, top_k=2))
    np.testing.assert_allclose(third, [0, 1 / 3, 1 / 3, 0, 1 / 3], atol=1e-6)
    np.testing.assert_allclose(
      np.exp(pick.law(logits, top_p=0.1)), third, atol=1e-6
    )
    everything = np.exp(pick.law(logits, top_k=4))
    self.assertTrue((everything > 0).all())

  def test_order_of_the_vocabulary_does_not_matter(self):
    rng = np.random.default_rng(1)
    logits, order = rng.integers(-3, 4, 40) * 1.0, rng.permutation(40)
    law = lambda x: np.asarray(pick.law(jnp.array(x), top_k=9, top_p=0.7))
    np.testing.assert_allclose(
      law(logits)[order], law(logits[order]), rtol=1e-6
    )

  def test_forbidden_units_stay_forbidden(self):
    logits = jnp.array([-jnp.inf, 2.0, -jnp.inf, 1.0])
    for options in ({}, {"top_k": 3}, {"top_p": 0.99}, {"min_p": 0.5}):
      logp = np.asarray(pick.law(logits, **options))
      np.testing.assert_array_equal(logp[[0, 2]], -np.inf)
      self.assertFalse(np.isnan(logp).any())

  def test_zero_temperature_is_greedy(self):
    logits = jnp.array([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]])
    logp = pick.law(logits, temperature=0)
    np.testing.assert_array_equal(np.exp(logp), [[0, 1, 0], [1, 0, 0]])
    keys = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_array_equal(pick.draw(logp, keys), [1, 0])

  @parameterized.parameters(
    dict(top_k=6), dict(top_k=-1), dict(top_p=0.0), dict(top_p=1.5),
    dict(min_p=2.0), dict(temperature=-1.0), dict(temperature=float("nan")),
  )  # fmt: skip
  def test_bad_values(self, **options):
    with self.assertRaises(UserError):
      pick.law(jnp.zeros(5), **options)


class DrawTest(absltest.TestCase):
  def test_frequencies_follow_the_law(self):
    logp = jnp.log(jnp.array([0.5, 0.3, 0.2, 0.0]))
    keys = jax.random.split(jax.random.key(0), 20_000)
    ids = pick.draw(jnp.broadcast_to(logp, (20_000, 4)), keys)
    got = np.bincount(ids, minlength=4) / 20_000
    np.testing.assert_allclose(got, [0.5, 0.3, 0.2, 0], atol=0.02)

  def test_an_example_depends_on_its_key_only(self):
    logp = jax.nn.log_softmax(jax.random.normal(jax.random.key(1), (4, 6, 9)))
    keys = jax.random.split(jax.random.key(2), 4)
    halves = [pick.draw(logp[i : i + 2], keys[i : i + 2]) for i in (0, 2)]
    np.testing.assert_array_equal(pick.draw(logp, keys), np.concatenate(halves))

  def test_soft_draw_tends_to_the_hard_one(self):
    logp = jax.nn.log_softmax(jax.random.normal(jax.random.key(3), (2, 5, 8)))
    keys = jax.random.split(jax.random.key(4), 2)
    hard = jax.nn.one_hot(pick.draw(logp, keys), 8)
    np.testing.assert_allclose(pick.soften(logp, keys, 1e-4), hard, atol=1e-5)


class GuidanceTest(parameterized.TestCase):
  def test_one_is_off_to_the_bit(self):
    cond, null = jax.random.normal(jax.random.key(0), (2, 100))
    np.testing.assert_array_equal(pick.guide(cond, null, 1.0), cond)
    np.testing.assert_allclose(
      pick.guide(cond, null, 2.5), 2.5 * cond - 1.5 * null, rtol=1e-6
    )

  def test_what_is_impossible_stays_so(self):
    inf = np.inf
    cond = jnp.array([1.0, 0.0, -inf, -inf])
    null = jnp.array([0.0, -inf, 0.0, -inf])
    for scale in (1.0, jnp.float32(1.0)):
      np.testing.assert_array_equal(pick.guide(cond, null, scale), cond)
    for scale in (0.0, jnp.float32(0.0)):
      np.testing.assert_array_equal(pick.guide(cond, null, scale), null)
    for scale in (2.0, 0.5, jnp.float32(3.0)):
      got = pick.guide(cond, null, scale)
      np.testing.assert_array_equal(got, [scale, -inf, -inf, -inf])
    law = pick.law(pick.guide(cond, null, 2.0))
    np.testing.assert_array_equal(law, [0.0, -inf, -inf, -inf])

  @parameterized.parameters(1e-6, 1e-20, 1e-38, 1e-45)
  def test_a_temperature_next_to_zero_is_greedy(self, temperature):
    logits = jnp.array([3.0, 50.0, -jnp.inf, -80.0])
    law = pick.law(logits, temperature=temperature)
    want = pick.law(logits, temperature=0)
    np.testing.assert_array_equal(jnp.exp(law), jnp.exp(want))

  def test_schedules(self):
    self.assertEqual(pick.schedule("constant", 2, 3), (2.0, 2.0, 2.0))
    self.assertEqual(pick.schedule("ramp", 2.5, 4), (1.0, 1.5, 2.0, 2.5))
    self.assertEqual(pick.schedule("constant", 2, 3, stop=1), (2.0, 1.0, 1.0))
    with self.assertRaisesRegex(UserError, "stop=5"):
      pick.schedule("constant", 2, 4, stop=5)
    for name, scale in (("linear", 1.0), ("ramp", -1.0)):
      with self.assertRaises(UserError):
        pick.schedule(name, scale, 4)


if __name__ == "__main__":
  absltest.main()
