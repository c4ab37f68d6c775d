"""The evaluator of forecasts on systems whose answers are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data, evals
from ar_jax.core.errors import UserError
from ar_jax.data import Dataset
from ar_jax.data.series import processes
from ar_jax.evals.series import errors
from ar_jax.families.series.system import Forecaster


@dataclasses.dataclass(frozen=True)
class Weights(Forecaster):
  """A process with its true weights."""

  length: int
  weights: tuple[float, ...]

  def init(self, key, batch):
    return {"params": {}}

  def loss(self, variables, batch, key, *, train):
    raise NotImplementedError

  def coefficients(self, variables):
    return jnp.array(self.weights)

  def _next(self, known):
    return known[:, -len(self.weights) :][:, ::-1, 0] @ jnp.array(self.weights)

  def predict(self, variables, batch):
    whole = jnp.concatenate([batch["history"], batch["series"]], 1)
    first = batch["history"].shape[1]
    own = [self._next(whole[:, : first + i]) for i in range(self.length)]
    return jnp.stack(own, 1)[..., None]

  def sample(self, variables, cond, keys, *, shift=0.0):
    known = cond["history"]
    for _ in range(self.length):
      known = jnp.concatenate([known, self._next(known)[:, None, None]], 1)
    return known[:, -self.length :] + shift


WEIGHTS = (0.2, 0.3, -0.5)


def run(system, found, **options):
  evaluator = evals.build("series", found, **options)
  return evaluator(
    system, {}, data.epoch(found.test, batch=100), jax.random.key(0)
  )


class SeriesTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.data = processes.ar_process(
      weights=WEIGHTS, count=4000, history=12, length=4, test=0.25
    )

  def test_the_true_weights(self):
    found = run(Weights(4, WEIGHTS), self.data, order=3)
    one = found["one_step"]
    self.assertAlmostEqual(one["mse"], 1.0, delta=0.1)
    self.assertAlmostEqual(one["least_squares"], one["mse"], delta=0.03)
    self.assertGreater(one["persistence"], 1.5 * one["mse"])
    self.assertGreater(found["forecast_mse"], one["mse"])
    self.assertAlmostEqual(
      found["forecast_mse_least_squares"], found["forecast_mse"], delta=0.05
    )
    self.assertLess(found["forecast_mse"], found["forecast_mse_zero"])
    self.assertAlmostEqual(found["stpe"], 0, delta=1e-4)
    self.assertBetween(found["stpe_least_squares"], 0.1, 10)
    self.assertAlmostEqual(
      (one["first_half"] + one["second_half"]) / 2, one["mse"], places=5
    )
    protocol = found["protocol"]
    # 1000 values after the split, of which four each; none counts twice.
    self.assertEqual((protocol["windows"], protocol["history"]), (250, 12))
    self.assertIn("AR(3)", protocol["least_squares"])
    # A forecast varies less than what it forecasts.
    self.assertBetween(found["variance_ratio"][0], 0.05, 0.9)

  def test_by_hand(self):
    """Persistence and correlation, one window."""
    row = {
      "history": np.array([[0.0], [1.0], [3.0]], np.float32),
      "series": np.array([[2.0], [5.0]], np.float32),
    }
    rows = [row, {**row, "series": row["series"] + 1}]
    found = run(Weights(2, (1.0,)), Dataset("two", rows, rows), order=1)
    # 3 against 2, 5 and against 3, 6.
    self.assertAlmostEqual(
      found["forecast_mse_persistence"], (1 + 4 + 0 + 9) / 4
    )
    self.assertAlmostEqual(
      found["forecast_mse"], found["forecast_mse_persistence"]
    )
    self.assertAlmostEqual(found["forecast_mse_zero"], (4 + 25 + 9 + 36) / 4)
    before, now = [3, 2, 3, 3], [2, 5, 3, 6]
    self.assertAlmostEqual(
      found["lag_correlation"]["1"][1][0], np.corrcoef(before, now)[0, 1]
    )
    self.assertNotIn("stpe", found)

  def test_options_of_sampling(self):
    plain = run(Weights(4, WEIGHTS), self.data)
    moved = run(Weights(4, WEIGHTS), self.data, options={"shift": 10.0})
    self.assertAlmostEqual(
      moved["forecast_mse"] - plain["forecast_mse"], 100, delta=3
    )
    self.assertEqual(moved["one_step"], plain["one_step"])
    self.assertEqual(moved["protocol"]["sampling"], {"shift": 10.0})

  def test_least_squares_of_several_values(self):
    rng = np.random.default_rng(0)
    turn = np.array([[0.5, 0.4], [-0.4, 0.5]])
    x = [rng.normal(size=(300, 2))]
    for _ in range(7):
      x.append(x[-1] @ turn + 1)
    windows = np.stack(x, 1)
    own = errors.LeastSquares(windows, 1, 3)
    np.testing.assert_allclose(own.weights, turn, atol=1e-8)
    np.testing.assert_allclose(own.bias, 1, atol=1e-8)
    self.assertIsNone(own.coefficients)
    np.testing.assert_allclose(
      own.roll_out(windows[:, :5], 3), windows[:, 5:], atol=1e-8
    )
    np.testing.assert_allclose(
      own.one_step(windows, 3), windows[:, 5:], atol=1e-8
    )

  def test_what_cannot_be(self):
    with self.assertRaisesRegex(UserError, "order=13.*history of 12"):
      evals.build("series", self.data, order=13)
    with self.assertRaisesRegex(UserError, "lags=.*history, 12"):
      evals.build("series", self.data, lags=(1, 13))
    bare = Dataset("bare", [{"series": np.zeros((3, 1))}], [])
    with self.assertRaisesRegex(UserError, "'bare' have no 'history'"):
      evals.build("series", bare)


if __name__ == "__main__":
  absltest.main()
