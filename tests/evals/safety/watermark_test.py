"""What chance looks like, and what is found in samples and in files."""

import contextlib
import dataclasses
import functools
import io
import json
import pathlib
import tempfile

import jax
import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image
from scipy import stats

from ar_jax import data, evals
from ar_jax.core.decoding.green_lists import Pool
from ar_jax.core.system import UserError, build
from ar_jax.evals.safety import attacks as attacked
from ar_jax.evals.safety import green_counts, mark_reader, spread_spectrum
from ar_jax.evals.safety.green_counts import Detector
from ar_jax.tokenizers.autoencoder import signed
from tests import filled
from tests.evals import fakes

V = 256
GROUPS = np.arange(V)


@functools.cache
def digits(n=40):
  """Units i32[n, 64] of clean images: squares of 2 x 2 pixels in four levels,
  V = 256; most of them are black."""
  real = data.load("digits", size=16, channels=1)
  image = np.stack([real.test[i]["image"][..., 0] for i in range(n)])
  level = np.minimum(image.astype(int) // 64, 3).reshape(n, 8, 2, 8, 2)
  square = level.transpose(0, 1, 3, 2, 4).reshape(n, 64, 4)
  return square @ 4 ** np.arange(4)


def detector(null, count=1, key="k", **more):
  return Detector(Pool(key, V, count), GROUPS, null=null, **more)


def false_alarms(null, units, count=1, keys=500, alpha=0.01):
  """The rate of them over all pairs of images and keys. Of many keys: images
  share what is common, so under one key they alarm together."""
  own, rates = detector(null, count), []
  random = own.random(own.counts(units))
  for i in range(keys):
    found = own.with_key(f"{i}")(units, random)
    rates.append(np.mean(found.pooled() <= alpha))
  return np.mean(rates)


class NullTest(parameterized.TestCase):
  @parameterized.parameters(1, 4)
  def test_false_alarms_of_the_permutation_null(self, count):
    """20,000 pairs of clean images and keys."""
    rate = false_alarms("permutation", digits(), count)
    self.assertBetween(rate, 0.005, 0.015)

  def test_repeated_units_break_the_binomial_null(self):
    self.assertGreater(false_alarms("binomial", digits()), 0.05)
    self.assertLess(false_alarms("unique", digits()), 0.015)
    # What does not repeat, it is right about.
    units = np.random.default_rng(0).integers(V, size=(40, 64))
    self.assertLess(false_alarms("binomial", units), 0.015)

  @parameterized.product(null=green_counts.NULLS[1:], cluster=(1, 4))
  def test_z_has_deviation_one(self, null, cluster):
    """Over keys, whatever repeats, and in clusters: the exact variance."""
    groups = GROUPS if cluster == 1 else GROUPS // 3 % 64
    pool = Pool("k", V, 2000, cluster=cluster)
    found = Detector(pool, groups, null=null, draws=10)(digits()[:20])
    np.testing.assert_allclose(found.z.mean(1), 0, atol=0.1)
    np.testing.assert_allclose(found.z.std(1), 1, atol=0.07)

  def test_tails(self):
    units = digits()[:5]
    lists = Pool("k", V, 1).lists()[0]
    count = np.stack([np.bincount(row, minlength=V) for row in units])
    own = detector("binomial")(units)
    want = stats.binom.sf((count * lists).sum(1) - 1, 64, 0.5)
    np.testing.assert_allclose(own.p[:, 0], want)
    own, once = detector("unique")(units), count > 0
    want = stats.hypergeom.sf((once & lists).sum(1) - 1, V, 128, once.sum(1))
    np.testing.assert_allclose(own.p[:, 0], want)
    np.testing.assert_allclose(
      own.green[:, 0], (once & lists).sum(1) / once.sum(1), rtol=1e-6
    )
    # Many random lists say what the normal law of the exact deviation says.
    flat = np.random.default_rng(0).integers(V, size=(5, 4000))
    own = detector("permutation", draws=20_000)(flat)
    np.testing.assert_allclose(
      own.p[:, 0], stats.norm.sf(own.z[:, 0]), atol=0.02
    )

  def test_the_most_that_z_can_be(self):
    """All units green, by length."""
    for length, most in ((64, 8), (196, 14), (256, 16), (680, 26.08)):
      own = detector("binomial")
      green = np.flatnonzero(own.lists[0])
      units = np.random.default_rng(0).choice(green, (1, length))
      self.assertAlmostEqual(own(units).z[0, 0], most, places=2)
      self.assertAlmostEqual(own.most(length), most, places=2)

  def test_thresholds(self):
    self.assertAlmostEqual(green_counts.threshold(1e-4, 1), 3.72, places=2)
    self.assertAlmostEqual(green_counts.threshold(1e-4, 8), 4.21, places=2)

  def test_units_that_are_not_marked_do_not_count(self):
    units = np.random.default_rng(0).integers(V, size=(3, 40))
    counted = np.arange(40) >= 10
    own = detector("binomial", counted=counted)(units)
    part = detector("binomial")(units[:, 10:])
    np.testing.assert_array_equal(own.z, part.z)


class SpreadSpectrumTest(absltest.TestCase):
  def test_it_is_found_at_the_psnr_asked_for(self):
    rows = [fakes.patterns(side=28).test[i]["image"] for i in range(32)]
    images = np.stack(rows)
    psnr = np.full(32, 30.0)
    made = spread_spectrum.embedded(images, "k", psnr)
    error = np.square(made.astype(float) - images).mean((1, 2, 3))
    np.testing.assert_allclose(10 * np.log10(255**2 / error), 30, atol=0.2)
    own = spread_spectrum.score(made, "k")
    other = np.abs(spread_spectrum.score(images, "k")).max()
    self.assertGreater(np.median(own), other)
    self.assertLess(np.abs(spread_spectrum.score(made, "l")).max(), own.max())


class AttacksTest(parameterized.TestCase):
  @parameterized.parameters(
    "noise:0.1", "blur:1", "jpeg:50", "resize:0.5", "crop:2", "brightness:0.8"
  )
  def test_they_change_what_they_say(self, name):
    for channels in (1, 3):
      rows = fakes.patterns(channels=channels)
      images = np.stack([r["image"] for r in rows.test])
      made = attacked.attack(name, rows)(images, 0)
      self.assertEqual((made.shape, made.dtype), (images.shape, np.uint8))
      apart = np.abs(made.astype(float) - images).mean() / 255
      self.assertBetween(apart, 0.005, 0.3)

  def test_what_moves_comes_back(self):
    image = np.arange(36, dtype=np.uint8).reshape(1, 6, 6, 1)
    away = attacked.moved(image, -2, -1)
    back = attacked.moved(away, 2, 1)
    np.testing.assert_array_equal(back[:, 2:, 1:], image[:, 2:, 1:])

  def test_regeneration(self):
    rows = fakes.patterns()
    images = np.stack([r["image"] for r in rows.test])
    again = attacked.attack("denoise:0.2", rows, steps=60)(images, 0)
    noise = attacked.attack("noise:0.2", rows)(images, 0)
    apart = lambda x: np.square(x.astype(float) - images).mean()
    self.assertLess(apart(again), apart(noise))
    made = attacked.by_tokenizer(fakes.Coarse(), {}, batch=20)(images, 0)
    self.assertLen(np.unique(made), 8)

  def test_wrong_use(self):
    rows = fakes.patterns()
    for name, message in (
      ("nois:1", "choose of noise"),
      ("jpeg", "say jpeg:X"),
      ("jpeg:100", "in 1 to 95"),
      ("tokenizer:/nowhere", "/nowhere"),
    ):
      with self.assertRaisesRegex(UserError, message):
        attacked.attack(name, rows)


@functools.cache
def marked():
  """LBW over LlamaGen of 64 units, and images that bear no mark."""
  codes = dict(
    name="patch_codes", vocab=64, patch=2, size=16, in_channels=1, spread=0.7
  )
  target = dict(
    name="llamagen", tokenizer=codes, depth=1, width=16, heads=2,
    multiple_of=16, num_classes=4,
  )  # fmt: skip
  system = build("lbw", target=target, key="k", lists=4)
  return system, filled.variables(system), fakes.patterns(side=16, test=100)


class EvaluatorTest(absltest.TestCase):
  def test_samples(self):
    """delta = 4, decoded, stored with 8 bits, and read again."""
    system, variables, real = marked()
    judge = evals.build(
      "watermark", real, sampling={"strength": 4.0}, alpha=1e-3, draws=10_000,
      attacks=("noise:0.02", "noise:2"),
    )  # fmt: skip
    found = judge(system, variables, (), jax.random.key(0))
    self.assertGreaterEqual(found["z"], 4)
    self.assertGreaterEqual(found["right_list"], 0.95)
    self.assertGreaterEqual(found["detected"], 0.95)
    self.assertGreaterEqual(found["tpr_at_1_fpr"], 0.95)
    self.assertEqual(found["z_most"], 8)
    self.assertBetween(found["retention"], 0.5, 1)
    self.assertLess(found["false_alarms"], 0.004)
    self.assertLess(found["false_alarms_own_key"], 0.02)
    less, none = (found[f"z after noise:{x}"] for x in ("0.02", "2"))
    self.assertGreater(found["z"], less)
    self.assertGreater(less, none)
    self.assertLess(found["detected after noise:2"], 0.1)
    json.dumps(found)

  def test_a_folder(self):
    system, variables, real = marked()
    inner = system.drawn_from
    codec = inner.codec(variables)
    clean = np.stack([real.test[i]["image"] for i in range(3)])
    green = system.lists(variables)[2]
    units = codec.encode(signed(clean), allowed=np.asarray(green))
    image = np.asarray(inner.decode(variables, units))
    image = np.floor(255 * image + 0.5).astype(np.uint8)[..., 0]
    with tempfile.TemporaryDirectory() as name:
      root = pathlib.Path(name)
      (root / "more").mkdir()
      Image.fromarray(image[0]).save(root / "mark.png")
      Image.fromarray(np.pad(image[1], 4)).save(root / "more" / "large.png")
      Image.fromarray(image[2]).save(root / "moved.png")
      moved = attacked.moved(image[2][None, ..., None], -1, -1)[0, ..., 0]
      Image.fromarray(moved).save(root / "moved.png")
      Image.fromarray(clean[0, ..., 0]).save(root / "plain.png")
      (root / "broken.png").write_bytes(b"\x89PNG no")
      (root / "notes.txt").write_text("no picture")
      look = lambda **more: evals.build("watermark", real, folder=name, **more)(
        system, variables, (), jax.random.key(0)
      )
      said = io.StringIO()
      with contextlib.redirect_stdout(said):
        found = look()
        shifted = look(offsets=2, draws=20_000)
    files = found["files"]
    self.assertLen(files, 5)
    self.assertEqual(files["mark.png"]["verdict"], "marked")
    self.assertEqual(files["mark.png"]["list"], 2)
    self.assertEqual(files["plain.png"]["verdict"], "no mark found")
    self.assertIn("24x24", files["more/large.png"]["remark"])
    self.assertIn("cannot be read", files["broken.png"]["verdict"])
    self.assertEqual((found["marked"], found["looked_at"]), (1, 4))
    self.assertEqual(shifted["files"]["moved.png"]["verdict"], "marked")
    lines = said.getvalue().splitlines()
    self.assertLen(lines, 10)
    self.assertRegex(lines[1], r"mark.png: marked \(list 2\), z \d")
    json.dumps(found)

  def test_texts(self):
    """Of an SDAR, as samples and as files; the end counts for nothing."""
    real = data.load("markov_text", length=64, symbols=40, count=800, end=0.01)
    text = dict(name="given", form="tokens", vocab=41, length=64)
    target = dict(
      name="sdar", tokenizer=text, depth=1, width=16, heads=2, block=8,
      num_classes=0, multiple_of=16,
    )  # fmt: skip
    system = build("lbw", target=target, key="k", lists=4)
    variables = filled.variables(system, stddev=0.1)
    look = lambda **more: evals.build("watermark", real, field="text", **more)(
      system, variables, (), jax.random.key(0)
    )
    found = look(n=60, draws=2000, sampling={"steps": 2, "strength": 4.0})
    self.assertGreater(found["z"], 3)
    self.assertGreaterEqual(found["right_list"], 0.95)
    self.assertEqual(found["retention"], 1)
    self.assertAlmostEqual(found["z_most"], np.sqrt(64 * 21 / 20))
    self.assertLess(found["false_alarms"], 0.02)
    self.assertEqual(found["protocol"]["texts"], 60)
    form, lists = real.forms["text"], np.asarray(system.lists(variables))
    rng, chars = np.random.default_rng(0), np.array(form.symbols[1:])
    draw = lambda of: "".join(rng.choice(of, 200))
    with tempfile.TemporaryDirectory() as name:
      root = pathlib.Path(name)
      (root / "plain.txt").write_text(draw(chars))
      # Cut anywhere, and with symbols of no vocabulary.
      (root / "mark.md").write_text("..." + draw(chars[lists[3][1:]])[7:])
      (root / "empty.txt").write_text("...")
      (root / "other.txt").write_bytes(b"\0")
      with contextlib.redirect_stdout(io.StringIO()) as said:
        files = look(folder=name)["files"]
    self.assertEqual(files["mark.md"]["verdict"], "marked")
    self.assertEqual(
      (files["mark.md"]["list"], files["mark.md"]["units"]), (3, 193)
    )
    self.assertIn("3 symbols are not", files["mark.md"]["remark"])
    self.assertEqual(files["plain.txt"]["verdict"], "no mark found")
    self.assertIn("not looked at: no symbol", files["empty.txt"]["verdict"])
    self.assertIn("is 0, so this is no text", files["other.txt"]["verdict"])
    self.assertRegex(said.getvalue(), r"mark.md: marked \(list 3\), z \d")
    with self.assertRaisesRegex(UserError, "attacks and offsets are of images"):
      look(attacks=("jpeg:50",))

  def test_wrong_use(self):
    system, variables, real = marked()
    for options, message in (
      (dict(null="normal"), "choose one of binomial"),
      (dict(alpha=0.0), "in 0 to 1"),
      (dict(folder="/nowhere"), "no such folder"),
      (dict(offsets=0), "at least 1"),
      (dict(attacks=("x",)), "choose of"),
    ):
      with self.assertRaisesRegex(UserError, message):
        evals.build("watermark", real, **options)
    own = mark_reader.reader_of(system, variables, draws=100)
    with self.assertRaisesRegex(UserError, "draws=8000"):
      mark_reader.check_alpha(own, 1e-3)
    with self.assertRaisesRegex(UserError, "no green lists"):
      evals.check_system("watermark", {}, system.target)
    with tempfile.TemporaryDirectory() as name:
      judge = evals.build("watermark", real, folder=name)
      with self.assertRaisesRegex(UserError, "no picture"):
        judge(system, variables, (), jax.random.key(0))
    self.assertIsNotNone(dataclasses.replace(own, offsets=2))


if __name__ == "__main__":
  absltest.main()
