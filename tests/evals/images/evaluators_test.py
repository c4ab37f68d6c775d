"""The evaluators, on systems whose answers are known."""

import dataclasses
import functools
import json
import os
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from skimage import data as photos
from skimage import metrics

from ar_jax import evals
from ar_jax.core.forms import to_uint8
from ar_jax.core.system import Loss, UserError
from ar_jax.data import array_cache
from ar_jax.evals import samples
from ar_jax.evals.images import pairs, sketch
from ar_jax.evals.images.features import features
from tests.evals import fakes

KEY = jax.random.key(0)


def draw(system, variables, cond, key, *, batch, start=0, options=None):
  """As `ar_jax.step.draw`, written for reading."""
  del batch
  n = len(next(iter(cond.values())))
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, start + jnp.arange(n))
  static = tuple((options or {}).items())
  return {"image": np.asarray(_sample(system, static)(variables, cond, keys))}


@functools.cache
def _sample(system, options):
  return jax.jit(functools.partial(system.sample, **dict(options)))


class EvaluatorCase(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.enterClassContext(
      mock.patch.dict(os.environ, {"AR_JAX_CACHE": cls.folder})
    )
    cls.data = fakes.patterns()

  def run_on(self, system, name, *, batch=12, variables=None, **options):
    evaluate = evals.build(name, self.data, **options)
    if variables is None:
      variables = system.init(KEY, {})
    return evaluate(system, variables, fakes.epoch(self.data, batch), KEY)


class BuildTest(EvaluatorCase):
  def test_unknown_names_and_options(self):
    with self.assertRaisesRegex(UserError, "did you mean 'frechet'"):
      evals.build("frechett", self.data)
    with self.assertRaisesRegex(UserError, "evals.speed.*'bath'"):
      evals.build("speed", self.data, bath=3)


class LikelihoodTest(EvaluatorCase):
  def test_is_the_exact_mean_whatever_the_padding(self):
    images = np.stack([e["image"] for e in self.data.test]).astype(np.float64)
    labels = np.array([e["label"] for e in self.data.test])
    for batch in (5, 32):
      found = self.run_on(fakes.Fake(), "likelihood", batch=batch)
      self.assertAlmostEqual(found["loss"], images.mean(), places=4)
      self.assertAlmostEqual(found["ce/scale_1"], 2 * images.mean(), places=4)
      self.assertEqual(found["examples"], 32)
      self.assertAlmostEqual(found["nll"], 144 * labels.mean(), places=4)
      bits = labels.mean() / np.log(2)
      self.assertAlmostEqual(found["bits_per_unit"], bits, places=5)
      self.assertAlmostEqual(found["bits_per_dim"], bits, places=5)

  def test_repeats_are_a_mean(self):
    once = self.run_on(fakes.Fake(), "likelihood")
    twice = self.run_on(fakes.Fake(), "likelihood", repeats=2)
    self.assertAlmostEqual(once["loss"], twice["loss"])
    self.assertEqual(twice["examples"], 32)

  def test_perplexity_of_the_units_that_count(self):
    class Padded(fakes.Fake):
      makes = ("text",)

      def loss(self, variables, batch, key, *, train):
        units = jnp.asarray(batch["label"], jnp.float32) + 1
        real = jnp.arange(4)[None] < units[:, None]
        nll = jnp.where(real, 0.1 * units[:, None], 0.0)
        return Loss(nll.sum(1) / units, nll=nll, units=units)

    for batch in (5, 32):
      found = self.run_on(Padded(), "likelihood", batch=batch)
      # A unit of a text of n units has 0.1 n nats; n is 1, 2, 3, 4 in turn.
      self.assertAlmostEqual(found["units"], 2.5, places=5)
      self.assertAlmostEqual(found["nll"], 0.1 * 30 / 4, places=5)
      each = 0.1 * 30 / 10
      self.assertAlmostEqual(found["perplexity"], np.exp(each), places=5)
      self.assertAlmostEqual(found["bits_per_unit"], each / np.log(2), places=5)
      self.assertNotIn("bits_per_dim", found)

  def test_needs_examples(self):
    evaluate = evals.build("likelihood", self.data)
    with self.assertRaisesRegex(UserError, "no example"):
      evaluate(fakes.Fake(), {}, [], KEY)


class FrechetTest(EvaluatorCase):
  options = {"features": "pixels", "draw": draw, "batch": 10}

  def test_better_samples_are_nearer_and_none_beats_the_floor(self):
    good = self.run_on(fakes.Fake(noise=0.47), "frechet", **self.options)
    bad = self.run_on(fakes.Fake(noise=0.1), "frechet", **self.options)
    one = self.run_on(
      fakes.Fake(noise=0.47, collapsed=True), "frechet", **self.options
    )
    self.assertEqual(good["features"], "pixels")
    self.assertNotIn("fid", good)
    self.assertLess(good["frechet"], bad["frechet"])
    self.assertLess(good["frechet"], 1.5 * good["frechet_floor"])
    self.assertGreater(good["recall"], one["recall"])
    self.assertEqual(good["frechet_floor"], bad["frechet_floor"])
    self.assertGreater(good["precision_floor"], 0.5)
    self.assertNotIn("fid", good)  # that name belongs to Inception
    self.assertEqual(good["protocol"]["samples"], 32)
    self.assertEqual(good["protocol"]["labels"], "balanced")

  def test_floor_is_test_against_as_many_of_train(self):
    order = np.random.default_rng(0).permutation(96)[:32]
    net = features("pixels", self.data)
    part = lambda source, rows: sketch.sketch(
      net, [np.stack([source[i]["image"] for i in rows])]
    )
    want = sketch.compare(
      part(self.data.test, range(32)), part(self.data.train, order)
    )
    for _ in range(2):  # measured, then from the cache
      found = self.run_on(fakes.Fake(), "frechet", **self.options)
      for key, value in want.items():
        self.assertAlmostEqual(found[f"{key}_floor"], value, places=5)

  def test_cached_reference_is_the_same(self):
    first = self.run_on(fakes.Fake(), "frechet", n=20, **self.options)
    with mock.patch.object(array_cache, "save", side_effect=AssertionError):
      again = self.run_on(fakes.Fake(), "frechet", n=20, **self.options)
    self.assertEqual(first, again)

  def test_draws_as_the_sample_mode_does(self):
    ours = self.run_on(fakes.Fake(), "frechet", n=20, **self.options)
    options = self.options | {"draw": None, "n": 20}
    theirs = self.run_on(fakes.Fake(), "frechet", **options)
    self.assertEqual(ours, theirs)

  def test_batches_do_not_matter(self):
    options = self.options | {"n": 17}
    found = []
    for size in (1000, 7):
      with mock.patch.object(samples, "CHUNK", size):
        found.append(self.run_on(fakes.Fake(), "frechet", **options))
    self.assertAlmostEqual(found[0]["frechet"], found[1]["frechet"], places=5)

  def test_says_when_no_floor_of_equal_size_is_left(self):
    found = self.run_on(fakes.Fake(), "frechet", n=70, **self.options)
    self.assertIn("only 58 real images", found["frechet_floor"])
    with self.assertRaisesRegex(UserError, "reference of 97 images"):
      self.run_on(fakes.Fake(), "frechet", reference=97, **self.options)

  def test_reference_from_a_file(self):
    path = os.path.join(self.folder, "stats.npz")
    images = np.stack([e["image"] for e in self.data.train])
    rows = features("pixels", self.data).embed(images).pooled
    stats = {"mu": rows.mean(0), "sigma": np.cov(rows.T), "arr_0": images}
    np.savez(path, **stats)
    options = self.options | {"reference": path}
    found = self.run_on(fakes.Fake(noise=0.47), "frechet", **options)
    self.assertLess(found["frechet_floor"], found["frechet"] + 1)
    self.assertGreater(found["precision"], 0.5)
    del stats["arr_0"]
    np.savez(path, **stats)
    found = self.run_on(fakes.Fake(noise=0.47), "frechet", **options)
    self.assertIn("holds no images", found["precision"])
    np.savez(path, mu=np.zeros(5), sigma=np.eye(5))
    with self.assertRaisesRegex(UserError, "has 5 features"):
      self.run_on(fakes.Fake(), "frechet", **options)
    np.savez(path, x=np.zeros(5))
    with self.assertRaisesRegex(UserError, "not a readable npz"):
      self.run_on(fakes.Fake(), "frechet", **options)

  def test_without_inception_weights_nothing_is_substituted(self):
    found = self.run_on(fakes.Fake(), "frechet", features="inception")
    self.assertEqual(list(found), ["features", "fid"])
    self.assertIn("unavailable", found["fid"])
    with self.assertRaisesRegex(UserError, "no such file"):
      network = {"path": "/nowhere/pt_inception.pth"}
      evals.build("frechet", self.data, features="inception", network=network)

  def test_bad_input(self):
    with self.assertRaisesRegex(UserError, "n=3: .*more than k=3"):
      evals.build("frechet", self.data, n=3)
    with self.assertRaisesRegex(UserError, "labels='even'"):
      evals.build("frechet", self.data, labels="even")
    broken = lambda *args, **options: {
      "image": np.full((10, 12, 12, 1), np.nan)
    }
    with self.assertRaisesRegex(UserError, "not finite"):
      self.run_on(fakes.Fake(), "frechet", **self.options | {"draw": broken})
    with self.assertRaisesRegex(UserError, r"draws \(8, 8, 1\)"):
      self.run_on(fakes.Fake(side=8), "frechet", **self.options)


class SamplesTest(EvaluatorCase):
  def test_labels(self):
    """What an evaluation asks for, where the data are even or not."""
    options = {"features": "pixels", "draw": draw, "batch": 10}
    protocol = self.run_on(fakes.Fake(), "frechet", **options)["protocol"]
    self.assertEqual(protocol["labels"], "balanced")
    self.assertIn("counts by its size", protocol["score"])
    uneven = dataclasses.replace(
      self.data, train=self.data.train + self.data.train[::4] * 3
    )
    for law, want in (("", "data"), ("uniform", "uniform")):
      evaluate = evals.build("frechet", uneven, labels=law, **options)
      found = evaluate(fakes.Fake(), fakes.Fake().init(KEY, {}), (), KEY)
      self.assertEqual(found["protocol"]["labels"], want)

  def test_floor_of_a_sorted_split_is_that_of_a_random_one(self):
    """The first rows of a split that is sorted by class are one class."""
    data = fakes.patterns(train=400, test=400)
    in_order = sorted(data.test, key=lambda e: e["label"])
    net = features("pixels", data)
    floors = [
      sketch.reference(net, dataclasses.replace(data, test=test), 80, 80, 3)[1]
      for test in (data.test, in_order)
    ]
    first = np.stack([e["image"] for e in in_order[:80]])
    train = np.stack([e["image"] for e in data.train[:80]])
    wrong = sketch.compare(
      sketch.sketch(net, [first]), sketch.sketch(net, [train])
    )
    a, b = (floor["frechet"] for floor in floors)
    for floor in (a, b):  # of two random choices
      self.assertLess(2 * floor, wrong["frechet"])

  def test_rounding(self):
    x = np.array([-1, 0, 0.49 / 255, 0.5 / 255, 1, 2])
    self.assertEqual(to_uint8(x).tolist(), [0, 0, 0, 1, 255, 255])


class JudgeAccuracyTest(EvaluatorCase):
  def test_tells_who_shows_the_class(self):
    options = {"draw": draw, "n": 40, "steps": 40}
    found = self.run_on(fakes.Fake(noise=0.47), "judge_accuracy", **options)
    self.assertGreater(found["judge_accuracy"], 0.9)
    self.assertGreater(found["judge_test_accuracy"], 0.9)
    one = self.run_on(
      fakes.Fake(noise=0.47, collapsed=True), "judge_accuracy", **options
    )
    self.assertLess(one["judge_accuracy"], 0.4)
    self.assertGreater(one["judge_accuracy_per_class"]["bar0"], 0.9)
    self.assertLess(one["judge_accuracy_per_class"]["bar1"], 0.1)
    with self.assertRaisesRegex(UserError, "n=3"):
      evals.build("judge_accuracy", self.data, n=3)


class SpeedTest(EvaluatorCase):
  def test_counts_and_times(self):
    found = self.run_on(fakes.Fake(), "speed", batch=4, options={"dark": True})
    self.assertEqual(found["traces"], 1)
    self.assertGreater(found["images_per_second"], 0)
    self.assertGreater(found["compile_seconds"], 0)
    with self.assertRaisesRegex(UserError, "repeats=0"):
      evals.build("speed", self.data, repeats=0)


class ReconstructionTest(EvaluatorCase):
  def test_finer_tokenizers_lose_less(self):
    coarse, fine = (
      self.run_on(fakes.Coarse(levels=n), "reconstruction", features="pixels")
      for n in (4, 64)
    )
    for better in ("psnr", "psnr_pooled", "ssim"):
      self.assertGreater(fine[better], coarse[better])
    self.assertLess(fine["frechet"], coarse["frechet"])
    self.assertIn("frechet_floor", fine)
    self.assertNotIn("rfid", fine)
    self.assertEqual(coarse["protocol"]["images"], 32)
    codes = np.concatenate([e["image"].ravel() // 64 for e in self.data.test])
    p = np.bincount(codes, minlength=4) / len(codes)
    self.assertEqual(coarse["codebook_usage"], (p > 0).mean())
    entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
    self.assertAlmostEqual(coarse["codebook_perplexity"], np.exp(entropy))

  def test_without_inception_weights_the_rest_remains(self):
    found = self.run_on(fakes.Coarse(), "reconstruction", features="inception")
    self.assertIn("unavailable", found["rfid"])
    self.assertGreater(found["psnr"], 20)

  @parameterized.parameters(1, 3)
  def test_equals_scikit_image(self, channels):
    x = photos.chelsea()[:50, :37, :channels]
    noise = np.random.default_rng(0).normal(scale=20, size=x.shape)
    y = np.clip(x + noise, 0, 255).astype(np.uint8)
    np.testing.assert_allclose(
      pairs.psnr(x[None], y[None])[0],
      metrics.peak_signal_noise_ratio(x, y),
      rtol=1e-9,
    )
    want = metrics.structural_similarity(
      x, y, channel_axis=-1, gaussian_weights=True, sigma=1.5,
      use_sample_covariance=False,
    )  # fmt: skip
    got = pairs.ssim(x[None], y[None])[0]
    np.testing.assert_allclose(got, want, atol=1e-6)
    self.assertEqual(pairs.ssim(x[None], x[None])[0], 1)

  def test_an_exact_image_does_not_make_the_mean_infinite(self):
    x = np.zeros((2, 16, 16, 1), np.uint8)
    y = x.copy()
    y[1] = 2
    found = pairs.psnr(x, y)
    self.assertEqual(found[0], 100)
    self.assertAlmostEqual(found[1], 20 * np.log10(255 / 2))
    results = self.run_on(
      fakes.Coarse(levels=256, exact=True), "reconstruction", features=""
    )
    self.assertEqual((results["psnr"], results["psnr_pooled"]), (100, 100))
    json.dumps(results, allow_nan=False)

  def test_small_images_have_no_ssim(self):
    small = np.zeros((1, 8, 8, 1), np.uint8)
    with self.assertRaisesRegex(UserError, "at least 11 pixels"):
      pairs.ssim(small, small)


if __name__ == "__main__":
  absltest.main()
