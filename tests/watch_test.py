"""What a run shows of itself: rates, the codebook, pictures, W&B."""

import json
import pathlib
import sys
import tempfile
import types
from unittest import mock

import numpy as np
from absl.testing import absltest

from ar_jax import main, metrics, optim, rebuilt, show, step
from ar_jax.core import forms
from ar_jax.core.errors import UserError
from configs import vq
from tests import toy_runs


class WatchTest(absltest.TestCase):
  def test_rate_is_that_of_the_optimizer(self):
    config = dict(lr=1e-3, schedule="linear", warmup=2, end=0.5)
    rate = optim.rate(config, 10)
    found = [rate(step) for step in range(11)]
    self.assertAlmostEqual(found[0], 5e-4)
    self.assertAlmostEqual(max(found), 1e-3)
    self.assertAlmostEqual(found[10], 5e-4)

  def test_codebook(self):
    units = np.array([[0, 0, 1, 1], [0, 0, 1, 1]])
    found = rebuilt.codebook(units, 8)
    self.assertEqual(found["codebook/usage"], 0.25)
    self.assertAlmostEqual(found["codebook/perplexity"], 2.0)

  def test_a_tokenizer_shows_pictures_and_its_codebook(self):
    config = vq.get_config("smoke")
    self.assertEqual(config.train.sample_every, 0)
    with tempfile.TemporaryDirectory() as folder:
      with mock.patch("ar_jax.watch._LONG", 1):
        main.run(config, folder)
      rows = pathlib.Path(folder, "metrics.jsonl").read_text().splitlines()
      pictures = sorted(
        p.name for p in pathlib.Path(folder, "samples").iterdir()
      )
    seen = {}
    for row in map(json.loads, rows):
      seen |= row
    self.assertIn("lr", seen)
    self.assertGreater(seen["codebook/perplexity"], 0)
    self.assertLessEqual(seen["codebook/usage"], 1)
    self.assertEqual(pictures, ["00000001.png", "00000002.png"])


class DefaultTest(toy_runs.ToyTest):
  """A generator shows what it draws four times, unless it is told."""

  def shown(self, **train):
    config = toy_runs.config(save_every=20, sample_count=2, **train)
    with mock.patch("ar_jax.watch._LONG", 10):
      main.run(config, self.workdir)
    found = (self.workdir / "samples").glob("*.png")
    return sorted(int(p.stem) for p in found)

  def test_four_times(self):
    self.assertEqual(self.shown(sample_every=0, steps=18), [5, 10, 15, 18])

  def test_never(self):
    self.assertEqual(self.shown(sample_every=-1), [])

  def test_not_in_a_try(self):
    self.assertEqual(self.shown(sample_every=0, steps=9), [])

  def test_what_cannot_draw_trains_all_the_same(self):
    no = mock.Mock(side_effect=UserError("nothing to draw"))
    with (
      mock.patch.object(step, "draw", no),
      self.assertLogs("ar_jax") as caught,
    ):
      self.assertEqual(self.shown(sample_every=0), [])
    said = [line for line in caught.output if "nothing to draw" in line]
    self.assertLen(said, 1)
    with (
      mock.patch.object(step, "draw", no),
      self.assertRaisesRegex(UserError, "nothing to draw"),
    ):
      self.workdir = self.workdir.parent / "asked"
      self.shown(sample_every=5)


class WandbTest(absltest.TestCase):
  def test_through_the_same_writer(self):
    run = mock.Mock()
    fake = types.SimpleNamespace(
      init=mock.Mock(return_value=run),
      Image=lambda image: ("image", image.shape),
      Audio=lambda path: ("audio", path),
      Video=lambda path, format: ("video", path, format),
      Html=lambda text: text,
    )
    with (
      tempfile.TemporaryDirectory() as folder,
      mock.patch.dict(sys.modules, {"wandb": fake}),
      mock.patch.dict("os.environ", {"WANDB_PROJECT": "digits"}),
    ):
      workdir = pathlib.Path(folder) / "run"
      workdir.mkdir()
      writer = metrics.Writer(workdir, start=0, total=2)
      writer.write(1, {"loss": 2.5})
      writer.image("samples", np.zeros((2, 2, 3), np.uint8), 1)
      text = workdir / "s.txt"
      text.write_text("a < b")
      writer.file("samples/txt", text, 1)
      form, x = forms.Video(), np.zeros((1, 2, 8, 8, 1), np.uint8)
      (gif,) = show.write(workdir, "s", form, x)
      writer.file("samples/gif", gif, 1)
      writer.close()
      self.assertEqual(metrics.last(workdir)["loss"], 2.5)
    self.assertEqual(fake.init.call_args.kwargs["project"], "digits")
    logged = [call.args[0] for call in run.log.call_args_list]
    self.assertEqual(logged[0], {"loss": 2.5, "step": 1})
    self.assertEqual(logged[1], {"samples": ("image", (2, 2, 3)), "step": 1})
    self.assertEqual(logged[2]["samples/txt"], "<pre>a &lt; b</pre>")
    self.assertEqual(logged[3]["samples/gif"], ("video", str(gif), "gif"))
    run.finish.assert_called_once()

  def test_asked_for_and_not_installed(self):
    with (
      tempfile.TemporaryDirectory() as folder,
      mock.patch.dict(sys.modules, {"wandb": None}),
      mock.patch.dict("os.environ", {"WANDB_PROJECT": "digits"}),
    ):
      with self.assertRaisesRegex(UserError, "pip install .ar_jax.wandb"):
        metrics.Writer(pathlib.Path(folder), start=0, total=2)


if __name__ == "__main__":
  absltest.main()
