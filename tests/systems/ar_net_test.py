"""AR-Net against the code released and against least squares."""

import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from ar_jax import data, optim
from ar_jax.command import overrides
from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from ar_jax.data.series import processes, windows
from ar_jax.evals.series import errors
from ar_jax.systems import ar_net
from configs import ar_net as configs
from experiments.shared import series
from tests import golden_weights

P, CUT = 8, 8 + 201  # of the golden runs: lags, the first target of the test


@functools.cache
def golden():
  return golden_weights.load("ar_net")


def golden_rows():
  """(training, test) windows of the golden series."""
  description, arrays = golden()
  values = arrays["series"][:, None]
  part = lambda a, b: series.rows(windows.Windows(values, range(a, b), P, 1))
  length = description["config"]["series_length"]
  return part(P, CUT), part(CUT, length)


def golden_params(prefix="", names=("layer_1",)):
  """The released parameters of these layers, as ours."""
  found = golden_weights.weights(golden()[0])
  return {
    f"layer_{i}": {
      "kernel": found[f"{prefix}{name}.weight"].T,
      "bias": found[f"{prefix}{name}.bias"],
    }
    for i, name in enumerate(names, 1)
  }


class PenaltyTest(parameterized.TestCase):
  @parameterized.parameters(("v01", 3.0), ("v12", 2.0))
  def test_golden_values_and_gradients(self, version, c):
    arrays = golden()[1]
    w = jnp.asarray(arrays["weights"])
    rule = lambda w: ar_net.penalty(w, c, c)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4)
    close(rule(w), arrays[f"{version}_R"], atol=1e-7)
    close(rule(w).mean(), arrays[f"{version}_R_mean"])
    slope = jax.grad(lambda w: rule(w).mean())(w)
    close(slope, arrays[f"{version}_grad_of_mean"])

  def test_exact_values(self):
    r = ar_net.penalty(jnp.array([0.0, 0.008, 1.0, 1e9]))
    np.testing.assert_allclose(r, [0, 0.2913, 0.9051, 1], atol=5e-5)
    self.assertEqual(r[0], 0)

  def test_slope_is_positive_and_falls_and_is_finite_at_zero(self):
    slope = jax.vmap(jax.grad(ar_net.penalty))(jnp.geomspace(1e-6, 3, 50))
    self.assertTrue((slope > 0).all())
    self.assertTrue((np.diff(slope) < 0).all())
    for rule in (ar_net.penalty, ar_net.root_penalty):
      at_zero = jax.vmap(jax.grad(rule))(jnp.array([0.0, -0.0, 1e-30]))
      np.testing.assert_array_equal(at_zero, 0)

  def test_strengths(self):
    arrays = golden()[1]
    for name, factor in (
      ("v01_lambda", 0.02),
      ("v12_lambda", 0.01),
      ("v12_lambda_noise", 0.007),
    ):
      own = [ar_net.strength(float(s), factor) for s in arrays["density"]]
      np.testing.assert_allclose(own, arrays[name], rtol=1e-4, atol=1e-9)
    self.assertEqual(ar_net.strength(1, 0.02), 0)
    for density in (0, -0.1, 1.01):
      with self.assertRaisesRegex(UserError, "model.density"):
        ar_net.strength(density, 0.02)

  def test_ramps(self):
    at = lambda n: {"step": jnp.arange(n)}
    square = build("ar_net", order=2, ramp="square", ramp_steps=10)
    np.testing.assert_allclose(
      square._factor(at(20)), golden()[1]["v12_ramp"], rtol=1e-5
    )
    stairs = build("ar_net", order=2, ramp="stairs", ramp_steps=70)
    own = np.asarray(stairs._factor(at(91)))[::7]
    np.testing.assert_allclose(own, np.minimum(np.arange(13), 10) / 10)


class GoldenTest(parameterized.TestCase):
  def test_windows(self):
    arrays = golden()[1]
    train, test = golden_rows()
    self.assertLen(train["series"], arrays["train_windows"])
    self.assertLen(test["series"], arrays["test_windows"])
    np.testing.assert_array_equal(
      train["history"][0, :, 0], arrays["first_window"]
    )
    np.testing.assert_array_equal(
      train["series"][0, :, 0], arrays["first_target"]
    )
    two = windows.Windows(arrays["series"][:, None], range(P, 259), P, 2)
    self.assertLen(two, arrays["tabular_rows"])
    last = np.concatenate([two[-1]["history"], two[-1]["series"]])[:, 0]
    np.testing.assert_array_equal(last, arrays["tabular_last"])
    np.testing.assert_allclose(
      ar_net.noise_estimate(arrays["series"]),
      arrays["noise_estimate"],
      rtol=1e-5,
    )

  @parameterized.parameters(("plain", 25, 1.0), ("sparse", 13, 0.375))
  def test_training_of_the_release(self, name, epochs, density):
    """Whole runs: every loss, the weights, the forecasts."""
    arrays = golden()[1]
    train, test = golden_rows()
    system = build(
      "ar_net", order=P, density=density, ramp="stairs", ramp_steps=70
    )
    rate = lambda step: 0.03 * 0.9 ** (step // 7)
    tx = optax.adam(rate)
    params = golden_params()
    opt = tx.init(params)

    @jax.jit
    def update(params, opt, batch):
      def mean(params):
        loss = system.loss({"params": params}, batch, None, train=True)
        return loss.value.mean()

      value, slope = jax.value_and_grad(mean)(params)
      change, opt = tx.update(slope, opt)
      return optax.apply_updates(params, change), opt, value

    losses = []
    for step in range(7 * epochs):
      at = slice(step % 7 * 32, step % 7 * 32 + 32)
      batch = {k: v[at] for k, v in train.items()}
      batch["step"] = np.full(len(batch["series"]), step)
      params, opt, value = update(params, opt, batch)
      losses.append(float(value))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(losses, arrays[f"{name}_losses"])
    close(params["layer_1"]["kernel"][:, 0], arrays[f"{name}_weights"])
    close(params["layer_1"]["bias"], arrays[f"{name}_bias"])
    variables = {"params": params}
    close(system.coefficients(variables), arrays[f"{name}_coefficients"])
    found = system.predict(variables, test)[:, 0, 0]
    close(found[:10], arrays[f"{name}_predictions"])
    mse = np.square(found - test["series"][:, 0, 0]).mean()
    close(mse, arrays[f"{name}_test_mse"])

  def test_hidden_layers(self):
    params = golden_params("deep.", ("layer_1", "layer_out"))
    system = build("ar_net", order=P, depth=2, hidden=5)
    history = golden_rows()[0]["history"][:6]
    found = system.sample({"params": params}, {"history": history}, None)
    np.testing.assert_allclose(
      found[:, 0], golden()[1]["deep_out"], rtol=1e-4, atol=1e-6
    )

  def test_least_squares(self):
    arrays = golden()[1]
    train, _ = golden_rows()
    whole = np.concatenate([train["history"], train["series"]], 1)
    own = errors.LeastSquares(whole, P, 1)
    np.testing.assert_allclose(
      own.weights[:, 0], arrays["ols_weights"], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(own.bias[0], arrays["ols_bias"], rtol=1e-3)

  def test_stpe(self):
    np.testing.assert_allclose(
      golden()[1]["stpe"][1:], [errors.stpe([0, 0], [0.2, 0.3]), 0]
    )
    w = [0.2, 0.3, -0.5]
    self.assertEqual(errors.stpe(w, w), 0)
    self.assertAlmostEqual(errors.stpe([0, 0, 0], w), 100, places=4)
    other = [0.1, 0.3, 0.2, 0.7]
    self.assertEqual(errors.stpe(w, other), errors.stpe(other, w))


def process(count, order, lags=(1, 3, 10), seed=0):
  """(data set, its training windows, least squares of it)."""
  data = _process(count, order, lags, seed)
  rows = series.rows(data.train)
  whole = np.concatenate([rows["history"], rows["series"]], 1)
  return data, rows, errors.LeastSquares(whole, order, 1)


@functools.cache
def _process(count, order, lags, seed):
  return processes.ar_process(lags=lags, count=count, history=order, seed=seed)


def fitted(rows, *, epochs, rate, order, **model):
  system = build("ar_net", order=order, **model)
  tx = series.adam(rate, series.updates(rows, 128, epochs))
  variables = series.fit(system, tx, rows, size=128, epochs=epochs, seed=0)
  return system, variables


class FitTest(absltest.TestCase):
  def test_without_penalty_it_is_least_squares(self):
    data, rows, base = process(1000, 20)
    true = data.train[0]["coefficients"]
    system, variables = fitted(rows, epochs=200, rate=5e-3, order=20)
    own = system.coefficients(variables)
    self.assertLess(np.abs(own - base.coefficients).max(), 0.01)
    gap = errors.stpe(own, true) - errors.stpe(base.coefficients, true)
    self.assertLess(abs(gap), 1.0)

  def test_few_lags_are_found_in_few_data(self):
    data, rows, base = process(1000, 20)
    true = data.train[0]["coefficients"]
    model = dict(density=3 / 20, factor=0.1, c1=2.0, c2=2.0)
    system, variables = fitted(rows, epochs=300, rate=5e-3, order=20, **model)
    own = errors.stpe(system.coefficients(variables), true)
    self.assertLess(own, 10)
    self.assertGreater(errors.stpe(base.coefficients, true), 15)

  def test_few_lags_are_found_among_a_hundred(self):
    data, rows, base = process(10_000, 100)
    true = data.train[0]["coefficients"]
    model = dict(density=0.03, factor=0.03, c1=2.0, c2=2.0)
    system, variables = fitted(rows, epochs=40, rate=5e-3, order=100, **model)
    own = np.asarray(system.coefficients(variables))
    self.assertLess(errors.stpe(own, true), 6)
    self.assertGreater(errors.stpe(base.coefficients, true), 20)
    self.assertLessEqual((np.abs(own) > 0.01).sum(), 6)
    test = series.rows(data.test)
    whole = np.concatenate([test["history"], test["series"]], 1)
    mse = lambda x: np.square(x - test["series"]).mean()
    self.assertLess(
      mse(system.predict(variables, test)), mse(base.one_step(whole, 1))
    )

  def test_work_of_an_update_is_linear_in_the_order(self):
    """Least squares by normal equations is quadratic; time is measured by
    experiments/ar_net.py."""

    def work(order):
      system = build("ar_net", order=order)
      rows = jnp.zeros((64, order + 1, 1))
      batch = {"history": rows[:, 1:], "series": rows[:, :1]}
      variables = jax.eval_shape(system.init, jax.random.key(0), batch)
      mean = lambda v, b: system.loss(v, b, None, train=True).value.mean()
      net = jax.jit(jax.grad(mean)).lower(variables, batch).compile()
      normal = jax.jit(lambda x: x.T @ x).lower(rows[:, 1:, 0]).compile()
      return [x.cost_analysis()["flops"] for x in (net, normal)]

    few, many = np.log(work(400)), np.log(work(1600))
    own, other = (many - few) / np.log(4)
    self.assertLess(own, 1.2)
    self.assertGreater(other, 1.6)


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
    values = golden()[1]["series"][:, None]
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
