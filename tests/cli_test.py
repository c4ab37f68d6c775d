"""The command line: keys, `--list`, `--help`, any folder, devices."""

import contextlib
import io
import os
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

import jax
from absl.testing import absltest, parameterized

from ar_jax import aot, main
from ar_jax.command import cli, overrides, presets
from tests.commands import call

ROOT = pathlib.Path(__file__).parents[1]


class KeysTest(parameterized.TestCase):
  @parameterized.parameters(
    ("var:smoke", "model.dtype=bfloat16", "bfloat16"),
    ("var:smoke", "model.label_dropout=0", 0.0),
    ("var:smoke", "model.remat=full", "full"),
    ("vq:smoke", "model.beta=0.5", 0.5),
    ("var:smoke", "model.scale_weights=1,2", (1, 2)),
    ("var:smoke", "batch=1e1", 10),
    ("var:smoke", "augment=flip", ("flip",)),
    ("var:smoke", "optim.eps=1e-6", 1e-6),
    ("var:smoke", "optim.groups.head.lr=1e-4", 1e-4),
    ("var:smoke", "sample.labels=(1,2)", (1, 2)),
    ("var:smoke", "sample.options.min_p=0.1", 0.1),
    ("var:smoke", "sample.edit.force_first_scales=2", 2),
    ("var:smoke", "evals.speed.batch=8", 8),
    ("var:smoke", "weights.tokenizer=runs/x", "runs/x"),
    ("var:folder", "tokenizer.data.crop=random", "random"),
    ("var:folder", "tokenizer.data.classes=1", 1),
    ("var:folder", "tokenizer.data.path=a=b", "a=b"),
    ("mar:smoke", "sample.options.denoise=7", 7),
    ("vq:paper", "model.gan_adaptive=true", True),
    ("gsd:smoke", "model.target.dtype=bfloat16", "bfloat16"),
  )
  def test_every_argument_can_be_set(self, config, change, value):
    config = presets.load(config)
    name, _, text = change.partition("=")
    overrides.apply(config, [(name, text)])
    for part in name.split("."):
      config = config[part]
    self.assertEqual(config, value)
    self.assertIsInstance(config, type(value))

  def test_another_data_set_has_other_keys(self):
    config = presets.load("llamagen:smoke_text")
    notes = overrides.apply(config, [("data.name", "text")])
    gone = "data.name=text: has no data.count, data.end, data.symbols"
    self.assertEqual(notes, [gone])
    self.assertEqual(dict(config.data), {"name": "text", "length": 12})
    # What was typed is not left out without a word.
    typed = [("data.symbols", "5"), ("data.name", "text")]
    config = presets.load("llamagen:smoke_text")
    overrides.apply(config, typed)
    self.assertEqual(config.data.symbols, 5)

  def test_options_of_a_data_set_that_is_named_later(self):
    config = presets.load("var:smoke")
    changes = [("data.classes", "1"), ("data.name", "folder")]
    overrides.apply(config, changes)
    self.assertEqual(config.data.classes, 1)

  def test_what_a_run_shares_is_set_in_every_stage(self):
    config = presets.load("var")
    notes = overrides.apply(config, [("mesh.fsdp", "2"), ("seed", "3")])
    self.assertEqual(config.tokenizer.mesh.fsdp, 2)
    self.assertEqual(config.generator.mesh.fsdp, 2)
    self.assertEqual(config.generator.seed, 3)
    self.assertRegex(notes[0], "in every stage, tokenizer.mesh.fsdp, gen")

  def test_a_generator_follows_its_tokenizer(self):
    config = presets.load("var")
    notes = overrides.apply(config, [("tokenizer.model.vocab", "32")])
    self.assertEqual(config.generator.model.tokenizer.vocab, 32)
    self.assertIn("so is generator.model.tokenizer.vocab", notes[0])

  def test_all_keys_of_all_configs_are_listed(self):
    for name in presets.names():
      with self.subTest(name):
        lines = overrides.described(presets.load(name))
        self.assertGreater(len(lines), 40)


class DevicesTest(parameterized.TestCase):
  def test_keys_are_known_before_devices_are(self):
    """Or several processes could no longer come together."""
    code = (
      "from jax._src import xla_bridge\n"
      "from ar_jax.command import overrides, presets\n"
      "for name in presets.names(): overrides.keys(presets.load(name))\n"
      "assert not xla_bridge.backends_are_initialized()"
    )
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=env)

  @parameterized.parameters(
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmuch"),
     "memory of the device is too small.*lower batch"),
    (OSError(28, "No space left on device", "/x"), "/x: No space.*resumes"),
    (KeyboardInterrupt(), "interrupted"),
  )  # fmt: skip
  def test_one_line_for_what_happens_to_a_run(self, error, said):
    with mock.patch.object(main, "run", side_effect=error):
      code, lines = call("--config=var:smoke", "--workdir=/nowhere")
    self.assertEqual(code, 1)
    self.assertLen(lines, 1)
    self.assertRegex(lines[0], f"^ar_jax: .*{said}")


class ListTest(absltest.TestCase):
  def test_systems_and_presets(self):
    code, lines = call("--list")
    text = "\n".join(lines)
    self.assertEqual(code, 0)
    self.assertRegex(text, "default fashion .*paper d16 d20")
    self.assertRegex(text, "flexvar .*multiscale_vq")
    self.assertRegex(text, "digits .*folder")

  def test_keys(self):
    code, lines = call("--list", "--config=var", "--config.seed=3")
    text = "\n".join(lines)
    self.assertEqual(code, 0)
    self.assertIn("--config.generator.model.depth=4", text)
    self.assertIn("- --config.generator.model.remat=", text)
    self.assertIn("--config.generator.seed=3", text)

  def test_help_knows_the_config(self):
    code, lines = call("--help", "--config=var:smoke")
    text = "\n".join(lines)
    self.assertEqual(code, 0)
    self.assertIn("--workdir", text)
    self.assertIn("--config.model.depth=2", text)


class AnyFolderTest(absltest.TestCase):
  def test_names_and_files(self):
    here = os.getcwd()
    self.addCleanup(os.chdir, here)
    with tempfile.TemporaryDirectory() as folder:
      os.chdir(folder)
      named = presets.load("var:smoke")
      self.assertEqual(presets.load("configs/var.py:smoke"), named)
      self.assertEqual(presets.load(str(ROOT / "configs/var.py:smoke")), named)
      # One's own, in a folder of the same name.
      own = pathlib.Path("configs")
      own.mkdir()
      (own / "like.py").write_text("STEPS = 7\n")
      (own / "mine.py").write_text(
        "from configs import like, var\n"
        "def get_config():\n"
        "  c = var.get_config('smoke')\n"
        "  c.train.steps = like.STEPS\n"
        "  return c\n"
      )
      self.assertEqual(presets.load("configs/mine.py").train.steps, 7)
      os.chdir(here)

  def test_workdir(self):
    home = {"HOME": "/somewhere"}
    with mock.patch.dict(os.environ, home):
      cli.parse(["ar_jax", "--config=var:d16", "--workdir=~/x"])
      self.assertEqual(str(cli.workdir("var_d16")), "/somewhere/x")
    cli.parse(["ar_jax", "--config=var:d16"])
    self.assertEqual(str(cli.workdir("var_d16")), "runs/var_d16")


class CompileTest(absltest.TestCase):
  def test_a_cpu_has_no_largest_batch(self):
    config = presets.load("var:smoke")
    row = {"name": "x", "batch": 4, "mesh": {}, "fits": True}
    with (
      tempfile.TemporaryDirectory() as folder,
      mock.patch.object(aot, "compile_row", return_value=row),
      mock.patch.object(aot.search, "largest") as largest,
      mock.patch.object(aot, "table", return_value=""),
      mock.patch.object(aot, "draw"),
      contextlib.redirect_stdout(io.StringIO()),
    ):
      main.run(config, folder, "compile", topology="cpu:1")
    largest.assert_not_called()


if __name__ == "__main__":
  absltest.main()
