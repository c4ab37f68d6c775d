"""The harness of the experiments: its command line, training, tables and
pictures; and every experiment can be imported."""

import dataclasses
import functools
import importlib
import pathlib
import subprocess
import tempfile
from unittest import mock

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data, show, step
from ar_jax.core.forms import Audio
from ar_jax.core.system import Loss, System
from experiments.shared import (
  arms,
  gallery,
  measures,
  pictures,
  record,
  records,
  samples,
  toys,
)

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted(
  ".".join(path.relative_to(ROOT).with_suffix("").parts)
  for path in (ROOT / "experiments").rglob("*.py")
  if path.stem != "__init__"
)


class SettingsTest(parameterized.TestCase):
  def test_defaults(self):
    s = arms.settings("foo", steps=300, args=[])
    self.assertEqual((s.steps, s.seeds, s.short), (300, (0, 1, 2), False))
    self.assertEqual(s.folder.parts[-3:], ("runs", "experiments", "foo"))
    self.assertEqual(s.fewer(500), 500)

  def test_all_that_can_be_said(self):
    args = ["/tmp/here", "emoji=/tmp/there", "--steps=7", "--seeds=2"]
    s = arms.settings("foo", steps=300, words=("digits", "emoji"), args=args)
    self.assertEqual(
      (s.word, s.steps, s.seeds), ("emoji=/tmp/there", 7, (0, 1))
    )
    self.assertEqual(s.folder, pathlib.Path("/tmp/here"))

  def test_a_trial_is_short_and_has_its_own_folder(self):
    s = arms.settings("foo", steps=300, args=["/tmp/here", "--short"])
    self.assertEqual((s.steps, s.seeds), (arms.SHORT, (0,)))
    self.assertEqual(s.folder.name, "here_short")
    self.assertEqual(s.fewer(500), 20)

  @parameterized.parameters(
    ["--step=3"], ["--steps=0"], ["one", "two"], ["digits", "digits", "a", "b"]
  )
  def test_what_says_nothing_is_refused(self, *args):
    with self.assertRaisesRegex(SystemExit, "not understood"):
      arms.settings("foo", steps=3, words=("digits",), args=args)


@dataclasses.dataclass(frozen=True)
class Toy(System):
  """One number, which goes to that of the data."""

  needs = ()

  def init(self, key, batch):
    return {"params": {"w": jnp.zeros((1, 1))}}

  def loss(self, variables, batch, key, *, train):
    return Loss(jnp.square(variables["params"]["w"][0, 0] - batch["x"]))

  def sample(self, variables, cond, keys, **options):
    raise NotImplementedError


class Moved(list):
  """Rows of which training sees others."""

  def draw(self, i, rng):
    return {"x": self[i]["x"] + np.float32(rng.random())}


class TrainTest(absltest.TestCase):
  def test_arms_are_trained_with_and_without_an_average(self):
    rows = [{"x": np.float32(3)}] * 4
    rows = data.Dataset("toy", rows, rows, 1, ("all",))
    budget = dict(steps=6, batch=2, seed=0, lr=0.3)
    last = arms.train(Toy(), rows, ema=0.0, **budget)
    mean = arms.train(Toy(), rows, ema=0.9, options={"k": 1}, **budget)
    w = [float(own.variables["params"]["w"][0, 0]) for own in (mean, last)]
    self.assertBetween(w[1], 0.3, 3.0)
    self.assertBetween(w[0], 0.01, w[1] - 0.01)  # it comes behind
    self.assertEqual(mean.options, {"k": 1})
    self.assertGreater(mean.seconds, 0)

  def test_an_arm_that_is_kept_is_not_trained_again(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    rows = [{"x": np.float32(3)}] * 4
    rows = data.Dataset("toy", rows, rows, 1, ("all",))
    train = functools.partial(
      arms.train, Toy(), steps=6, batch=2, seed=0, keep=folder
    )
    first = train(rows, lr=0.3)
    with mock.patch.object(step, "jit_step", side_effect=AssertionError):
      again = train(rows, lr=0.3, options={"k": 1})
      np.testing.assert_array_equal(
        again.variables["params"]["w"], first.variables["params"]["w"]
      )
      self.assertEqual((again.seconds, again.options),
                       (first.seconds, {"k": 1}))  # fmt: skip
      others = [{"x": np.float32(4)}] * 4
      others = dataclasses.replace(rows, train=others)
      drawn = dataclasses.replace(rows, train=Moved(rows.train))
      for way in (
        dict(lr=0.2),
        dict(dataset=others, lr=0.3),
        dict(dataset=drawn, lr=0.3),
      ):
        with self.assertRaises(AssertionError):
          train(way.pop("dataset", rows), **way)

  def test_weights_that_are_not_finite_are_refused(self):
    rows = [{"x": np.float32(np.inf)}] * 4
    rows = data.Dataset("toy", rows, rows, 1, ("all",))
    with self.assertRaisesRegex(FloatingPointError, "Toy: not finite after 3"):
      arms.train(Toy(), rows, steps=3, batch=2, seed=0, lr=0.3)


class SamplesTest(absltest.TestCase):
  def test_what_is_kept_of_a_run_is_shown(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    run, images = folder / "run", folder / "images"
    run.mkdir()
    images.mkdir()
    small = pictures.Image.fromarray(np.zeros((4, 100, 3), np.uint8))
    small.save(run / "samples.png")
    sound, _ = show.write(run, "samples", Audio(8000), np.zeros((2, 50)))
    self.enterContext(mock.patch.object(gallery, "IMAGES", images))
    files = samples.kept(run, "foo")
    self.assertEqual(files, ["foo.png", "foo.wav"])
    self.assertEqual((images / "foo.wav").read_bytes(), sound.read_bytes())
    shown = pictures.Image.open(images / "foo.png")
    self.assertGreaterEqual(shown.width, pictures.WIDTH)
    own = {"config": "foo", "files": files, "train seconds": 150.0,
           "device": "a core"}  # fmt: skip
    row = {"system": "[`foo`](foo.py)", "what": "Foo.", "verdict": "holds"}
    page = gallery.page(
      {"token": "Tokens."}, {"token": [row]}, {}, {"foo": [own]}
    )
    self.assertIn("![foo](images/gallery/foo.png)", page)
    self.assertIn("(images/gallery/foo.wav)", page)
    self.assertIn("--config=foo`, 2.5 minutes on a core", page)

  def test_rows_stand_by_the_system_that_is_trained(self):
    for config, system in {
      "vq": "vq",
      "llamagen_text": "llamagen",
      "llamagen:emoji": "llamagen",
      "dd1:var": "dd1",
    }.items():
      self.assertEqual(samples.system_of(config), system)


class CompareTest(absltest.TestCase):
  def test_arms_are_made_and_measured_for_every_seed(self):
    def make(seed, offset):
      return arms.Trained(None, {"x": offset + seed})

    found = arms.compare(
      {"a": functools.partial(make, offset=0.0),
       "b": functools.partial(make, offset=10.0)},
      lambda own, seed: {"x": float(own.variables["x"]), "seed": seed},
      (0, 1, 2),
      lambda trained: {"b": {"beside": float(len(trained))}},
    )  # fmt: skip
    self.assertEqual(found.every("b", "x"), [10.0, 11.0, 12.0])
    self.assertEqual(found.every("b", "beside"), [2.0] * 3)
    self.assertEqual(found.mean("a", "x"), 1.0)
    self.assertEqual(found.spread("a", "x"), 1.0)
    self.assertEqual(found.trained["b"].variables["x"], 10.0)
    rows = found.table({"X": ("x", 1)}, "who", more={"a": 7})
    self.assertEqual(
      rows,
      [
        {"who": "a", "X": "1.0 ± 1.0", "more": 7},
        {"who": "b", "X": "11.0 ± 1.0", "more": ""},
      ],
    )

  def test_a_missing_figure_is_an_empty_cell(self):
    self.assertEqual(arms.mean_spread([1.0, float("nan")]), "")
    self.assertEqual(arms.deviation([1.0]), 0.0)

  def test_verdicts(self):
    self.assertIs(arms.said({"(a)": True, "(b)": True}), True)
    self.assertIs(arms.said({"(a)": False, "(b)": False}), False)
    verdict = arms.said({"(a)": False}, "few steps")
    self.assertEqual(records.verdict({"holds": verdict}), "fails")
    self.assertIn("few steps", verdict)
    verdict = arms.said({"(a)": True, "(b)": False})
    self.assertEqual(verdict, "in part: (b) does not hold")

  def test_calls_are_timed_in_turns(self):
    order = []
    calls = {k: functools.partial(order.append, k) for k in "ab"}
    times = measures.in_turns(calls, 2)
    self.assertEqual("".join(order), "ababab")  # the first of each compiles
    self.assertLen(times["a"], 2)


class PicturesTest(absltest.TestCase):
  def test_rows_are_named_and_wide(self):
    rows = {"ours": np.zeros((4, 8, 8, 1)), "theirs": np.ones((4, 6, 6, 3))}
    sheet = pictures.labelled(rows, "0123")
    self.assertGreaterEqual(sheet.width, pictures.WIDTH)
    pixels = np.asarray(sheet.convert("L")).astype(int)
    # Letters at the left of both rows, and above the columns.
    room = pixels.shape[1] - 4 * ((pixels.shape[0] - 21) // 2)
    self.assertLess(pixels[21:, : room // 2].min(), 128)
    self.assertLess(pixels[:20, room:].min(), 128)

  def test_videos_move(self):
    """Every frame is a sheet of named rows; bytes and numbers side by side."""
    ours = np.linspace(0, 1, 5 * 64).reshape(1, 5, 8, 8, 1).repeat(3, 0)
    rows = {"clips": np.uint8(255 * ours), "drawn": 1 - ours}
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    name = pictures.moving("foo", rows, rate=4, folder=folder)
    self.assertEqual(name, "foo.gif")
    with pictures.Image.open(folder / name) as film:
      self.assertEqual(film.n_frames, 5)
      self.assertGreaterEqual(film.width, pictures.WIDTH)
      self.assertEqual(film.info["duration"], 250)

  def test_small_pictures_are_enlarged_without_smoothing(self):
    small = np.random.default_rng(0).integers(0, 256, (9, 100, 3), np.uint8)
    folder = self.enterContext(tempfile.TemporaryDirectory())
    path = pathlib.Path(folder) / "small.png"
    pictures.Image.fromarray(small).save(path)
    large = np.asarray(pictures.enlarged(path))
    self.assertEqual(large.shape, (63, 700, 3))
    np.testing.assert_array_equal(large[::7, ::7], small)


class ToysTest(absltest.TestCase):
  def test_levels(self):
    image = np.array([0, 63, 64, 255], np.uint8).reshape(2, 2, 1)
    rows = [{"image": image, "label": np.int32(1)}]
    rows = data.Dataset("d", rows, rows, 2, ("a", "b"))
    units, label = toys.arrays(toys.levels(rows, 4).train)
    np.testing.assert_array_equal(units, [[0, 0, 1, 3]])
    np.testing.assert_array_equal(label, [1])

  def test_shuffled_codes_are_the_same_codes(self):
    lantern = importlib.import_module("experiments.lantern")
    codebook = jnp.arange(12.0).reshape(6, 2)
    other = jnp.ones((6, 2))
    tokenizer = {"quantizer": {"codebook": codebook}, "conv": other}
    mixed = lantern.shuffled({"tokenizer": tokenizer}, 0)["tokenizer"]
    rows = mixed["quantizer"]["codebook"]
    self.assertFalse(np.array_equal(rows, codebook))
    np.testing.assert_array_equal(np.sort(rows, 0), codebook)
    np.testing.assert_array_equal(mixed["conv"], other)


class ModulesTest(parameterized.TestCase):
  @parameterized.parameters(MODULES)
  def test_it_can_be_imported(self, name):
    importlib.import_module(name)


class CommitTest(absltest.TestCase):
  def test_what_runs_write_is_no_change_of_the_code(self):
    root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    files = "a.py", "docs/a.md", "experiments/results/a.png"
    for name in files:
      (root / name).parent.mkdir(parents=True, exist_ok=True)
      (root / name).write_text("1")
    who = "-c", "user.name=a", "-c", "user.email=a@b"
    for args in ("init", "-q"), ("add", "."), (*who, "commit", "-qm", "a"):
      subprocess.run(["git", *args], cwd=root, check=True)
    results = root / "experiments" / "results"
    with mock.patch.object(record, "RESULTS", results):
      clean = record.commit()
      self.assertRegex(clean, "^[0-9a-f]{7,}$")
      for name in files[1:]:
        (root / name).write_text("2")
      self.assertEqual(record.commit(), clean)
      (root / "a.py").write_text("2")
      self.assertEqual(record.commit(), f"{clean}+")


if __name__ == "__main__":
  absltest.main()
