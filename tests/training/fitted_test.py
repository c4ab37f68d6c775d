"""What a run fits to its data before the first update."""

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax import checkpoint, train
from ar_jax.core.system import UserError, fits
from tests import toy
from tests.toy_runs import ToyTest, config


@dataclasses.dataclass(frozen=True)
class Fitting(toy.Toy):
  """Its kernel begins with numbers of the seed, and it knows the mean pixel."""

  shape: tuple[int, ...] = ()
  calls = []

  def init(self, key, batch):
    return {**super().init(key, batch), "mean": {"pixel": jnp.zeros(())}}

  def fitted(self, variables, source, seed):
    self.calls.append(seed)
    pixels = [source[i]["image"] for i in range(len(source))]
    mean = np.full(self.shape, np.mean(pixels), np.float64)
    params = dict(variables["params"])
    kernel = params["fc1"]["kernel"]
    drawn = np.random.default_rng(seed).normal(size=kernel.shape)
    params["fc1"] = {**params["fc1"], "kernel": drawn.astype(kernel.dtype)}
    frozen = {"scale": np.float32(3)}
    return {"params": params, "frozen": frozen, "mean": {"pixel": mean}}


class FittedTest(ToyTest):
  def run_it(self, workdir=None, weights=None, shape=(), seed=0, **changes):
    Fitting.calls.clear()
    c = config(**changes)
    c.seed = seed
    c.weights.update(weights or {})
    make = lambda noise=0.0: Fitting(noise, shape)
    with mock.patch.object(toy, "build", make):
      train.run(c, workdir or self.workdir)
    return checkpoint.load(workdir or self.workdir)[0]

  def test_only_what_has_something_to_fit(self):
    self.assertTrue(fits(Fitting()))
    self.assertFalse(fits(toy.Toy()))

  def test_a_run_of_no_steps_leaves_what_was_fitted(self):
    variables = self.run_it(steps=0, ema=0.5)
    self.assertEqual(Fitting.calls, [0])
    kernel = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    # The average of the params begins as they do.
    np.testing.assert_array_equal(variables["params"]["fc1"]["kernel"], kernel)
    self.assertGreater(variables["mean"]["pixel"], 100)
    self.assertEqual(variables["mean"]["pixel"].dtype, np.float32)
    self.assertEqual(variables["frozen"]["scale"], 3)

  def test_once_in_a_run(self):
    self.run_it(steps=10)
    self.assertLen(Fitting.calls, 1)
    self.run_it(steps=20)
    self.assertEmpty(Fitting.calls)

  def test_a_run_that_is_killed_before_it_saves_fits_again(self):
    with mock.patch.object(train, "_source", side_effect=KeyboardInterrupt):
      with self.assertRaises(KeyboardInterrupt):
        self.run_it(steps=0)
    again = self.run_it(steps=0)
    self.assertLen(Fitting.calls, 1)
    other = self.run_it(self.workdir.with_name("other"), steps=0)
    jax.tree.map(np.testing.assert_array_equal, again, other)

  def test_what_was_given_stays(self):
    first = self.run_it(steps=0, seed=5)
    second = self.run_it(
      self.workdir.with_name("second"), {"params": str(self.workdir)}, steps=0
    )
    jax.tree.map(
      np.testing.assert_array_equal, first["params"], second["params"]
    )
    self.assertGreater(second["mean"]["pixel"], 100)

  def test_of_another_form(self):
    with self.assertRaisesRegex(
      UserError, "fitted to something else: mean/pixel"
    ):
      self.run_it(shape=(2,))

  def test_data_without_classes(self):
    system = toy.Toy()
    nothing = mock.Mock(num_classes=0)
    nothing.name = "text"
    train._check_labels(system, nothing)
    with mock.patch.object(toy.Toy, "classes", 3):
      train._check_labels(system, nothing)
      nothing.num_classes = 4
      with self.assertRaisesRegex(UserError, "text has 4 classes.*has 3"):
        train._check_labels(system, nothing)


if __name__ == "__main__":
  absltest.main()
