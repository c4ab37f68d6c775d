"""The command line, and one clear line for each bad input."""

import os
import pathlib
import random
import subprocess
import sys
import tempfile

import jax
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import checkpoint, main
from ar_jax.core.system import UserError
from configs import multiscale_vq, var

ROOT = pathlib.Path(__file__).parents[1]


def smoke(preset="smoke", **changes):
  config = var.get_config(preset)
  config.update_from_flattened_dict(changes)
  return config


def run_command(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "ar_jax.main", *arguments],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )


class BadInputTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.workdir = pathlib.Path(folder.name) / "run"

  def assert_refused(self, message, config, mode="train", workdir=None):
    with self.assertRaisesRegex(UserError, message) as caught:
      main.run(config, workdir or self.workdir, mode)
    self.assertNotIn("\n", str(caught.exception))

  @parameterized.named_parameters(
    ("data", {"data.name": "digitz"}, "digitz.*did you mean digits"),
    ("size", {"data.size": 12}, "12x12.*takes 8x8"),
    ("batch", {"batch": 0}, "batch=0"),
    ("schedule", {"optim.schedule": "cosin"}, "cosin.*choose one of"),
    ("mesh", {"mesh.data": 3}, "mesh=.*does not divide"),
    ("augment", {"augment": ("flop",)}, "flop.*flip"),
    ("system", {"system": "vra"}, "ar_jax/systems/vra.py"),
    ("heads", {"model.heads": 5}, "width=32.*heads=5"),
    ("weights", {"weights.tokenizer": "/no/run"}, "/no/run.*no checkpoints"),
  )
  def test_train(self, changes, message):
    config = smoke()
    with config.unlocked():
      config.update_from_flattened_dict(changes)
      for key, value in changes.items():
        if key.startswith("weights."):
          config.weights[key.split(".")[1]] = value
    self.assert_refused(message, config)

  def test_folder_of_images_that_is_not_there(self):
    config = smoke()
    with config.unlocked():
      config.data = dict(name="folder", size=8, channels=1, path="/no/such")
    self.assert_refused("/no/such", config)

  def test_misspelt_model_key(self):
    config = smoke()
    with config.unlocked():
      config.model.depht = 3
    self.assert_refused("depht", config)

  def test_folder_that_cannot_be_written(self):
    self.workdir.parent.joinpath("file").touch()
    below = self.workdir.parent / "file" / "run"
    self.assert_refused("cannot be written", smoke(), workdir=below)

  def test_no_checkpoint_to_sample_from(self):
    self.assert_refused("no checkpoints there", smoke(), "sample")

  def test_more_classes_in_the_data_than_in_the_model(self):
    self.assert_refused("num_classes", smoke(**{"model.num_classes": 2}))

  def test_label_out_of_range(self):
    main.run(smoke(), self.workdir)
    config = smoke(**{"sample.labels": (7,)})
    self.assert_refused("labels=.*classes 0 to 2", config, "sample")

  def test_checkpoint_of_another_model(self):
    main.run(smoke(), self.workdir)
    deeper = smoke(**{"model.depth": 3})
    self.assert_refused("holds a run with model", deeper)
    other = multiscale_vq.get_config("smoke")
    self.assert_refused("holds a run with system", other)
    self.assert_refused("holds a var", other, "sample")

  def test_weights_of_another_shape(self):
    tokenizer = multiscale_vq.get_config("smoke")
    main.run(tokenizer, self.workdir)
    config = smoke("smoke_real", **{"model.tokenizer.vocab": 32})
    with config.unlocked():
      config.weights.tokenizer = str(self.workdir)
    other = self.workdir.parent / "other"
    self.assert_refused("weights.tokenizer.*another", config, workdir=other)

  def test_weights_are_taken(self):
    main.run(multiscale_vq.get_config("smoke"), self.workdir)
    config = smoke("smoke_real")
    with config.unlocked():
      config.weights.tokenizer = str(self.workdir)
    other = self.workdir.parent / "other"
    main.run(config, other)
    given = checkpoint.load(self.workdir)[0]["params"]["tokenizer"]
    taken = checkpoint.load(other)[0]["tokenizer"]
    np.testing.assert_array_equal(
      given["quantizer"]["codebook"], taken["quantizer"]["codebook"]
    )


class SecondRunTest(absltest.TestCase):
  def compiled(self, config, workdir):
    """Programs that a run in a new process would compile, not load."""
    missed = []
    listen = lambda event, **_: missed.append(event)
    jax.clear_caches()
    jax.monitoring.register_event_listener(listen)
    try:
      main.run(config, workdir)
    finally:
      jax.monitoring.unregister_event_listener(listen)
    return missed.count("/jax/compilation_cache/cache_misses")

  def test_compiles_nothing(self):
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    self.addCleanup(
      jax.config.update, "jax_persistent_cache_min_compile_time_secs", least
    )
    with tempfile.TemporaryDirectory() as folder:
      self.compiled(smoke(), pathlib.Path(folder) / "first")
      again = self.compiled(smoke(), pathlib.Path(folder) / "second")
      # A rate that no run before this one has put into the cache.
      changed = smoke(**{"optim.lr": random.uniform(0.01, 0.02)})
      other = self.compiled(changed, pathlib.Path(folder) / "other")
    self.assertEqual(again, 0)
    self.assertGreater(other, 0)


class CommandTest(absltest.TestCase):
  def test_misspelt_config_key(self):
    ran = run_command("--config=configs/var.py:smoke", "--config.train.stepz=3")
    self.assertEqual(ran.returncode, 1)
    self.assertIn("did you mean --config.train.steps", ran.stderr)
    self.assertNotIn("Traceback", ran.stderr)

  def test_one_line_and_exit_code(self):
    with tempfile.TemporaryDirectory() as folder:
      ran = run_command(
        "--config=configs/var.py:smoke",
        f"--workdir={folder}",
        "--config.data.name=digitz",
      )
    self.assertEqual(ran.returncode, 1)
    self.assertRegex(ran.stderr.splitlines()[-1], "^ar_jax: data.name")
    self.assertNotIn("Traceback", ran.stderr)

  def test_no_such_config(self):
    ran = run_command("--config=configs/nothing.py")
    self.assertEqual(ran.returncode, 1)
    self.assertRegex(ran.stderr, "configs/nothing.py: no such file")

  def test_unknown_preset(self):
    ran = run_command("--config=configs/var.py:smok")
    self.assertNotEqual(ran.returncode, 0)
    self.assertIn("no such preset", ran.stderr)
    self.assertNotIn("Traceback", ran.stderr)


if __name__ == "__main__":
  absltest.main()
