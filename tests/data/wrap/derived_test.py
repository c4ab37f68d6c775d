"""Fields made of others: pure functions of the position, and moved alike."""

import dataclasses

import numpy as np
from absl.testing import absltest, parameterized
from skimage import feature

from ar_jax import data
from ar_jax.core import forms
from ar_jax.core.errors import UserError
from ar_jax.data.images import transforms
from ar_jax.data.wrap import derived, edges


def _load(**options):
  return data.load("fake", size=16, channels=1, length=20, **options)


def _noise(example, rng):
  return {"noise": rng.integers(1000, size=4)}


def _noisy(**options):
  """A set with edges and a rule that draws."""
  found = _load(**options)
  rules = [edges.edges(), derived.Rule(_noise, {})]
  train = derived.Derived(found.train, rules)
  return dataclasses.replace(found, train=train)


class DerivedTest(parameterized.TestCase):
  def assert_same(self, a, b):
    self.assertEqual(sorted(a), sorted(b))
    for name in a:
      np.testing.assert_array_equal(a[name], b[name], err_msg=name)

  def test_load_adds_fields_forms_and_a_digest(self):
    plain = _load()
    found = _load(derive={"edges": {"kind": "canny", "sigma": None}})
    for part in (found.train, found.test):
      self.assertEqual(part[1]["edges"].shape, (16, 16, 1))
      self.assertEqual(part.label(1), 1)
    self.assertEqual(set(found.forms), {"image", "edges"})
    self.assertEqual(found.forms["edges"], forms.Image())
    other = _load(derive={"edges": {}})
    self.assertLen({plain.digest, found.digest, other.digest}, 3)

  def test_a_rule_is_a_function_of_the_position(self):
    source = _noisy().train
    self.assert_same(source[3], source[3])
    self.assertFalse(np.array_equal(source[3]["noise"], source[4]["noise"]))
    options = dict(seed=1, augment=transforms.augmentation("flip", "shift"))
    wide = data.batch_at(source, 2, batch=6, **options)
    parts = [data.batch_at(source, s, batch=3, **options) for s in (4, 5)]
    joined = {k: np.concatenate([p[k] for p in parts]) for k in wide}
    self.assert_same(wide, joined)
    rest = data.batches(source, batch=6, start=2, workers=3, **options)
    self.assert_same(wide, next(rest))

  def test_a_rule_changes_nothing_of_the_rest(self):
    options = dict(seed=1, augment=transforms.augmentation("flip", "shift"))
    plain = data.batch_at(_load().train, 3, batch=6, **options)
    both = data.batch_at(_noisy().train, 3, batch=6, **options)
    self.assert_same(plain, {k: both[k] for k in plain})

  def test_what_is_made_of_an_image_moves_with_it(self):
    """Flipped edges are the edges of the flipped image."""
    source = _load(derive={"edges": {}}).train
    flip = transforms.augmentation("flip")
    batch = data.batch_at(source, 0, batch=16, seed=0, augment=flip)
    plain = data.batch_at(source, 0, batch=16, seed=0)
    self.assertFalse(np.array_equal(batch["image"], plain["image"]))
    for image, found in zip(batch["image"], batch["edges"], strict=True):
      again = edges.edges().make({"image": image}, None)["edges"]
      # The order of a sum may move a value that lies between two.
      np.testing.assert_allclose(
        found.astype(int), again.astype(int), atol=1.01
      )

  def test_mistakes(self):
    for rules, message in (
      ({"edgs": {}}, "derive.edgs: no such rule; did you mean edges"),
      ({"edges": {"kynd": 1}}, "edges.kynd: no option .*did you mean kind"),
      ({"edges": {"kind": "x"}}, "choose one of sobel, canny"),
      ({"edges": {"low": 0.5}}, "must be 0 <= low <= high"),
      ({"edges": {"threshold": 0}}, "threshold=0: is of kind='sobel'"),
      ({"edges": {"kind": "canny", "threshold": 0.1}}, "of kind='sobel'"),
      ({"edges": {"field": "video"}}, "reads 'video', these examples have"),
      ({"edges": {"field": "label"}}, "int32 of shape .* not the pixels"),
    ):
      with self.subTest(message):
        with self.assertRaisesRegex(UserError, message) as caught:
          _load(derive=rules)
        self.assertNotIn("\n", str(caught.exception))


class EdgesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.square = np.zeros((24, 32, 1), np.uint8)
    self.square[8:16, 10:22] = 255

  def test_sobel_has_its_bounds(self):
    make = edges.edges().make
    found = make({"image": self.square}, None)["edges"]
    self.assertEqual(found.dtype, np.uint8)
    self.assertEqual(found[12, 10, 0], round(255 / np.sqrt(2)))
    self.assertEqual(found[12, 15, 0], 0)
    flat = np.full((5, 7, 3), 90, np.uint8)
    self.assertFalse(make({"image": flat}, None)["edges"].any())

  def test_a_threshold_leaves_black_and_white(self):
    graded = edges.edges().make({"image": self.square}, None)["edges"]
    found = edges.edges(threshold=0.5).make({"image": self.square}, None)
    found = found["edges"]
    np.testing.assert_array_equal(found, np.where(graded >= 128, 255, 0))
    self.assertTrue(found.any())

  def test_canny_draws_one_thin_closed_line(self):
    found = edges.edges(kind="canny").make({"image": self.square}, None)
    found = found["edges"][..., 0] > 0
    self.assertEqual(found[12].sum(), 2)
    self.assertEqual(found[:, 15].sum(), 2)
    self.assertFalse(found[:6].any() or found[18:].any())

  def test_canny_finds_what_scikit_image_finds(self):
    """Which takes the peak between pixels: they differ by one at most."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(256, size=(6, 6, 1)).astype(np.uint8)
    grey = edges.luminance(transforms.resize(coarse, 48, 1))
    ours = edges.canny(grey, 1.5, 0.02, 0.05)
    # Its gradients are four times ours.
    theirs = feature.canny(
      grey, 1.5, low_threshold=0.02, high_threshold=0.05, mode="nearest"
    )
    near = lambda x: np.pad(x, 1)[
      np.arange(3)[:, None, None, None] + np.arange(48)[:, None],
      np.arange(3)[:, None, None] + np.arange(48),
    ].any((0, 1))
    self.assertGreater(theirs.sum(), 50)
    self.assertGreater((near(ours) & theirs).sum() / theirs.sum(), 0.9)
    self.assertGreater((near(theirs) & ours).sum() / ours.sum(), 0.9)


if __name__ == "__main__":
  absltest.main()
