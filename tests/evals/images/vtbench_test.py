"""VTBench's metrics against the published script's numbers, and its tasks."""

import itertools
import pathlib
import tempfile

import jax
import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from ar_jax import data, evals
from ar_jax.core.system import UserError, build
from ar_jax.data.images import glyphs, made, transforms
from ar_jax.evals.images import statistics, vtbench
from ar_jax.evals.images import vtbench_scores as scores
from ar_jax.evals.text import reading
from tests import golden_weights


class GoldenTest(absltest.TestCase):
  """torchmetrics 1.7.1 and the published preprocessing."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.about, cls.expected = golden_weights.load("vtbench_metrics")

  def test_cover(self):
    picture = Image.fromarray(self.expected["pil"])
    square = transforms.cover(picture, (24, 24))
    np.testing.assert_array_equal(square, self.expected["preprocess_uint8"])
    wide = transforms.cover(picture, (30, 16)) / 255.0
    want = np.moveaxis(self.expected["preprocess_01_nonsquare"], 0, -1)
    np.testing.assert_allclose(wide, want, atol=1e-6)
    small = np.moveaxis(self.expected["preprocess_small_int"], 0, -1)
    ours = transforms.cover(picture, 12) / 255.0
    scale = 2.0 if small.min() < 0 else 1.0
    np.testing.assert_allclose(ours * scale - (scale - 1), small, atol=1e-6)

  def test_metric_size(self):
    image = self.expected["pil"][None]
    ours = scores.resized(scores.Pairs(image, image), 48).made[0] / 255.0
    want = np.moveaxis(self.expected["metric_resize"], 0, -1)
    np.testing.assert_allclose(ours, want, atol=1e-6)

  def test_pairs(self):
    x = golden_weights.uniform("target", (3, 3, 48, 48)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    true = sum(
      padded[..., i : i + 48, j : j + 48] for i in range(5) for j in range(5)
    )
    true = true / np.float32(25)
    noise = golden_weights.tensor("noise", (3, 3, 48, 48))
    s = np.array([0.02, 0.1, 0.3], np.float32).reshape(3, 1, 1, 1)
    off = np.clip(true + s * noise, 0, 1)
    self.assertAlmostEqual(
      np.abs(true).sum(), self.expected["metric_target_checksum"], delta=0.5
    )
    true, off = (np.moveaxis(a, 1, -1) for a in (true, off))
    np.testing.assert_allclose(
      scores.released_psnr(off, true), self.expected["psnr"], rtol=1e-4
    )
    batches = (slice(0, 2), slice(2, 3))
    of_batch = [scores.released_ssim(off[b], true[b]) for b in batches]
    np.testing.assert_allclose(
      (2 * of_batch[0] + of_batch[1]) / 3, self.expected["ssim"], atol=1e-5
    )
    for i, want in enumerate(self.expected["ssim_per_image"]):
      ours = scores.released_ssim(off[i : i + 1], true[i : i + 1])
      self.assertAlmostEqual(ours, want, places=5)

  def test_frechet(self):
    real, fake = (
      statistics.Moments.of(self.expected[f"fid_features_{k}"])
      for k in ("real", "fake")
    )
    np.testing.assert_allclose(
      statistics.frechet(fake, real), self.expected["fid"], rtol=1e-4
    )

  def test_error_rates(self):
    texts = self.about["config"]["texts"]
    found = scores.text_errors(texts["reference"], texts["hypothesis"])
    np.testing.assert_allclose(found["cer"], self.expected["cer"], atol=1e-6)
    np.testing.assert_allclose(
      found["wer_vtbench"], self.expected["wer_vtbench"], atol=1e-6
    )


class RatesTest(parameterized.TestCase):
  @parameterized.parameters(
    ("abc", "abc", 0), ("", "abc", 1), ("abxc", "abc", 1 / 3),
    ("xyzxyz", "abc", 2),
  )  # fmt: skip
  def test_characters(self, made_, true, rate):
    self.assertAlmostEqual(scores.text_errors([true], [made_])["cer"], rate)

  @parameterized.parameters(
    ("a x c", "a b c", 1 / 3, 1 / 3),
    ("hello big world", "hello world", 1 / 2, 2),
  )
  def test_words(self, made_, true, wer, published):
    found = scores.text_errors([true], [made_])
    self.assertAlmostEqual(found["wer"], wer)
    self.assertAlmostEqual(found["wer_vtbench"], published)

  def test_pooled_psnr_is_no_mean(self):
    true = np.zeros((2, 16, 16, 1))
    true[:, 0, 0] = 1  # the range
    off = true + np.array([0.1, 0.001]).reshape(2, 1, 1, 1)
    pooled = scores.released_psnr(off, true)
    self.assertAlmostEqual(pooled, 23.01, delta=0.01)
    each = [scores.released_psnr(off[i], true[i]) for i in (0, 1)]
    self.assertAlmostEqual(np.mean(each), 40, delta=0.01)


class GlyphsTest(parameterized.TestCase):
  def test_no_two_letters_are_alike(self):
    table = glyphs.table().reshape(len(glyphs.SYMBOLS), -1)
    for a, b in itertools.combinations(table, 2):
      self.assertGreaterEqual(np.sum(a != b), 2)

  @parameterized.product(scale=(1, 2, 3), channels=(1, 3))
  def test_what_is_written_is_read(self, scale, channels):
    own = made.rendered_text(
      size=48, channels=channels, scale=scale, length=80, seed=scale
    )
    rows = [own.test[i] for i in range(10)]
    true = [own.forms["text"].read(x["text"]) for x in rows]
    found = reading.of_glyphs(np.stack([x["image"] for x in rows]), scale)
    self.assertEqual(found, true)

  def test_a_blank_image_holds_no_text(self):
    blank = np.full((2, 32, 32, 1), 77, np.uint8)
    self.assertEqual(reading.of_glyphs(blank, 2), ["", ""])

  def test_readers_by_name(self):
    with self.assertRaisesRegex(UserError, "did you mean 'glyphs'"):
      reading.reader("glyph")
    for name in ("rapidocr", "tesseract"):
      try:
        read = reading.reader(name)
      except UserError as e:
        self.assertRegex(str(e), "install")
        continue
      self.assertLen(read(np.full((1, 32, 32, 3), 255, np.uint8)), 1)


class MadeTest(absltest.TestCase):
  def test_patterns(self):
    own = made.patterns(size=32, channels=3, length=16)
    self.assertEqual(own.num_classes, 4)
    images = [own.train[i]["image"] for i in range(16)]
    for a, b in itertools.combinations(images, 2):
      self.assertFalse(np.array_equal(a, b))
    np.testing.assert_array_equal(images[3], own.train[3]["image"])
    self.assertFalse(np.array_equal(images[0], own.test[0]["image"]))

  def test_no_room(self):
    with self.assertRaisesRegex(UserError, "no room for a letter"):
      made.rendered_text(size=8, scale=2)


def evaluate(system, own, **options):
  build_ = evals.build("vtbench", own, n=12, batch=5, **options)
  return build_(system, {"params": {}}, [], jax.random.key(0))


class TasksTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.own = data.load("fake", size=32, channels=1, num_classes=3)

  def test_identity_loses_nothing(self):
    found = evaluate(build("vtbench", kind="identity"), self.own)
    for task in vtbench.TASKS:
      self.assertEqual(found[f"psnr {task}"], 100.0)
      self.assertAlmostEqual(found[f"ssim {task}"], 1.0)
      self.assertEqual(found[f"perceptual {task}"], 0.0)
      self.assertLess(abs(found[f"frechet {task}"]), 1e-3)
    for name in ("cer", "wer", "wer_vtbench", "cer_gt_originals"):
      self.assertEqual(found[f"{name} text"], 0.0)

  def test_more_loss_is_worse(self):
    rows = [
      evaluate(build("vtbench", kind="resample", factor=f), self.own)
      for f in (2, 4, 8)
    ]
    for task in vtbench.TASKS:
      for name, sign in (("psnr", -1), ("ssim", -1), ("perceptual", 1)):
        values = [sign * row[f"{name} {task}"] for row in rows]
        self.assertEqual(values, sorted(values), (name, task))
    self.assertLess(rows[0]["cer text"], rows[1]["cer text"])

  def test_files_are_scored_as_a_system_is(self):
    made = tempfile.TemporaryDirectory()
    self.addCleanup(made.cleanup)
    folder = pathlib.Path(made.name)
    blur = build("vtbench", kind="resample", factor=2)
    own = evaluate(blur, self.own, write=str(folder / "true"))
    for file in (folder / "true").glob("*/*.png"):
      image = np.asarray(Image.open(file))[None, ..., None] / np.float32(255)
      drawn = blur.sample(
        {"params": {}}, {"image": np.uint8(255 * image)}, None
      )
      small = np.floor(255 * np.asarray(drawn[0, ..., 0]) + 0.5)
      target = folder / "made" / file.parent.name / file.name
      target.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(small.astype(np.uint8)).save(target)
    same = build("vtbench", kind="identity")
    found = evaluate(same, self.own, folder=str(folder / "made"))
    for name in ("psnr images", "ssim text", "cer text"):
      self.assertAlmostEqual(found[name], own[name], places=3)
    (folder / "made/text/0003.png").unlink()
    with self.assertRaisesRegex(UserError, "no .*0003.png"):
      evaluate(same, self.own, folder=str(folder / "made"))

  @parameterized.parameters(
    (dict(tasks=("image",)), "must be of images"),
    (dict(reader="glyf"), "there are glyphs"),
    (dict(features="inception"), "needs path"),
    (dict(lpips_trunk="x.pth"), "LPIPS needs"),
    (dict(metric_size=-1), "at least 0"),
  )
  def test_wrong_options(self, options, message):
    with self.assertRaisesRegex(UserError, message):
      evals.build("vtbench", self.own, **options)


if __name__ == "__main__":
  absltest.main()
