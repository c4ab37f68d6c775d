"""Pictures in motion: functions of the index, whole pixels, nothing lost."""

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core import forms
from ar_jax.core.errors import UserError
from ar_jax.data.images import transforms
from ar_jax.data.video import clips


def _load(**options):
  options = dict(size=16, frames=6, source="fake", length=24) | options
  return data.load("clips", **options)


def _dot(side=3):
  """White on black, and not symmetric."""
  picture = np.zeros((side, side, 1), np.uint8)
  picture[1, 1:] = 255
  return picture


class ClipsTest(parameterized.TestCase):
  def test_the_set_and_its_forms(self):
    found = _load(channels=3, rate=12.0)
    self.assertEqual(found.forms, {"video": forms.Video(12.0)})
    self.assertEqual((len(found.train), len(found.test)), (24, 3))
    self.assertEqual(found.num_classes, 10)
    self.assertLen(found.class_names, 10)
    for part in (found.train, found.test):
      self.assertFalse(hasattr(part, "labels"))  # as `fake` has none
      example = part[2]
      self.assertEqual(sorted(example), ["label", "video"])
      self.assertEqual(example["video"].shape, (6, 16, 16, 3))
      self.assertEqual(example["video"].dtype, np.uint8)
      self.assertEqual(part.label(2), example["label"])
      np.testing.assert_array_equal(example["video"], part[2]["video"])
      with self.assertRaises(IndexError):
        part[len(part)]

  def test_more_clips_than_pictures(self):
    found = data.load("clips", size=16, length=1600)
    self.assertEqual(found.train.label(1501), found.train.label(1))
    self.assertLen(found.train.labels(), 1600)
    one, other = found.train[1]["video"], found.train[1501]["video"]
    self.assertFalse(np.array_equal(one, other))

  def test_training_draws_the_motion_anew(self):
    source = _load().train
    batch = data.batch_at(source, 0, batch=24, seed=0)
    again = data.batch_at(source, 0, batch=24, seed=0)
    later = data.batch_at(source, 1, batch=24, seed=0)
    np.testing.assert_array_equal(batch["video"], again["video"])
    first = lambda b: b["video"][np.argsort(b["label"], kind="stable")][0]
    self.assertFalse(np.array_equal(first(batch), first(later)))

  def test_batch_independence_and_resuming(self):
    augment = transforms.augmentation("flip")
    options = dict(seed=2, augment=augment)
    source = _load(motion="drift+turn").train
    wide = data.batch_at(source, 2, batch=6, **options)
    parts = [data.batch_at(source, s, batch=3, **options) for s in (4, 5)]
    rest = next(data.batches(source, batch=6, start=2, workers=2, **options))
    for name in wide:
      joined = np.concatenate([p[name] for p in parts])
      np.testing.assert_array_equal(wide[name], joined)
      np.testing.assert_array_equal(wide[name], rest[name])

  def test_drift_loses_no_pixel(self):
    rule = clips.Rule(8, 20, ("drift",), 2)
    video = rule.video(_dot(), np.random.default_rng(0)).astype(int)
    self.assertEqual(set(video.sum((1, 2, 3)).tolist()), {2 * 255})
    steps = [(b - a).any() for a, b in zip(video, video[1:], strict=False)]
    self.assertTrue(all(steps))

  def test_bounce_stays_inside(self):
    rule = clips.Rule(7, 40, ("bounce",), 3)
    video = rule.video(_dot(), np.random.default_rng(1))
    self.assertEqual(set(video.astype(int).sum((1, 2, 3)).tolist()), {510})
    places = np.array([np.argwhere(f[..., 0])[0] for f in video])
    self.assertLessEqual(np.abs(np.diff(places, axis=0)).max(), 3)
    self.assertGreater(len({tuple(p) for p in places}), 3)

  def test_turn_begins_as_the_picture_is(self):
    rule = clips.Rule(9, 5, ("turn",), 1)
    picture = np.zeros((9, 9, 3), np.uint8)
    picture[2:5, 3:8] = (200, 100, 50)
    video = rule.video(picture, np.random.default_rng(0))
    np.testing.assert_array_equal(video[0], picture)
    self.assertFalse(np.array_equal(video[1], video[0]))

  def test_around_the_picture_is_its_own_ground(self):
    picture = np.full((3, 3, 1), 255, np.uint8)
    picture[1, 1] = 0
    rule = clips.Rule(8, 2, ("bounce",), 1)
    video = rule.video(picture, np.random.default_rng(0))
    self.assertEqual((video == 0).sum(), 2)
    self.assertEqual((video == 255).sum(), 2 * 64 - 2)

  def test_stills_are_frames(self):
    found = _load(stills=True)
    self.assertEqual(found.forms, {"image": forms.Image()})
    self.assertEqual(found.train[0]["image"].shape, (16, 16, 1))
    frames = {found.train.draw(0, np.random.default_rng(i))["image"].tobytes()
              for i in range(6)}  # fmt: skip
    self.assertGreater(len(frames), 2)

  def test_digest(self):
    seen = [_load(), _load(motion="drift"), _load(speed=2), _load(frames=5)]
    self.assertLen({d.digest for d in seen}, 4)
    self.assertEqual(_load().digest, seen[0].digest)

  @parameterized.parameters(
    (dict(motion="jump"), "motion='jump': must be drift, bounce, turn"),
    (dict(frames=0), "frames=0: must be more than 0"),
    (dict(frames=10**7), "takes more than 500 MB"),
    (dict(sprite=17), "sprite=17: the picture must have 1 to 16"),
    (dict(sprite=16), "cannot bounce"),
    (dict(source="digit"), "did you mean digits"),
    (dict(source="chirps"), "'chirps'"),
    (dict(channels=2), "channels=2"),
    (dict(frame=3), "did you mean frames"),
    (dict(path="/x"), "path: no option of 'fake'"),
  )
  def test_mistakes(self, options, message):
    with self.assertRaisesRegex(UserError, message) as caught:
      _load(**options)
    self.assertNotIn("\n", str(caught.exception))


if __name__ == "__main__":
  absltest.main()
