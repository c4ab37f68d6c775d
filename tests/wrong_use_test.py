"""What people type wrong: one line each, exit code 1, and nothing is lost."""

import pathlib
import sys
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from ar_jax import checkpoint, main
from ar_jax.command import checks, overrides, presets
from ar_jax.core import json_text
from ar_jax.core.errors import UserError
from tests import toy
from tests.commands import call

ROOT = pathlib.Path(__file__).parents[1]


def contents(folder):
  files = (p for p in sorted(folder.rglob("*")) if p.is_file())
  return {str(p.relative_to(folder)): p.read_bytes() for p in files}


# name, arguments, what the line says. TOY is tests/toy.py, RUN a run of it and
# EMPTY a folder of files that are no configs.
WRONG = (
  # The command.
  ("nothing", (), "say what to run"),
  ("no_config", ("--config=varr",), "did you mean var"),
  ("no_file", ("--config=/no/such.py",), "no such file"),
  ("no_preset", ("--config=var:d61",), "did you mean var:d"),
  ("preset_of_another", ("--config=quickstart:d16",), "no such preset"),
  ("file_that_fails", ("--config=EMPTY/bad.py",), "line 1.*NameError"),
  ("file_without", ("--config=EMPTY/none.py",), "no get_config"),
  ("file_of_a_dict", ("--config=EMPTY/dict.py",), "must return a ConfigDict"),
  ("mode", ("--config=var:smoke", "--mode=smaple"), "train.sample.eval"),
  ("flag", ("--config=var:smoke", "--wokdir=x"), "wokdir"),
  ("word", ("--config=var:smoke", "train"), "unknown argument train"),
  ("no_value", ("--config=var:smoke", "--config.batch"), "say its value"),
  ("mode_of_stages", ("--config=vq:smoke", "--mode=sample"), "no checkpoints"),
  # Keys.
  ("misspelt", ("--config=var:smoke", "--config.train.stepz=3"),
   "--config.train.steps"),
  ("no_group", ("--config=var:smoke", "--config.depth=3"),
   "did you mean --config.model.depth"),
  ("unset", ("--config=var:smoke", "--config.dtype=bfloat16"),
   "did you mean --config.model.dtype"),
  ("no_stage", ("--config=var", "--config.model.depth=3"),
   "which stage.*--config.generator.model.depth"),
  ("no_stage_unset", ("--config=var", "--config.label_dropout=0"),
   "--config.generator.model.label_dropout"),
  ("other_stage", ("--config=var", "--config.generater.model.depth=3"),
   "--config.generator.model.depth"),
  ("group", ("--config=var:smoke", "--config.train=3"), "is a group of keys"),
  ("of_loader", ("--config=var:folder", "--config.tokenizer.data.crops=pad"),
   "--config.tokenizer.data.crop"),
  ("of_evaluator", ("--config=var", "--config.generator.evals.frechet.m=3"),
   "no such key"),
  ("of_sampler", ("--config=var:smoke", "--config.sample.options.topk=3"),
   "--config.sample.options.top_k"),
  # Values.
  ("integer", ("--config=var:smoke", "--config.batch=4.5"), "whole number"),
  ("number", ("--config=var:smoke", "--config.optim.lr=fast"), "a number"),
  ("bool", ("--config=var:smoke", "--config.model.qk_norm=maybe"),
   "true or false"),
  ("parallel", ("--config=TOY", "--config.parallel=pmpa"), "did you mean pmap"),
  ("keep", ("--config=TOY", "--config.train.keep=0"), "train.keep=0"),
  ("steps", ("--config=TOY", "--config.train.steps=-5"), "train.steps=-5"),
  ("log_every", ("--config=TOY", "--config.train.log_every=-1"), "log_every"),
  ("save_every", ("--config=TOY", "--config.train.save_every=-1"), "save_ev"),
  ("batch", ("--config=TOY", "--config.batch=0"), "batch=0"),
  ("count", ("--config=TOY", "--config.sample.count=0"), "sample.count=0"),
  ("columns", ("--config=TOY", "--config.sample.columns=0"), "columns=0"),
  ("seed", ("--config=TOY", "--config.seed=-1"), "seed=-1"),
  ("ema", ("--config=TOY", "--config.train.ema=1.5"), "train.ema=1.5"),
  ("views", ("--config=TOY", "--config.cache.views=-1"), "cache.views=-1"),
  ("equal_views", ("--config=TOY", "--config.cache.views=4"),
   "nothing makes the views.*augment=flip"),
  ("schedule", ("--config=TOY", "--config.optim.schedule=cosin"), "cosin"),
  ("augment", ("--config=TOY", "--config.augment=flop"), "flop.*flip"),
  ("best_is", ("--config=TOY", "--config.train.best_is=high"), "highest"),
  ("dtype", ("--config=var:smoke", "--config.model.dtype=bf16"),
   "say bfloat16"),
  ("accumulate", ("--config=TOY", "--config.train.accumulate=3"),
   "multiple of 3"),
  ("mesh", ("--config=TOY", "--config.mesh.fsdp=3"), "does not divide"),
  ("checkpoint", ("--config=TOY", "--config.checkpoint=oldest"), "newest"),
  # Sampling.
  ("label_share", ("--config=TOY", "--config.sample.labels=1.5"),
   "1.5 is no class"),
  ("label_range", ("--config=TOY", "--config.sample.labels=7"), "0 to 2"),
  ("label_name", ("--config=TOY", "--config.sample.labels=cat"),
   "'cat' is no class.*class 0"),
  ("box", ("--config=TOY", "--config.sample.edit.box=0,0,1,1"),
   "without an image"),
  ("box_of_three", ("--config=TOY", "--config.sample.edit.image=test",
   "--config.sample.edit.box=0,0,1"), "top, left, bottom, right"),
  ("no_image", ("--config=TOY", "--config.sample.edit.image=/no/a.png"),
   "no such file"),
  ("mask", ("--config=TOY", "--config.sample.edit.mask=/no/a.png"),
   "without an image"),
  ("no_step", ("--config=TOY", "--config.checkpoint=7", "--workdir=RUN",
   "--mode=sample"), "no step 7"),
  # Models, data and evaluators.
  ("data", ("--config=TOY", "--config.data.name=digitz"),
   "did you mean digits"),
  ("path", ("--config=var:folder", "--config.tokenizer.data.path=/no/such"),
   "stage tokenizer: .*/no/such"),
  ("unknown_option", ("--config=TOY", "--config.data.length=9",
   "--config.data.name=folder"), "data.length: no option of 'folder'"),
  ("fewer", ("--config=var:smoke", "--config.model.num_classes=10"),
   "3 classes, the model has 10"),
  ("more", ("--config=var:smoke", "--config.model.num_classes=2"),
   "3 classes, the model has 2"),
  ("evaluator", ("--config=TOY", "--config.evals={'frechett': {}}"),
   "did you mean 'frechet'"),
  ("late_evaluator", ("--config=quickstart:smoke",
   "--config.generator.evals={'frechet': {'features': 'judge', 'n': 3}}"),
   "stage evaluation.*too few"),
  ("features", ("--config=TOY",
   "--config.train.eval_every=1", "--config.evals={'frechet': {'features': "
   "'juge'}}"), "did you mean 'judge'"),
  ("weights_of_features", ("--config=TOY", "--config.evals={'frechet': "
   "{'features': 'inception', 'network': {'path': '/no/such.pth'}}}"),
   "/no/such.pth: no such file"),
  ("late_classes", ("--config=quickstart:smoke",
   "--config.generator.model.num_classes=10"),
   "stage generator: .*set --config.generator.model.num_classes=3"),
  ("late_model", ("--config=quickstart:smoke",
   "--config.generator.model.tokenizer.vocab=32"),
   "stage generator: weights.tokenizer.*another model"),
  ("late_option", ("--config=quickstart:smoke",
   "--config.generator.sample.options.schedule=rmap"),
   "stage samples.*rmap"),
  ("late_value", ("--config=quickstart:smoke",
   "--config.generator.train.keep=0"),
   "stage generator: train.keep=0"),
  ("late_weights", ("--config=quickstart:smoke",
   "--config.generator.weights.tokenizer=/no/run"),
   "stage generator: weights.tokenizer=/no/run: no checkpoints"),
  # A run that is there.
  ("other_data", ("--config=TOY", "--workdir=RUN", "--config.data.length=32"),
   "holds a run with data.length=64, this config has data.length=32"),
  ("other_model", ("--config=TOY", "--workdir=RUN", "--config.model.noise=0"),
   "holds a run with model.noise"),
  ("other_system", ("--config=vq:smoke", "--workdir=RUN"),
   "holds a run with"),
  ("no_topology", ("--config=var:smoke", "--mode=compile"), "topology"),
)  # fmt: skip


class WrongUseTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    named = {"ar_jax.systems.toy": toy}
    cls.enterClassContext(mock.patch.dict(sys.modules, named))
    cls.folder = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    cls.there = cls.folder / "run"
    config = toy.get_config()
    variables = toy.build().init(jax.random.key(0), toy.batch(2))
    checkpoint.export(cls.there, variables, json_text.plain(config))
    cls.empty = cls.folder / "empty"
    cls.empty.mkdir()
    (cls.empty / "bad.py").write_text("get_confg()\n")
    (cls.empty / "none.py").write_text("x = 1\n")
    (cls.empty / "dict.py").write_text("def get_config():\n  return {}\n")

  def arguments(self, argv):
    places = {"RUN": self.there, "EMPTY": self.empty}
    for name, place in places.items():
      argv = [a.replace(name, str(place)) for a in argv]
    toy_file = ROOT / "tests" / "toy.py"
    argv = [a.replace("=TOY", f"={toy_file}") for a in argv]
    if not any(a.startswith("--workdir") for a in argv):
      argv.append(f"--workdir={self.folder / 'new'}")
    return argv

  @parameterized.named_parameters(*WRONG)
  def test_one_line(self, argv, said):
    before = contents(self.folder)
    code, lines = call(*self.arguments(argv))
    self.assertEqual(code, 1, lines)
    self.assertLen(lines, 1)
    self.assertRegex(lines[0], f"^ar_jax: .*{said}")
    self.assertEqual(contents(self.folder), before)

  def test_as_many_as_promised(self):
    self.assertGreaterEqual(len(WRONG), 40)


class RightUseTest(absltest.TestCase):
  def test_smoke_presets_pass(self):
    for name in presets.names():
      if "smoke" in presets.of(presets.module(name)):
        with self.subTest(name):
          config = presets.load(f"{name}:smoke")
          stages = main.stages_of(config, pathlib.Path("/nowhere"), "train")
          if len(stages) == 1:  # else it is traced, for seconds
            checks.ahead(stages)

  def test_the_readme_s_own_images(self):
    """A folder of 90 pictures, and the command of the README: all that would
    end it after training is known before."""
    with tempfile.TemporaryDirectory() as folder:
      photos = pathlib.Path(folder) / "photos"
      rng = np.random.default_rng(0)
      for i in range(90):
        path = photos / f"class{i % 3}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(path)
      config = presets.load("var:folder")
      changes = [("tokenizer.data.path", str(photos))]
      overrides.apply(config, changes)
      stages = main.stages_of(config, pathlib.Path("/nowhere"), "train")
      with self.assertRaisesRegex(
        UserError, "3 classes.*set --config.generator.model.num_classes=3"
      ):
        checks.ahead(stages)
      overrides.apply(config, [("generator.model.num_classes", "3")])
      stages = main.stages_of(config, pathlib.Path("/nowhere"), "train")
      with self.assertLogs("ar_jax", "INFO") as caught:
        checks.ahead(stages)
      self.assertRegex(caught.output[0], "frechet.n=2000.*taken as 45")
      (evaluation,) = [s for s in stages if s.does == "eval"]
      self.assertEqual(evaluation.config.evals.frechet.n, 45)


if __name__ == "__main__":
  absltest.main()
