"""`ar_jax.load`: three lines to images, with nothing but the workdir."""

import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest

import ar_jax
from ar_jax import checkpoint, data, main, run_files
from ar_jax.command import cli
from ar_jax.convert import multiscale_vq as convert_tokenizer
from ar_jax.convert import var as convert_var
from ar_jax.core.errors import UserError
from configs import common
from tests import commands, golden_weights, toy

SCALES = (1, 2, 3, 4)


def official(name):
  return golden_weights.weights(golden_weights.load(name)[0])


def converted(workdir):
  """A workdir as `python -m ar_jax.convert` leaves it, of a tiny VAR."""
  codes, state = official("var_tokenizer"), official("var_transformer")
  config = convert_var.config(state, SCALES)
  tokenizer = convert_tokenizer.config(codes)["model"] | {"scales": SCALES}
  config["model"]["tokenizer"] |= tokenizer
  variables = {
    "params": convert_var.to_ours(state, SCALES),
    "tokenizer": convert_tokenizer.to_ours(codes),
  }
  checkpoint.export(workdir, variables, config)


class ConvertedTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    cls.workdir = cls.folder / "var_tiny"
    converted(cls.workdir)
    none = mock.patch.object(data, "load", side_effect=AssertionError("data"))
    cls.enterClassContext(none)

  def test_three_lines(self):
    model = ar_jax.load(self.workdir)
    images = model.sample(labels=[2, 8], guidance=2.5, seed=0)
    self.assertEqual(images.shape, (2, 64, 64, 3))
    self.assertEqual(images.dtype, np.uint8)
    self.assertGreater(images.std(), 0)
    self.assertLen(model.class_names, 10)
    self.assertIn("var of", repr(model))
    self.assertEqual(model.config.model.depth, 2)
    # Image i is a function of the seed, i and its class alone.
    labels = np.array([2, 8])
    again = model.sample(labels, guidance=2.5, seed=0)
    np.testing.assert_array_equal(images, again)

    units = model.encode(images)
    self.assertEqual(units.shape, (2, 30))
    rebuilt = model.decode(units)
    self.assertEqual(rebuilt.shape, images.shape)
    loss = model.loss({"image": images, "label": np.array([2, 8])})
    self.assertEqual(loss.nll.shape, (2, 30))
    self.assertEqual(set(model.variables), {"params", "tokenizer"})

  def test_wrong_use(self):
    model = ar_jax.load(self.workdir)
    for message, wrong in (
      ("classes 0 to 9", lambda: model.sample(labels=[10])),
      ("1.5 is no class", lambda: model.sample(labels=[1.5])),
      ("'cat' is no class", lambda: model.sample(labels="cat")),
      ("did you mean top_k", lambda: model.sample(topk=3)),
      ("count=0", lambda: model.sample(count=0)),
      ("no run there", lambda: ar_jax.load(self.folder / "nowhere")),
      ("no step 3", lambda: ar_jax.load(self.workdir, which=3)),
    ):
      with self.assertRaisesRegex(UserError, message):
        wrong()

  def test_without_its_tokenizer(self):
    workdir = self.folder / "alone"
    state = official("var_transformer")
    params = {"params": convert_var.to_ours(state, SCALES)}
    checkpoint.export(workdir, params, convert_var.config(state, SCALES))
    with self.assertRaisesRegex(UserError, "no tokenizer; convert it again"):
      ar_jax.load(workdir)

  def test_command_line_without_data(self):
    """`--config` names ImageNet, which is not here, and is not asked for."""
    config = common.base("var")
    stored = checkpoint.read_meta(self.workdir)["config"]["model"]
    with config.unlocked():
      config.model = run_files.restored(stored)
    config.data.update(name="imagenet2012", size=64, channels=3)
    config.sample.update(count=2, batch=2, labels=(2, 8))
    made = main.run(config, self.workdir, "sample")
    self.assertEqual(made["count"], 2)
    with np.load(self.workdir / "samples.npz") as found:
      np.testing.assert_array_equal(sorted(found["label"]), [2, 8])

  def test_command_line_with_the_workdir_alone(self):
    """The config is that of the run; it has no data."""
    at = f"--workdir={self.workdir}"
    code, lines = commands.call(at, "--mode=eval")
    self.assertEqual(code, 1)
    self.assertRegex(lines[-1], "knows no data set; name a --config")
    cli.parse(["ar_jax", at, "--mode=sample", "--config.sample.count=2"])
    config, _, _ = cli.config()
    self.assertEqual(config.sample.count, 2)
    self.assertEqual(config.model.tokenizer.scales, SCALES)


class TrainedTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    named = {"ar_jax.systems.toy": toy}
    cls.enterClassContext(mock.patch.dict(sys.modules, named))
    cls.workdir = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    config = toy.get_config()
    config.train.update(steps=2, eval_every=0)
    cls.stages = common.stages(
      one=config, samples=common.stage("one", "sample")
    )
    main.run(cls.stages, cls.workdir)

  def test_the_last_stage_is_loaded_and_draws_what_sample_draws(self):
    with mock.patch.object(data, "load", side_effect=AssertionError("data")):
      model = ar_jax.load(self.workdir)
      self.assertEqual(model.workdir, self.workdir / "one")
      self.assertEqual(model.step, 2)
      self.assertEqual(model.class_names, ("class 0", "class 1", "class 2"))
      images = model.sample(count=64)
      named = model.sample(labels=["class 1", "class 0"], seed=4)
    with np.load(self.workdir / "samples.npz") as found:
      np.testing.assert_array_equal(images, found["arr_0"])
    self.assertLen(named, 2)

  def test_examples_and_pictures(self):
    model = ar_jax.load(self.workdir)
    tests = model.examples(3)
    self.assertEqual(tests["image"].shape, (3, 4, 4, 1))
    self.assertLen(tests["label"], 3)
    images = model.sample(tests["label"])
    self.assertEqual(model.counts, {})
    # Pairs of what was given and what was made, two in a row, 16 times as
    # large, with a thin line around each.
    picture = model.show(images, {"image": tests["image"]}, columns=4)
    self.assertEqual(picture.size, (16 * (4 * 5 + 1), 16 * (2 * 5 + 1)))
    alone = model.show({"image": images}, columns=3, scale=1)
    self.assertEqual(alone.size, (3 * 5 + 1, 5 + 1))
    for message, wrong in (
      ("hue: no form is known", lambda: model.show({"hue": images})),
      ("no law of discrete units", lambda: model.around("gsd")),
      ("cannot go on with a text", lambda: model.sample(prompt="a")),
    ):
      with self.assertRaisesRegex(UserError, message):
        wrong()

  def test_sampling_needs_no_data(self):
    with mock.patch.object(data, "load", side_effect=AssertionError("data")):
      main.run(self.stages, self.workdir, "sample")

  def test_a_workdir_knows_its_config(self):
    before = len(list(self.workdir.glob("samples/samples*.npz")))
    code, lines = commands.call(
      f"--workdir={self.workdir}",
      "--mode=sample",
      "--config.one.sample.seed=5",
    )
    self.assertEqual(code, 0, lines)
    self.assertRegex(lines[-1], "^64 images of 3 classes of 4x4 pixels: ")
    after = len(list(self.workdir.glob("samples/samples*.npz")))
    self.assertEqual(after, before + 1)

  def test_unfinished_stages(self):
    run = self.workdir / "none"
    with self.assertRaisesRegex(UserError, "no run there"):
      ar_jax.load(run)


class ImportTest(absltest.TestCase):
  def test_nothing_heavy_is_imported(self):
    code = (
      "import sys, ar_jax; heavy = {'orbax', 'grain', 'PIL', 'ml_collections'};"
      "print(heavy & set(sys.modules))"
    )
    ran = subprocess.run(
      [sys.executable, "-c", code],
      capture_output=True,
      check=True,
      cwd=pathlib.Path(__file__).parents[1],
      text=True,
    )
    self.assertEqual(ran.stdout.strip(), "set()")


if __name__ == "__main__":
  absltest.main()
