"""Every form of data is drawn, shown, heard and stored, from the workdir."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import wave
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

import ar_jax
from ar_jax import conditions, data, main, parallel, run_files, sample, step
from ar_jax.core import forms
from ar_jax.core.errors import UserError
from ar_jax.evals import samples
from ar_jax.planning import programs
from configs import common
from tests import toy_forms
from tests.evals import fakes
from tests.metrics_test import events

KEY = jax.random.key(0)

# Kind -> the files beside samples.npz, .json and .png, and the last line.
FILES = {
  "text": (["samples.txt"], "6 texts of 24 symbols: "),
  "audio": (
    [f"samples.00{i}.wav" for i in range(6)],
    "6 sounds of 0.5 seconds at 8000 Hz: ",
  ),
  "video": (
    ["samples.gif"],
    "6 videos of 3 classes of 6 frames of 12x12 pixels: ",
  ),
  "series": (["samples.csv"], "6 series of 40 times, 2 values each: "),
  "skeleton": (
    [f"samples.00{i}.obj" for i in range(6)],
    "6 skeletons of 8 joints at most, with parent, count: ",
  ),
  "peaks": (["samples.csv"], "6 spectra of 12 peaks at most: "),
  "several": (
    [
      *(f"samples.audio.00{i}.wav" for i in range(6)),
      "samples.audio.png",
      "samples.text.png",
      "samples.text.txt",
    ],
    "6 images of 12x12 pixels, with text, audio: ",
  ),
}
# Kind -> what TensorBoard has of samples at a step.
BOARD = {
  "text": {"samples", "samples/txt/text_summary"},
  "audio": {"samples", *(f"samples/wav/00{i}" for i in range(4))},
  "video": {"samples", "samples/gif"},
  "several": {
    "samples",
    "samples/text",
    "samples/text/txt/text_summary",
    "samples/audio",
    *(f"samples/audio/wav/00{i}" for i in range(4)),
  },
}


class FormsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    named = {"ar_jax.systems.toy_forms": toy_forms}
    self.enterContext(mock.patch.dict(sys.modules, named))
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.workdir = pathlib.Path(folder) / "run"

  def train(self, kind):
    config = toy_forms.get_config(kind)
    with mock.patch.object(data, "load", toy_forms.load):
      main.run(config, self.workdir)
    return config

  @parameterized.parameters(*FILES)
  def test_drawn_from_the_workdir_alone(self, kind):
    config = self.train(kind)
    files, line = FILES[kind]
    out = io.StringIO()
    load = toy_forms.load if kind == "series" else AssertionError("data")
    with (
      mock.patch.object(data, "load", side_effect=load),
      contextlib.redirect_stdout(out),
    ):
      report = main.run(config, self.workdir, "sample")
      model = ar_jax.load(self.workdir)
      given = {}
      if kind == "series":
        rows = toy_forms.load("series").test
        given = {"past": np.stack([rows[i % 4]["past"] for i in range(6)])}
      drawn = model.sample(count=6, given=given)
    self.assertStartsWith(out.getvalue().splitlines()[-1], line)
    found = {p.name for p in self.workdir.glob("samples.*")}
    usual = {"samples.npz", "samples.json", "samples.png"}
    self.assertEqual(found, usual | set(files))
    made = toy_forms.Anything(kind).makes
    self.assertEqual(report["makes"], list(made))
    with np.load(self.workdir / "samples.npz") as stored:
      names = {"arr_0", *made[1:], *toy_forms.Anything(kind).needs}
      self.assertEqual(set(stored.files), names)
      for i, name in enumerate(made):
        x = stored[name if i else "arr_0"]
        self.assertLen(x, 6)
        if name in toy_forms.FORMS[kind]:
          form = toy_forms.FORMS[kind][name]
          form.check(x, name)
          self.assertEqual(x.dtype, form.stored(x).dtype)
        if not given:  # the same rows were given in another order
          own = drawn[name] if len(made) > 1 else drawn
          np.testing.assert_array_equal(own, x)
    self.assertEqual(Image.open(self.workdir / "samples.png").format, "PNG")
    # While training, at steps 2 and 4.
    shown = [(s, t) for s, t in events(self.workdir) if "samples" in t]
    for at in (2, 4):
      tags = {t for s, t in shown if s == at}
      self.assertEqual(tags, BOARD.get(kind, {"samples"}))
      self.assertTrue((self.workdir / f"samples/{at:08d}.png").exists())
    # Another seed keeps all files of the first.
    config.sample.seed = 1
    with mock.patch.object(data, "load", toy_forms.load):
      main.run(config, self.workdir, "sample")
    kept = {p.name for p in self.workdir.glob("samples_1.*")}
    first = {n.replace("samples", "samples_1", 1) for n in found}
    self.assertEqual(kept, first)
    # So does whatever else they were made of, but not how they are laid out.
    config.sample.columns = 2
    with mock.patch.object(data, "load", toy_forms.load):
      main.run(config, self.workdir, "sample")
    self.assertEqual(list(self.workdir.glob("samples_2.*")), [])
    report = json.loads((self.workdir / "samples.json").read_text())
    report["voice"] = "another.wav"
    sample.keep_earlier(self.workdir, report, {"seed", "voice"})
    kept = {p.name for p in self.workdir.glob("samples_2.*")}
    self.assertEqual(kept, {n.replace("_1", "_2", 1) for n in first})

  def test_files_hold_what_was_drawn(self):
    config = self.train("several")
    with mock.patch.object(data, "load", side_effect=AssertionError("data")):
      main.run(config, self.workdir, "sample")
    with np.load(self.workdir / "samples.npz") as stored:
      text, sound = stored["text"], stored["audio"]
    lines = (self.workdir / "samples.text.txt").read_text().splitlines()
    form = toy_forms.FORMS["several"]["text"]
    self.assertEqual(lines, [form.read(row) for row in text])
    with wave.open(str(self.workdir / "samples.audio.002.wav")) as file:
      self.assertEqual(file.getframerate(), 8000)
      heard = np.frombuffer(file.readframes(10**6), "<i2") / 32767
    np.testing.assert_allclose(heard, sound[2], atol=1 / 32767)

  def test_a_run_of_before_forms_is_of_images(self):
    self.train("several")
    path = self.workdir / "data.json"
    facts = json.loads(path.read_text())
    self.assertEqual(facts["forms"]["audio"], {"form": "audio", "rate": 8000})
    del facts["forms"]
    path.write_text(json.dumps(facts))
    self.assertEqual(ar_jax.load(self.workdir).forms, {"image": forms.Image()})

  def test_nothing_of_a_run_says_what_its_data_are(self):
    """Then they are read; images need not be."""
    config = self.train("text")
    (self.workdir / "data.json").unlink()
    system = toy_forms.Anything("text")
    with (
      mock.patch.dict(data.sources.LOADERS, {"text": ("text.toy", "text")}),
      mock.patch.object(data, "load", toy_forms.load),
    ):
      known = run_files.Known(self.workdir, config, system)
    self.assertEqual(known.forms, toy_forms.FORMS["text"])
    self.assertEqual(known.num_classes, 0)
    self.assertEqual(known.fields["text"], ((toy_forms.LENGTH,), "int32"))
    images = common.base("toy")
    images.data.name = "imagenet2012"
    with mock.patch.object(data, "load", side_effect=AssertionError("data")):
      known = run_files.Known(self.workdir, images, fakes.Fake())
    self.assertEqual(known.fields["image"], ((16, 16, 1), "uint8"))

  def test_a_wrong_evaluator_is_seen_before_the_first_step(self):
    config = toy_forms.get_config("text")
    for kind, wrong in (
      ("judge_accuracy", "judge_accuracy: scores the field 'image' .* text;"),
      ("transcripts", "transcripts: .* reads nothing and no example"),
    ):
      config.evals = {kind: {}}
      with (
        mock.patch.object(data, "load", toy_forms.load),
        self.assertRaisesRegex(UserError, wrong),
      ):
        main.run(config, self.workdir)
    self.assertFalse(self.workdir.exists())

  def test_programs_ahead_of_time(self):
    config = toy_forms.get_config("skeleton")
    mesh = parallel.make_mesh(config.mesh)
    with (
      mock.patch.dict(data.sources.LOADERS, {"skeleton": ("x.toy", "x")}),
      mock.patch.object(data, "load", toy_forms.load),
    ):
      made = programs.programs(config, mesh)
      self.assertEqual(set(made), {"train_step", "sample"})
      for name in made:
        traced = made[name](4).trace()
        self.assertIn("f32[4,8,3]", str(traced.jaxpr))

  def test_programs_of_later_steps(self):
    at = lambda self, step: fakes.Fake(side=8 if step < 3 else 12)
    with mock.patch.object(fakes.Fake, "at", at):
      found = programs.phases(fakes.Fake(), 6)
    self.assertEqual({k: v.side for k, v in found.items()}, {0: 8, 3: 12})
    self.assertEqual(programs.phases(fakes.Fake(), 6), {0: fakes.Fake()})


class DrawTest(absltest.TestCase):
  def test_fields_by_their_names(self):
    for kind in ("several", "text"):
      system = toy_forms.Anything(kind)
      cond = conditions.conditions(system, toy_forms.load(kind), 5)
      self.assertEqual(list(cond), ["index"])
      made = step.draw(system, {}, cond, KEY, batch=2)
      self.assertEqual(tuple(made), system.makes)
      alone = step.draw(
        system, {}, {"index": np.arange(2)}, KEY, batch=2, start=3
      )
      for name, x in made.items():
        self.assertLen(x, 5)
        np.testing.assert_array_equal(x[3:], alone[name])

  def test_a_system_that_makes_something_else(self):
    system = toy_forms.Anything("several")
    with self.assertRaisesRegex(
      UserError, "returns image; .* makes image, text"
    ):
      step.made(system, {"image": np.zeros(1)})

  def test_truth(self):
    system, rows = toy_forms.Anything("series"), toy_forms.load("series")
    cond = conditions.conditions(system, rows, 6)
    true = conditions.truth(system, rows, 6)["series"]
    np.testing.assert_array_equal(true[:, : toy_forms.TIMES // 2], cond["past"])
    part = conditions.truth(system, rows, 2, start=3)["series"]
    np.testing.assert_array_equal(part, true[3:5])
    with self.assertRaisesRegex(UserError, "truth of a sample is image, which"):
      conditions.truth(fakes.Fake(), rows, 2)

  def test_no_classes(self):
    rows = toy_forms.load("text")
    self.assertEqual(conditions.law_of(rows, ""), "balanced")
    with self.assertRaisesRegex(
      UserError, "reads a label; text has no classes"
    ):
      conditions.conditions(fakes.Fake(), rows, 2)

  def test_evaluators_get_what_is_stored(self):
    system, rows = toy_forms.Anything("text"), toy_forms.load("text")
    cond = conditions.conditions(system, rows, 5)
    options = dict(batch=2, forms=rows.forms)
    with mock.patch.object(samples, "CHUNK", 2):
      found = list(samples.chunks(system, {}, cond, KEY, **options))
    self.assertEqual([len(chunk["text"]) for chunk in found], [2, 2, 1])
    self.assertEqual(found[0]["text"].dtype, np.int32)
    with self.assertRaisesRegex(UserError, "frechet: scores .*'image'.* text;"):
      samples.field(
        "image", system, {}, cond, KEY, evaluator="frechet", **options
      )


if __name__ == "__main__":
  absltest.main()
