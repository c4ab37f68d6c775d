"""Images with a truth, and distances of fields that are no images."""

import dataclasses
import os
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import evals
from ar_jax.core.forms import Image, Series, Text, Video
from ar_jax.core.system import Loss, System, UserError
from ar_jax.data import Dataset
from ar_jax.evals.images.features import features

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Given(System):
  """What it makes is `draw`'s business."""

  needs: tuple = ("low",)
  makes: tuple = ("image",)

  def init(self, key, batch):
    return {}

  def loss(self, variables, batch, key, *, train):
    return Loss(np.zeros(1))

  def sample(self, variables, cond, keys):
    raise NotImplementedError


def drawn(field, change):
  """A `draw` that makes `field` of each row of the condition and its number."""

  def draw(system, variables, cond, key, *, batch, start=0, options=None):
    rows = next(iter(cond.values()))
    return {field: np.stack([change(x, start + i) for i, x in enumerate(rows)])}

  return draw


class PairsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(24):
      image = rng.integers(40, 200, (12, 12, 1)).astype(np.uint8)
      keep = np.zeros((12, 12), np.float32)
      keep[:, :4] = 1
      rows.append({"image": image, "low": image - 10, "keep": keep})
    forms = {"image": Image(), "low": Image()}
    self.data = Dataset("blurred", rows, rows, forms=forms)

  def evaluate(self, change, system=None, **options):
    options = {"draw": drawn("image", change), "batch": 10, **options}
    evaluate = evals.build("pairs", self.data, **options)
    return evaluate(system or Given(), {}, [], KEY)

  def test_exact(self):
    found = self.evaluate(lambda low, i: (low + 10) / 255.0, mask="keep")
    self.assertEqual((found["psnr"], found["psnr_pooled"]), (100.0, 100.0))
    self.assertAlmostEqual(found["ssim"], 1.0)
    self.assertEqual((found["l1"], found["l1_masked"]), (0.0, 0.0))
    self.assertBetween(found["psnr_baseline"], 5, 20)  # of the mean image

  def test_known_errors(self):
    def change(low, i):
      image = low.astype(np.float64) + 10
      image[:, 4:] += 20  # eight of twelve columns, outside of `keep`
      return image / 255

    found = self.evaluate(change, mask="keep", baseline="low")
    self.assertAlmostEqual(found["l1"], 20 / 255 * 8 / 12)
    self.assertEqual(found["l1_masked"], 0.0)
    self.assertAlmostEqual(found["l1_unmasked"], 20 / 255)
    want = 10 * np.log10(255**2 / (400 * 8 / 12))
    self.assertAlmostEqual(found["psnr"], want)
    self.assertAlmostEqual(found["psnr_pooled"], want)
    base = 10 * np.log10(255**2 / 100)
    self.assertAlmostEqual(found["psnr_baseline"], base)
    self.assertAlmostEqual(found["l1_baseline"], 10 / 255)
    self.assertEqual(found["protocol"]["baseline"], "low")

  def test_refusals(self):
    same = lambda low, i: low / 255.0
    with self.assertRaisesRegex(UserError, "reads label and no example"):
      self.evaluate(same, Given(needs=("label",)))
    with self.assertRaisesRegex(UserError, "scores the field 'image'.*text"):
      self.evaluate(same, Given(makes=("text",)))
    with self.assertRaisesRegex(UserError, "field='keep' is no image"):
      self.evaluate(same, field="keep")
    with self.assertRaisesRegex(UserError, "truth of a sample is.*mask"):
      self.evaluate(same, mask="mask")
    with self.assertRaisesRegex(UserError, r"draws \(6, 12, 1\)"):
      self.evaluate(lambda low, i: low[::2] / 255.0)


def movies(n, seed, speed=1):
  """u8[6, 8, 8, 1] each: a bright column that moves by `speed`."""
  rng = np.random.default_rng(seed)
  start = rng.integers(8, size=n)
  place = (start[:, None] + speed * np.arange(6)) % 8
  frames = (np.arange(8) == place[..., None])[:, :, None, :, None] * 200
  noise = rng.integers(20, size=(n, 6, 8, 8, 1))
  return (frames + noise).astype(np.uint8)


class FieldsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.enterContext(mock.patch.dict(os.environ, {"AR_JAX_CACHE": folder}))

  def distance(self, data, field, x, **options):
    evaluate = evals.build(
      "frechet", data, field=field,
      draw=drawn(field, lambda _, i: x[i]), **options,
    )  # fmt: skip
    system = Given(needs=(), makes=(field,))
    return evaluate(system, {}, [], KEY)

  def test_videos_that_look_right_and_move_wrong(self):
    source = lambda x: [{"video": v} for v in x]
    train, test = movies(60, 0), movies(40, 1)
    data = Dataset("m", source(train), source(test), forms={"video": Video()})
    right = movies(40, 2) / 255.0
    wrong = movies(40, 2, speed=3) / 255.0
    look = [self.distance(data, "video", x) for x in (right, wrong)]
    move = [
      self.distance(data, "video", x, features="differences")
      for x in (right, wrong)
    ]
    self.assertEqual(look[0]["features"], "frames")
    for found in look:
      self.assertLess(found["frechet"], 3 * found["frechet_floor"])
    self.assertLess(move[0]["frechet"], 3 * move[0]["frechet_floor"])
    self.assertGreater(move[1]["frechet"], 10 * move[1]["frechet_floor"])
    with self.assertRaisesRegex(UserError, "'judge': sees images"):
      features("judge", data, "video")

  def test_a_set_and_itself(self):
    x = np.random.default_rng(0).normal(size=(50, 5, 2)).astype(np.float32)
    rows = [{"series": v} for v in x]
    data = Dataset("s", rows, rows, forms={"series": Series()})
    order = np.random.default_rng(0).permutation(50)
    found = self.distance(data, "series", x[order], n=50)
    self.assertEqual(found["features"], "values")
    self.assertAlmostEqual(found["frechet"], 0.0, places=4)
    self.assertEqual((found["precision"], found["recall"]), (1.0, 1.0))
    with self.assertRaisesRegex(UserError, r"draws \(4, 2\)"):
      self.distance(data, "series", x[:, 1:])

  def test_a_single_time_has_no_changes(self):
    rows = [{"video": x[:1]} for x in movies(9, 0)]
    data = Dataset("m", rows, rows, forms={"video": Video()})
    with self.assertRaisesRegex(UserError, "have a single time"):
      features("differences", data, "video")

  def test_text_and_missing_fields(self):
    rows = [{"text": np.zeros(3, np.int32)}] * 9
    data = Dataset("t", rows, rows, forms={"text": Text()})
    with self.assertRaisesRegex(UserError, "compared by evals.ngrams"):
      evals.build("frechet", data, field="text")
    with self.assertRaisesRegex(UserError, "field='image' is not in 't'"):
      evals.build("frechet", data)
    with self.assertRaisesRegex(UserError, "these are of video"):
      features("frames", data, "image")


if __name__ == "__main__":
  absltest.main()
