"""Results of one run after another."""

import contextlib
import io
import pathlib
import sys
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest
from PIL import Image as Pictures

from ar_jax import main, show
from ar_jax.core.errors import UserError
from ar_jax.core.forms import Image
from tests import toy

ROOT = pathlib.Path(__file__).parents[1]


class ResultsTest(absltest.TestCase):
  """Results are added; earlier ones are never lost."""

  def setUp(self):
    super().setUp()
    named = {"ar_jax.systems.toy": toy}
    self.enterContext(mock.patch.dict(sys.modules, named))
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.workdir = pathlib.Path(folder) / "run"

  def staged(self):
    from configs import common

    c = toy.get_config()
    c.train.update(steps=2, save_every=2)
    c.train.eval_every = 0
    c.sample.update(count=6)
    return common.stages(
      one=c,
      samples=common.stage("one", "sample"),
      evaluation=common.stage("one", "eval"),
    )

  def test_reports_are_merged_and_samples_kept(self):
    report = main.run(self.staged(), self.workdir)
    self.assertEqual(set(report["stages"]), {"one", "samples", "evaluation"})
    first = np.load(self.workdir / "samples.npz")["arr_0"]
    config = self.staged()
    config.one.sample.seed = 1
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
      again = main.run(config, self.workdir, "sample")
    self.assertEqual(set(again["stages"]), {"one", "samples", "evaluation"})
    self.assertEqual(again["loss"], report["loss"])
    self.assertRegex(
      out.getvalue().splitlines()[-1], "^6 images of 3 classes.*samples.npz"
    )
    kept = np.load(self.workdir / "samples" / "samples_1.npz")["arr_0"]
    np.testing.assert_array_equal(kept, first)
    new = np.load(self.workdir / "samples.npz")["arr_0"]
    self.assertTrue((new != first).any())
    # The same once more replaces what is the same.
    main.run(config, self.workdir, "sample")
    self.assertEmpty(list(self.workdir.glob("samples/samples_2.*")))

  def test_few_pictures_lower_the_evaluation_at_the_start(self):
    pictures = self.workdir.parent / "pictures"
    rng = np.random.default_rng(0)
    for i in range(40):
      path = pictures / f"class{i % 3}" / f"{i}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      Pictures.fromarray(rng.integers(0, 255, (4, 4), np.uint8)).save(path)
    config = self.staged()
    with config.unlocked():
      config.one.data = dict(
        name="folder", size=4, channels=1, path=str(pictures)
      )
      config.one.evals = dict(frechet={"features": "pixels", "n": 2000})
    with self.assertLogs("ar_jax", "INFO") as caught:
      report = main.run(config, self.workdir)
    self.assertRegex("\n".join(caught.output), "frechet.n=2000.*taken as 20")
    self.assertEqual(report["protocol"]["samples"], 20)
    self.assertIsInstance(report["frechet_floor"], float)

  def test_changed_settings_of_a_run_are_named(self):
    config = self.staged().one
    main.run(config, self.workdir)
    config.train.steps = 4
    with self.assertLogs("ar_jax", "INFO") as caught:
      main.run(config, self.workdir)
    text = "\n".join(caught.output)
    self.assertRegex(text, "since it was saved: .*train.steps 2 -> 4")
    config.data.length = 32
    with self.assertRaisesRegex(UserError, "data.length=64"):
      main.run(config, self.workdir)


class ShowTest(absltest.TestCase):
  def test_an_edit_is_original_then_what_is_kept_then_drawn(self):
    given = np.full((2, 4, 4, 1), 100, np.uint8)
    drawn = np.full((2, 4, 4, 1), 7, np.uint8)
    keep = np.zeros((2, 4, 4), np.float32)
    keep[:, :, :2] = 1
    cond = {"given": given, "keep": keep, "label": np.arange(2)}
    sheet = show.picture(Image(), drawn, cond, columns=8)
    self.assertEqual(sheet.shape, (6, 31, 1))  # six images, lines between
    cell = lambda i: sheet[1:5, 1 + 5 * i : 5 + 5 * i]
    for i in range(2):
      original, kept, new = (cell(3 * i + j) for j in range(3))
      np.testing.assert_array_equal(original, given[0])
      np.testing.assert_array_equal(kept[:, :2], 100)
      np.testing.assert_array_equal(kept[:, 2:], 217)  # faded
      np.testing.assert_array_equal(new, drawn[0])


if __name__ == "__main__":
  absltest.main()
