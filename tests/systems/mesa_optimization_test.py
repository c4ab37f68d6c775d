"""The layer of mesa-optimization against the code released, against one step of
gradient descent, and against its closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from ar_jax import optim
from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from ar_jax.data.series import processes
from ar_jax.systems import mesa_optimization as mesa
from configs import mesa_optimization as configs
from experiments.shared import series
from tests import golden_weights

LAWS = ("gauss", "sparse", "full")


@functools.cache
def golden():
  return golden_weights.load("mesa_lsa")


def pairs(x):
  """c[..., d] -> f32[..., 2 d]: what the data hold."""
  both = np.stack([x.real, x.imag], -1)
  return both.reshape(*x.shape[:-1], -1).astype(np.float32)


def cut(values, history=2):
  return {"history": values[:, :history], "series": values[:, history:]}


def golden_batch(law):
  description, arrays = golden()
  times = np.arange(description["config"]["T"])[None, :, None]
  angle = arrays[f"{law}_theta"][:, None]
  return cut(pairs(arrays[f"{law}_x1"][:, None] * np.exp(1j * angle * times)))


def complexes(pair):
  return np.asarray(pair[..., 0]) + 1j * np.asarray(pair[..., 1])


def predicted(system, variables, batch):
  """c64[B, d, T - 2], as the golden file has it."""
  found = np.asarray(system.predict(variables, batch))
  found = complexes(found.reshape(*found.shape[:2], -1, 2))
  return found.transpose(0, 2, 1)


class GoldenTest(parameterized.TestCase):
  @parameterized.parameters(*LAWS)
  def test_descent_of_the_release(self, law):
    description, arrays = golden()
    c = description["config"]
    batch = golden_batch(law)
    system = build("mesa_optimization", dim=c["dim"], length=6, a=0.5, b=1.5)
    variables = system.init(jax.random.key(0), batch)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5)
    close(predicted(system, variables, batch)[:4], arrays[f"{law}_pred"])
    mean = lambda v: system.loss(v, batch, None, train=True).value.mean()
    slope = jax.jit(jax.value_and_grad(mean))
    losses = []
    for step in range(c["steps"] + 1):
      value, down = slope(variables)
      losses.append(value)
      if not step:
        # Of real pairs it is what descent subtracts: the conjugate rule.
        close(complexes(down["params"]["kq"]), arrays[f"{law}_grad_WKQ"])
        close(complexes(down["params"]["pv"]), arrays[f"{law}_grad_WPV"])
      if step < c["steps"]:
        move = lambda w, g: w - c["lr"][law] * g
        variables = jax.tree.map(move, variables, down)
    close(losses, arrays[f"{law}_losses"])
    kq, pv = system.matrices(variables)
    close(kq, arrays[f"{law}_WKQ"])
    close(pv, arrays[f"{law}_WPV"])

  def test_any_matrices(self):
    d = golden()[0]["config"]["dim"]
    matrix = lambda name, shape: np.stack(
      [
        0.3 * golden_weights.tensor(f"{name}.{part}", shape)
        for part in ("real", "imag")
      ],
      -1,
    )
    params = {
      "kq": matrix("WKQ", (2 * d, 2 * d)),
      "pv": matrix("WPV", (d, 2 * d)),
    }
    system = build("mesa_optimization", dim=d, length=6)
    found = predicted(system, {"params": params}, golden_batch("gauss"))
    np.testing.assert_allclose(
      found[:4], golden()[1]["general_pred"], rtol=1e-4, atol=1e-4
    )


def sequences(law, count=300, times=30, dim=5, seed=1, test=False):
  """A batch of sequences of the process."""
  data = processes.unitary_process(
    dim=dim, law=law, count=count, tests=count, seed=seed, history=2,
    length=times - 2,
  )  # fmt: skip
  return series.rows(data.test if test else data.train)


def many(count, times, dim=5):
  """f32[count, times, 2 dim] from normal numbers, at once."""
  rng = np.random.default_rng(0)
  angle = rng.uniform(0, 2 * np.pi, (count, 1, dim))
  turn = np.exp(1j * angle * np.arange(times)[None, :, None])
  return cut(pairs(rng.standard_normal((count, 1, dim)) * turn))


def vectors(batch):
  whole = np.concatenate([batch["history"], batch["series"]], 1)
  return complexes(whole.reshape(*whole.shape[:2], -1, 2))


def least(batch):
  """(arg min of the loss over c, the least loss, that of c = 0) of a batch."""
  x = vectors(batch).astype(np.complex64)
  p = np.asarray(mesa.descend(x, 1.0))[:, 1:-1].astype(np.complex128)
  y = x[:, 2:]
  c = np.vdot(p, y).real / np.vdot(p, p).real
  loss = lambda c: np.square(np.abs(c * p - y)).sum() / (2 * len(x))
  return c, loss(c), loss(0)


@functools.cache
def trained(law, start, rate, steps):
  """(system, variables before and after, training batch)."""
  batch = sequences(law)
  a, b = start
  system = build("mesa_optimization", dim=5, length=28, a=a, b=b)
  before = system.init(jax.random.key(0), batch)
  variables = series.fit(
    system, _descent(rate), batch, size=300, epochs=steps, seed=0
  )
  return system, before, variables, batch


_descent = functools.cache(optax.sgd)


def loss_of(system, variables, batch):
  loss = system.loss(variables, batch, None, train=False)
  return float(loss.value.mean()), float(loss.metrics["zero"].mean())


class OracleTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    # So small that roll-outs do not grow.
    batch = sequences("gauss", count=4, times=12)
    self.batch = {k: v / 2 for k, v in batch.items()}
    self.system = build("mesa_optimization", dim=5, length=10, a=0.7, b=0.6)
    self.variables = self.system.init(jax.random.key(0), self.batch)

  def random(self):
    rng = np.random.default_rng(0)
    noise = lambda x: x + 0.05 * rng.normal(size=x.shape).astype(np.float32)
    return jax.tree.map(noise, self.variables)

  def test_it_is_one_step_of_descent(self):
    x = vectors(self.batch).astype(np.complex64)
    found = mesa.attend(mesa.tokens(x), *self.system.matrices(self.variables))
    np.testing.assert_allclose(found, mesa.descend(x, 0.42), atol=1e-5)
    # By the definition, for one of them.
    t = 6
    g = sum(np.outer(x[0, i + 1], x[0, i].conj()) for i in range(t))
    np.testing.assert_allclose(
      found[0, t], 0.42 / t * g @ x[0, t], rtol=1e-4, atol=1e-5
    )

  def test_nothing_leaks(self):
    variables = self.random()
    found = self.system.predict(variables, self.batch)
    other = dict(self.batch, series=self.batch["series"].copy())
    other["series"][:, 4:] += 1
    after = self.system.predict(variables, other)
    np.testing.assert_array_equal(found[:, :5], after[:, :5])
    self.assertTrue((found[:, 5:] != after[:, 5:]).any())

  def test_roll_out_of_one_matrix_is_that_of_all_that_was_seen(self):
    for variables in (self.variables, self.random()):
      cond = {"history": self.batch["history"]}
      drawn = self.system.sample(variables, cond, None)
      known = cond["history"]
      for _ in range(10):  # the quadratic form, over all again and again
        one = {"history": known, "series": known[:, :1]}
        new = self.system.predict(variables, one)
        known = np.concatenate([known, new], 1)
      np.testing.assert_allclose(drawn, known[:, 2:], atol=1e-5)

  def test_roll_out_of_descent(self):
    cond = {"history": self.batch["history"]}
    one = self.system.sample(self.variables, cond, None)
    other = self.system.sample(self.variables, cond, None, form="descent")
    np.testing.assert_allclose(one, other, atol=1e-5)
    random = self.random()
    one = self.system.sample(random, cond, None)
    other = self.system.sample(random, cond, None, form="descent")
    self.assertGreater(np.abs(one - other).max(), 1e-3)


class ClosedFormTest(parameterized.TestCase):
  def test_exact_values(self):
    self.assertAlmostEqual(mesa.mean_inverse(100), 0.052727, places=6)
    for times, value in ((100, 0.191905), (20, 0.173109)):
      self.assertAlmostEqual(mesa.c_star(times, "gauss", 5), value, places=6)
    self.assertAlmostEqual(
      mesa.c_star(100, "gauss", 5, 2.0), 0.191905 / 4, places=6
    )
    self.assertAlmostEqual(mesa.c_star(10**6, "gauss", 5), 0.2, places=4)
    self.assertAlmostEqual(mesa.c_star(100, "sparse", 5, 0.5), 4.0)
    self.assertAlmostEqual(mesa.c_star(100, "full", 5), 0.826, places=3)
    for times, law, share in (
      (100, "gauss", 0.424),
      (30, "gauss", 0.4605),
      (100, "sparse", 0.0),
      (100, "full", 0.174),
    ):
      best = mesa.population_loss(mesa.c_star(times, law, 5), times, law, 5)
      zero = mesa.population_loss(0, times, law, 5)
      self.assertAlmostEqual(best / zero, share, delta=5e-4)

  def test_monte_carlo(self):
    c, best, zero = least(many(20_000, 20))
    wanted = mesa.c_star(20, "gauss", 5)
    self.assertAlmostEqual(c / wanted, 1, delta=0.05)
    population = mesa.population_loss(wanted, 20, "gauss", 5)
    self.assertAlmostEqual(population, 21.63, delta=0.005)
    self.assertAlmostEqual(best / population, 1, delta=0.03)
    self.assertAlmostEqual(zero / 45.0, 1, delta=0.03)

  @parameterized.parameters(0.5, 1.0)
  def test_one_number_is_recovered_exactly(self, scale):
    batch = sequences("sparse", count=200, times=20)
    batch = {k: v * scale for k, v in batch.items()}
    c, best, zero = least(batch)
    wanted = mesa.c_star(20, "sparse", 5, scale)
    self.assertAlmostEqual(c / wanted, 1, delta=1e-6)
    self.assertLess(best, 1e-6)
    population = mesa.population_loss(0, 20, "sparse", 5, scale)
    self.assertAlmostEqual(zero / population, 1, delta=1e-6)

  def test_ratio_of_forecast_to_truth_after_a_long_context(self):
    """Normal numbers are not recovered: the ratio is c* sigma^2 in the mean."""
    x = vectors(many(500, 200)).astype(np.complex64)
    c = mesa.c_star(200, "gauss", 5)
    ratio = np.asarray(mesa.descend(x, c))[:, 150:-1] / x[:, 151:]
    self.assertAlmostEqual(ratio.real.mean(), 0.2, delta=0.02)


class TrainingTest(parameterized.TestCase):
  @parameterized.parameters(((0.1, 0.1),), ((0.5, 1.5),))
  def test_one_number(self, start):
    system, before, variables, batch = trained("sparse", start, 3e-3, 300)
    own, zero = loss_of(system, variables, batch)
    self.assertAlmostEqual(zero, 14.0, delta=1e-3)
    self.assertLess(own, 0.02)
    blocks = system.blocks(variables)
    self.assertAlmostEqual(blocks["ab"], 0.995, delta=0.01)
    self.assertLessEqual(blocks["off"], 0.02)
    self.assertLessEqual(blocks["inactive"], 0.02)

  def test_normal_numbers(self):
    system, _, variables, batch = trained("gauss", (0.1, 0.1), 3e-4, 200)
    own, zero = loss_of(system, variables, batch)
    self.assertAlmostEqual(own / zero, 0.40, delta=0.03)
    c = least(batch)[0]
    self.assertAlmostEqual(system.blocks(variables)["ab"] / c, 1, delta=0.15)
    fresh = sequences("gauss", test=True)
    own, zero = loss_of(system, variables, fresh)
    self.assertBetween(own / zero, 0.44, 0.54)

  def test_what_is_conserved(self):
    system, before, variables, _ = trained("sparse", (0.5, 1.5), 3e-3, 300)
    difference = lambda v: (lambda x: x["a"] ** 2 - x["b"] ** 2)(
      system.blocks(v)
    )
    self.assertAlmostEqual(difference(before), -2.0, places=5)
    self.assertAlmostEqual(difference(variables) / -2.0, 1, delta=0.02)

  def test_without_the_condition_it_is_no_descent(self):
    system, _, variables, batch = trained("full", (0.1, 0.1), 3e-3, 300)
    blocks = system.blocks(variables)
    self.assertGreater(blocks["off"], 0.03)
    slice_c, slice_loss, _ = least(batch)
    self.assertAlmostEqual(slice_c, 0.65, delta=0.03)
    self.assertGreater(blocks["ab"], slice_c + 0.03)
    self.assertLess(loss_of(system, variables, batch)[0], slice_loss)

  def test_diagonal_blocks_stay_diagonal(self):
    batch = sequences("full", count=20)
    system = build("mesa_optimization", dim=5, length=28, diagonal=True)
    variables = series.fit(
      system, _descent(3e-3), batch, size=20, epochs=20, seed=0
    )
    self.assertEqual(system.blocks(variables)["off"], 0)
    self.assertGreater(system.blocks(variables)["a"], 0.1)


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
