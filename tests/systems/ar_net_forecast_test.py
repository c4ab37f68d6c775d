"""Forecasts of AR-Net on random weights, and its presets."""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax import data, optim
from ar_jax.command import overrides
from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from ar_jax.data.series import windows
from ar_jax.systems import ar_net
from configs import ar_net as configs
from tests import golden_weights


class ForecastTest(absltest.TestCase):
  """Properties of the system, on random weights."""

  def system(self, order=5, length=6, values=2, **model):
    system = build("ar_net", order=order, length=length, **model)
    rng = np.random.default_rng(0)
    batch = {
      "history": rng.normal(size=(3, 9, values)).astype(np.float32),
      "series": rng.normal(size=(3, length, values)).astype(np.float32),
    }
    return system, system.init(jax.random.key(0), batch), batch

  def test_a_roll_out_is_one_step_after_the_other(self):
    system, variables, batch = self.system()
    drawn = system.sample(variables, batch, None)
    # Fed with what was drawn, one step ahead is what was drawn.
    again = system.predict(variables, {**batch, "series": drawn})
    np.testing.assert_allclose(drawn, again, atol=1e-5)
    self.assertEqual(drawn.shape, (3, 6, 2))
    longer = system.sample(variables, batch, None, length=11)
    np.testing.assert_allclose(longer[:, :6], drawn, atol=1e-6)

  def test_several_steps_in_a_pass(self):
    system, variables, batch = self.system(forecasts=4)
    drawn = system.sample(variables, batch, None)
    self.assertEqual(drawn.shape, (3, 6, 2))
    np.testing.assert_allclose(
      drawn[:, :4],
      system.net.apply(variables, batch["history"][:, -5:]),
      atol=1e-6,
    )
    loss = system.loss(variables, batch, None, train=False)
    self.assertEqual(loss.errors.shape, (3, 6))
    # At each time the mean over the windows that reach it: 1, 2, 3, 3, 2, 1.
    count = np.array([1, 2, 3, 3, 2, 1])
    np.testing.assert_allclose(
      (np.asarray(loss.errors) * count).sum(1) / 12, loss.value, rtol=1e-5
    )

  def test_errors_do_not_depend_on_later_values(self):
    for n in (1, 3):
      system, variables, batch = self.system(forecasts=n)
      errors_of = lambda series, s=system, v=variables, b=batch: (
        s.loss(v, {**b, "series": series}, None, train=False).errors
      )
      before = errors_of(batch["series"])
      other = batch["series"].copy()
      other[:, 3:] += 1
      after = errors_of(other)
      np.testing.assert_array_equal(before[:, :3], after[:, :3])
      self.assertTrue((before[:, 3:] != after[:, 3:]).all())

  def test_noise_is_each_examples_own(self):
    system, variables, batch = self.system()
    keys = jax.random.split(jax.random.key(1), 3)
    drawn = system.sample(variables, batch, keys, noise=0.5)
    alone = system.sample(
      variables, {"history": batch["history"][1:2]}, keys[1:2], noise=0.5
    )
    np.testing.assert_allclose(drawn[1], alone[0], atol=1e-5)
    plain = system.sample(variables, batch, keys)
    self.assertGreater(np.abs(drawn - plain).min(0).max(), 0.01)

  def test_penalty_is_of_training_and_of_weights_only(self):
    system, variables, batch = self.system(density=0.1, values=1)
    value = lambda train, variables=variables: (
      system.loss(variables, batch, None, train=train).value
    )
    kernel = variables["params"]["layer_1"]["kernel"]
    r = ar_net.penalty(kernel).mean()
    np.testing.assert_allclose(value(True) - value(False), 0.18 * r, rtol=1e-3)

  def test_noise_of_the_data_scales_the_penalty(self):
    system, variables, batch = self.system(density=0.1, values=1, noise=True)
    values = golden_weights.load("ar_net")[1]["series"][:, None]
    source = windows.Windows(values, range(8, 254), 8, 6)
    fitted = system.fitted(variables, source, 0)
    self.assertAlmostEqual(float(fitted["data"]["noise"]), 1.36, delta=0.05)
    value = lambda v: system.loss(v, batch, None, train=True).value
    bare = system.loss(variables, batch, None, train=False).value
    ratio = (value(fitted) - bare) / (value(variables) - bare)
    np.testing.assert_allclose(ratio, fitted["data"]["noise"], rtol=1e-3)

  def test_bad_input(self):
    system, variables, batch = self.system()
    short = {**batch, "history": batch["history"][:, :4]}
    for call in (
      lambda: system.loss(variables, short, None, train=True),
      lambda: system.sample(variables, short, None),
    ):
      with self.assertRaisesRegex(UserError, "data.history=4.*reads 5"):
        call()
    with self.assertRaisesRegex(UserError, "no history"):
      system.sample(variables, {}, None)
    longer = {**batch, "series": batch["history"]}
    with self.assertRaisesRegex(UserError, "data.length=9, model.length=6"):
      system.loss(variables, longer, None, train=True)
    for bad in (
      dict(order=0),
      dict(order=3, depth=0),
      dict(order=3, forecasts=2),
      dict(order=3, ramp="later"),
      dict(order=3, error="cubed"),
    ):
      with self.assertRaisesRegex(UserError, "model"):
        build("ar_net", **bad)


class ConfigTest(absltest.TestCase):
  def test_presets(self):
    for name, steps, count in (
      ("default", 4000, 41),
      ("co2", 4600, 121),
      ("process", 2480, 101),
      ("paper", 7810, 21),
      ("later", 5612, 21),
    ):
      c = configs.get_config(name)
      system = build(c.system, **c.model.to_dict())
      optim.make(c.optim.to_dict(), c.train.steps)
      batch = {"history": jnp.zeros((1, c.data.history, 1))}
      made = jax.eval_shape(system.init, jax.random.key(0), batch)
      sizes = [x.size for x in jax.tree.leaves(made["params"])]
      self.assertEqual((c.train.steps, sum(sizes)), (steps, count), name)

  def test_what_data_and_model_share_is_one_key(self):
    c = configs.get_config()
    overrides.apply(c, [("data.length", "7"), ("data.history", "9")])
    self.assertEqual((c.model.length, c.model.order), (7, 9))
    overrides.apply(c, [("model.length", "3"), ("model.order", "5")])
    self.assertEqual((c.data.length, c.data.history), (3, 5))

  def test_a_csv_needs_no_more_than_its_name(self):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(folder, "my.csv")
    values = np.random.default_rng(0).normal(size=200)
    path.write_text("\n".join(["v", *map(str, values)]))
    c = configs.get_config()
    overrides.apply(c, [("data.name", "csv"), ("data.path", str(path))])
    found = data.load(**c.data)
    self.assertEqual(found.train[0]["history"].shape, (40, 1))
    self.assertEqual(found.test[0]["series"].shape, (10, 1))


if __name__ == "__main__":
  absltest.main()
