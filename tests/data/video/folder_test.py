"""Folders of clips as people have them: read right, or refused in a line."""

import logging
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from ar_jax import data
from ar_jax.core import forms
from ar_jax.core.errors import UserError
from ar_jax.data import notes
from ar_jax.data.video import folder


def _frames(place, count=5, size=(10, 10), first=0, name="frame{}.png"):
  """Frame t is of the grey 40 + first + t."""
  place.mkdir(parents=True, exist_ok=True)
  for t in range(count):
    Image.new("L", size, 40 + first + t).save(place / name.format(t))


def _gif(path, count=5, first=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  made = [Image.new("L", (10, 10), 40 + first + 20 * t) for t in range(count)]
  made[0].save(path, save_all=True, append_images=made[1:])


def _ages(video):
  return (video[:, 0, 0, 0].astype(int) - 40).tolist()


class FolderTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    notes._told.clear()

  def load(self, **options):
    options = dict(size=8, channels=1, frames=3) | options
    return data.load("video_folder", path=str(self.root), **options)

  def log_of(self, **options):
    with self.assertLogs(logging.getLogger("ar_jax"), "INFO") as logs:
      found = self.load(**options)
    self.assertLen(logs.records, 1)
    line = logs.records[0].getMessage()
    self.assertNotIn("\n", line)
    return line, found

  def refused(self, message, **options):
    with self.assertRaisesRegex(UserError, message) as caught:
      self.load(**options)
    self.assertNotIn("\n", str(caught.exception))

  def test_classes_of_frames_and_gifs(self):
    for k, name in enumerate(("jump", "walk")):
      for i in range(2):
        _frames(self.root / name / f"clip{i}", first=100 * k + 10 * i)
      _gif(self.root / name / "b.gif", first=100 * k)
    (self.root / "notes.txt").write_text("x")
    line, found = self.log_of()
    self.assertRegex(line, r"video_folder: 5 \+ 1 clips, 2 classes: jump, walk")
    self.assertIn("skipped 1 .txt", line)
    self.assertEqual(found.class_names, ("jump", "walk"))
    self.assertEqual(found.forms, {"video": forms.Video(8.0)})
    for part in (found.train, found.test):
      for i in range(len(part)):
        example = part[i]
        self.assertEqual(example["video"].shape, (3, 8, 8, 1))
        self.assertEqual(example["video"].dtype, np.uint8)
        self.assertEqual(example["video"].max() >= 140, example["label"] == 1)
        ages = _ages(example["video"])
        self.assertIn(np.diff(ages).tolist(), ([1, 1], [20, 20]))
        np.testing.assert_array_equal(example["video"], part[i]["video"])

  def test_numbers_are_in_the_order_of_their_values(self):
    for clip in ("a", "b"):
      _frames(self.root / clip, 12)
    self.assertEqual(
      _ages(self.load(frames=12).train[0]["video"]), [*range(12)]
    )
    names = ["a10b2", "a2", "a10b1", "b", "a02"]
    want = ["a02", "a2", "a10b1", "a10b2", "b"]
    self.assertEqual(sorted(names, key=folder.natural), want)

  def test_windows(self):
    for clip in ("a", "b"):
      _frames(self.root / clip, 10)
    line, found = self.log_of(stride=2)
    self.assertIn("1 + 1 clips, 1 class", line)
    self.assertEqual(_ages(found.train[0]["video"]), [2, 4, 6])
    rng = np.random.default_rng(0)
    drawn = {tuple(_ages(found.train.draw(0, rng)["video"])) for _ in range(60)}
    self.assertEqual(drawn, {(s, s + 2, s + 4) for s in range(6)})
    batch = data.batch_at(found.train, 3, batch=4, seed=0)
    rest = next(data.batches(found.train, batch=4, seed=0, start=3))
    np.testing.assert_array_equal(batch["video"], rest["video"])

  def test_stills_are_frames(self):
    _frames(self.root / "a", 9)
    _gif(self.root / "b.gif", 9)
    _frames(self.root / "short", 2)
    found = self.load(stills=True, test_fraction=0.5)
    self.assertEqual(found.forms, {"image": forms.Image()})
    self.assertEqual(len(found.train) + len(found.test), 2)
    for part in (found.train, found.test):
      self.assertEqual(sorted(part[0]), ["image", "label"])
      self.assertEqual(part[0]["image"].shape, (8, 8, 1))
      rng = np.random.default_rng(0)
      drawn = {int(part.draw(0, rng)["image"][0, 0, 0]) for _ in range(90)}
      self.assertLen(drawn, 9)

  def test_train_and_test_folders(self):
    for part, n in (("train", 3), ("val", 2)):
      for name in ("x", "y"):
        for i in range(n):
          _frames(self.root / part / name / str(i), first=10 * n)
    found = self.load()
    self.assertEqual((len(found.train), len(found.test)), (6, 4))
    self.assertEqual(_ages(found.test[0]["video"]), [21, 22, 23])

  def test_train_and_test_without_classes(self):
    for part in ("train", "test"):
      for i in range(2):
        _frames(self.root / part / str(i))
    found = self.load()
    self.assertEqual((len(found.train), len(found.test)), (2, 2))
    self.assertEqual(found.num_classes, 1)

  def test_short_clips_are_left_out_and_said(self):
    for i in range(3):
      _frames(self.root / "x" / f"long{i}")
      _frames(self.root / "y" / f"long{i}")
    _frames(self.root / "x" / "one", 1)
    _gif(self.root / "y" / "two.gif", 2)
    line, found = self.log_of()
    self.assertIn("2 with fewer than 3 frames left out: x/one, y/two.gif", line)
    self.assertEqual(len(found.train) + len(found.test), 6)
    self.refused("longest of 8 clips has 5 frames, fewer than the 9", frames=9)

  def test_a_class_of_nothing_but_short_clips_is_refused(self):
    _frames(self.root / "x" / "a")
    _frames(self.root / "x" / "b")
    _frames(self.root / "y" / "one", 1)
    self.refused("no clip of y can be read")

  def test_frames_of_several_sizes(self):
    for i in range(3):
      _frames(self.root / f"a{i}")
    Image.new("L", (10, 12)).save(self.root / "a1" / "frame9.png")
    self.refused(r"1 clips cannot be read: a1 \(frames of 2 sizes\).*skip_bad")
    line, found = self.log_of(skip_bad=True)
    self.assertIn("a1 (frames of 2 sizes)", line)
    self.assertEqual(len(found.train) + len(found.test), 2)

  def test_damaged_frames_and_gifs(self):
    for i in range(3):
      _frames(self.root / f"a{i}")
      _gif(self.root / f"g{i}.gif")
    (self.root / "a0" / "frame2.png").write_bytes(b"\x89PNG")
    self.refused(r"of 15 pictures 1 cannot be read: a0/frame2.png")
    (self.root / "g0.gif").write_bytes(b"")
    whole = (self.root / "g1.gif").read_bytes()
    (self.root / "g1.gif").write_bytes(whole[: len(whole) * 2 // 3])
    (self.root / "g2.gif").write_bytes(b"GIF89a nonsense")
    line, found = self.log_of(skip_bad=True)
    self.assertIn("3 cannot be read: g0.gif (an empty file), g1.gif", line)
    self.assertEqual(len(found.train) + len(found.test), 2)
    (self.root / "a0" / "frame2.png").unlink()
    self.refused("3 clips cannot be read: g0.gif")

  def test_damage_after_the_start_is_named(self):
    _gif(self.root / "a.gif")
    _gif(self.root / "b.gif")
    found = self.load()
    for name in "ab":
      (self.root / f"{name}.gif").write_bytes(b"GIF89a")
    with self.assertRaisesRegex(UserError, r"\w.gif: cannot be read as a clip"):
      found.train[0]

  def test_pictures_beside_clips_are_no_clip(self):
    for i in range(3):
      _frames(self.root / "x" / str(i))
      _frames(self.root / "y" / str(i))
    Image.new("L", (9, 9)).save(self.root / "x" / "cover.png")
    line, found = self.log_of()
    self.assertIn("1 pictures beside clips left out", line)
    self.assertEqual(len(found.train) + len(found.test), 6)

  def test_a_changed_frame_is_another_digest(self):
    for clip in ("a", "b"):
      _frames(self.root / clip)
    before = self.load().digest
    self.assertEqual(self.load().digest, before)
    Image.new("L", (10, 10), 77).save(self.root / "a" / "frame0.png")
    self.assertNotEqual(self.load().digest, before)

  def test_mistakes(self):
    self.refused(r"no clips in class.*folders of .png, .jpg, .gif")
    (self.root / "film.mp4").write_bytes(b"x")
    self.refused("no clips .*there are 1 .mp4")
    _frames(self.root / "a")
    self.refused("one clip cannot be split")
    self.refused("stride=0: must be more than 0", stride=0)
    self.refused("test_fraction=1", test_fraction=1)
    self.refused("for clips without classes set classes=1", classes=3)
    with self.assertRaisesRegex(UserError, "no such folder"):
      data.load("video_folder", size=8, path="/no/such")


if __name__ == "__main__":
  absltest.main()
