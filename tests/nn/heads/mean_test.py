"""Heads to compare with: a mean, and the nearest of some codes."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.nn.heads.mean import Mean, NearestCode


class MeanTest(absltest.TestCase):
  def test_a_mean(self):
    head, key = Mean(3, 8, weight=2.0), jax.random.key(0)
    h, null, y = (
      jax.random.normal(k, (2, 4, 3)) for k in jax.random.split(key, 3)
    )
    params = head.init(key, h)
    run = lambda method, *args, **options: head.apply(
      params, *args, None, method=method, **options
    )
    said, other = run("draw", h), run("draw", null)
    np.testing.assert_allclose(
      run("loss", h, y), 2 * np.square(said - y).mean(-1), rtol=1e-5
    )
    guided = run("draw", h, h_null=null, scale=1.5, times=3)
    np.testing.assert_allclose(guided, 1.5 * said - 0.5 * other, atol=1e-5)

  def test_codes(self):
    head, key = NearestCode(4, 2), jax.random.key(0)
    h = jnp.ones((2, 3, 5))
    y = jax.random.normal(key, (2, 3, 2))
    keys = jax.random.split(key, 2)
    made = head.init(key, h, y, keys, method="loss")
    codes = np.asarray([[0, 0], [1, 0], [0, 1], [-1, -1]], np.float32)
    made = {**made, "codebook": {"codes": codes}}
    run = lambda *args, method: head.apply(made, *args, method=method)
    near = np.square(np.asarray(y)[:, :, None] - codes).sum(-1).argmin(-1)
    np.testing.assert_array_equal(run(y, method="ids"), near)
    np.testing.assert_array_equal(run(y, method="snap"), codes[near])
    kernel = made["params"]["law"]["linear"]["kernel"]
    log = jax.nn.log_softmax(np.asarray(h) @ kernel)
    true = -np.take_along_axis(np.asarray(log), near[..., None], 2)[..., 0]
    np.testing.assert_allclose(run(h, y, keys, method="loss"), true, atol=1e-5)
    drawn = np.asarray(run(h, keys, method="draw"))
    self.assertTrue((drawn[:, :, None] == codes).all(-1).any(-1).all())


if __name__ == "__main__":
  absltest.main()
