"""The layer of mesa-optimization on real series, and its presets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest

from ar_jax import optim
from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from configs import mesa_optimization as configs
from experiments.shared import series

_descent = functools.cache(optax.sgd)


def cut(values, history=2):
  return {"history": values[:, :history], "series": values[:, history:]}


class RealTest(absltest.TestCase):
  def batch(self, values):
    rng = np.random.default_rng(0)
    return cut(rng.normal(size=(3, 12, values)).astype(np.float32), 6)

  def test_a_delay_reads_the_last_values(self):
    system = build("mesa_optimization", dim=3, length=6, reads="delay")
    batch = self.batch(1)
    whole = np.concatenate([batch["history"], batch["series"]], 1)[..., 0]
    x = system.vectors(whole[..., None])
    self.assertEqual(x.shape, (3, 10, 3))
    np.testing.assert_array_equal(x[:, 4].real, whole[:, [6, 5, 4]])
    variables = system.init(jax.random.key(0), batch)
    self.assertEqual(system.predict(variables, batch).shape, (3, 6, 1))

  def test_roll_outs_are_one_step_after_the_other(self):
    for reads, values in (("delay", 1), ("real", 3)):
      system = build("mesa_optimization", dim=3, length=6, a=1.0, b=1.0,
                     reads=reads)  # fmt: skip
      batch = self.batch(values)
      variables = system.init(jax.random.key(0), batch)
      drawn = system.sample(variables, batch, None)
      again = system.predict(variables, {**batch, "series": drawn})
      np.testing.assert_allclose(drawn, again, atol=1e-5)
      self.assertGreater(np.abs(drawn).max(), 0.01)
      if reads == "delay":  # one number is new, not the vector
        bounded = system.sample(
          variables, {"history": 10 * batch["history"]}, None, bounded=True
        )
        most = np.abs(10 * batch["history"]).max(1)[:, None]
        self.assertTrue((np.abs(bounded) <= 1.001 * most).all())
        self.assertGreater(np.abs(bounded).max(), 1)

  def test_real_data_have_real_matrices(self):
    system = build("mesa_optimization", dim=3, length=6, reads="delay")
    batch = self.batch(1)
    variables = series.fit(
      system, _descent(1e-3), batch, size=3, epochs=5, seed=0
    )
    for x in jax.tree.leaves(variables):
      np.testing.assert_array_equal(x[..., 1], 0)
      self.assertGreater(jnp.abs(x[..., 0]).max(), 0.09)

  def test_errors_are_those_of_the_series(self):
    system = build("mesa_optimization", dim=3, length=6, reads="real")
    batch = self.batch(3)
    variables = system.init(jax.random.key(0), batch)
    loss = system.loss(variables, batch, None, train=False)
    found = system.predict(variables, batch)
    square = np.square(found - batch["series"])
    np.testing.assert_allclose(loss.errors, square.sum(-1) / 2, rtol=1e-4)
    np.testing.assert_allclose(
      loss.metrics["mse"], square.mean((1, 2)), rtol=1e-4
    )

  def test_bad_input(self):
    for bad in (dict(dim=0), dict(reads="words"), dict(length=0)):
      with self.assertRaisesRegex(UserError, "model"):
        build("mesa_optimization", **bad)
    system = build("mesa_optimization", dim=3, length=6, reads="delay")
    with self.assertRaisesRegex(UserError, "3 values at a time.*reads 1"):
      system.init(jax.random.key(0), self.batch(3))
    batch = self.batch(1)
    variables = system.init(jax.random.key(0), batch)
    with self.assertRaisesRegex(UserError, "data.history=3.*reads 4"):
      system.sample(variables, {"history": batch["history"][:, :3]}, None)
    with self.assertRaisesRegex(UserError, "form='loop'"):
      system.sample(variables, batch, None, form="loop")


class ConfigTest(absltest.TestCase):
  def test_presets(self):
    for name in ("default", "paper", *configs.PUBLISHED, "sunspots", "co2"):
      c = configs.get_config(name)
      system = build(c.system, **c.model.to_dict())
      optim.make(c.optim.to_dict(), c.train.steps)
      made = jax.eval_shape(system.init, jax.random.key(0), {})
      complexes = sum(x.size for x in jax.tree.leaves(made["params"])) / 2
      d = c.model.dim
      self.assertEqual(complexes, 6 * d**2, name)
      self.assertEqual(c.model.length, c.data.length)
      if name == "paper":
        self.assertEqual(
          (complexes, c.batch, c.optim.kind), (150, 10**4, "sgd")
        )
        self.assertEqual(c.data.history + c.data.length, 100)


if __name__ == "__main__":
  absltest.main()
