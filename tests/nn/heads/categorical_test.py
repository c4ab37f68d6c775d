"""Heads against formulas."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.decoding import pick
from ar_jax.nn.heads.categorical import Categorical, cross_entropy


class CategoricalTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.head = Categorical(7, 1.0)
    self.h, self.null = jax.random.normal(jax.random.key(0), (2, 3, 5, 16))
    self.variables = self.head.init(jax.random.key(1), self.h, method="logits")

  def apply(self, *args, method, **kwargs):
    return self.head.apply(self.variables, *args, method=method, **kwargs)

  def test_nll(self):
    target = jnp.arange(15).reshape(3, 5) % 7
    logits = self.apply(self.h, method="logits")
    hot = jax.nn.one_hot(target, 7)
    for e in (0.0, 0.1):
      want = -((1 - e) * hot + e / 7) * jax.nn.log_softmax(logits)
      got = self.apply(self.h, target, method="nll", smoothing=e)
      np.testing.assert_allclose(got, want.sum(-1), rtol=1e-5)
      np.testing.assert_array_equal(
        got, cross_entropy(logits, target, smoothing=e)
      )

  def test_guiding_the_state_guides_the_logits(self):
    guided = pick.guide(
      self.apply(self.h, method="logits"),
      self.apply(self.null, method="logits"),
      2.5,
    )
    got = self.apply(self.h, h_null=self.null, scale=2.5, top_k=4, method="law")
    np.testing.assert_allclose(got, pick.law(guided, top_k=4), atol=1e-4)

  def test_draws_follow_the_law(self):
    keys = jax.random.split(jax.random.key(2), 3)
    logp = self.apply(self.h, method="law")
    np.testing.assert_array_equal(
      self.apply(self.h, keys, method="draw"), pick.draw(logp, keys)
    )


if __name__ == "__main__":
  absltest.main()
