"""Pictures, masks and folders as people have them: each is read right, or a
line says what is wrong with it; and one line says what was left out."""

import json
import logging
import os
import tempfile
import warnings
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core.errors import UserError
from ar_jax.data import notes
from ar_jax.data.images import reader, scan, transforms
from tests.data.images.hostile_folders import FOLDERS, put
from tests.data.images.hostile_pictures import MASKS, PICTURES


class Case(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = self.enterContext(tempfile.TemporaryDirectory())
    notes._told.clear()
    self.lines = []
    handler = logging.Handler()
    handler.emit = lambda record: self.lines.append(record.getMessage())
    log = logging.getLogger("ar_jax")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    self.addCleanup(log.removeHandler, handler)
    self.addCleanup(log.setLevel, level)

  def refused(self, pattern, function, *args, **options):
    with self.assertRaisesRegex(UserError, pattern) as caught:
      function(*args, **options)
    self.assertNotIn("\n", str(caught.exception))

  def log_of(self):
    for line in self.lines:
      self.assertNotIn("\n", line)
    return " | ".join(self.lines)


class PicturesTest(Case):
  @parameterized.named_parameters(*((k, k, *v) for k, v in PICTURES.items()))
  def test_read(self, name, make, want, line=""):
    place = os.path.join(self.root, "mine")
    os.mkdir(place)
    make(place)
    file = os.path.join(place, os.listdir(place)[0])
    load = lambda channels=3: data.load(
      "folder", size=32, channels=channels, path=self.root, classes=1
    )
    another = os.path.join(self.root, "ok.png")
    other = np.full((32, 32, 3), (3, 200, 77), np.uint8)
    reader.Image.fromarray(other).save(another)
    with warnings.catch_warnings():
      warnings.simplefilter("error")
      if isinstance(want, str):
        why = reader.look(file, whole=False)[0]
        if name not in ("png_flipped_bit",):  # seen when it is decoded
          self.assertRegex(why, want)
        # As a picture for training, all at once, and as one to be edited.
        self.refused(rf"mine/.* \(.*{want}", load)
        if os.path.basename(file) == "x.jpg" and "ordinary" in want:
          return  # opening a pipe waits for somebody to write into it
        self.refused(rf"{file}: cannot be read", reader.open_image, file, 3)
        return
      dataset = load()
      found = [
        part[i]["image"]
        for part in (dataset.train, dataset.test)
        for i in range(len(part))
      ]
      self.assertLen(found, 2)
      right, off = want
      distance = lambda x, y: np.abs(x.astype(float) - y).max()
      (image,) = (x for x in found if (x != other).any())
      self.assertLessEqual(distance(image, right), off)
      # The same in grey, and as an image to be edited.
      edited = reader.open_image(file, 3)
      np.testing.assert_array_equal(transforms.center_crop(edited, 32), image)
      grey = np.asarray(reader.open_image(file, 1).convert("RGB"))
      luma = np.asarray(edited.convert("L").convert("RGB"))
      self.assertLessEqual(distance(grey, luma), 2)
    self.assertRegex(self.log_of(), line or "^folder: 1 . 1 pictures, 1 class")
    if not line:
      self.assertLen(self.lines, 1)

  @parameterized.named_parameters(*((k, *v) for k, v in MASKS.items()))
  def test_mask(self, make, want):
    make(self.root)
    file = os.path.join(self.root, os.listdir(self.root)[0])
    if isinstance(want, str):
      return self.refused(want, reader.open_mask, file)
    np.testing.assert_array_equal(reader.open_mask(file), want)
    self.assertRegex(self.log_of(), "keeps 30% of the image, what is white")

  def test_large_pictures_are_padded_when_they_fit(self):
    picture = np.zeros((60, 40, 3), np.uint8)
    picture[..., 0] = 200
    for i in range(2):
      file = os.path.join(self.root, f"{i}.png")
      reader.Image.fromarray(picture).save(file)
    found = data.load(
      "folder", size=30, path=self.root, classes=1, crop="pad"
    ).train[0]["image"]
    self.assertTrue((found[:, 5:25, 0] == 200).all())
    self.assertFalse(found[:, :5].any() or found[:, 25:].any())


class FoldersTest(Case):
  @parameterized.named_parameters(*((k, *v) for k, v in FOLDERS.items()))
  def test_folder(self, make, options, want, line=""):
    make(self.root)
    load = lambda: data.load("folder", size=16, path=self.root, **options)
    if isinstance(want, str):
      return self.refused(want, load)
    train, test, classes = want
    dataset = load()
    self.assertEqual((len(dataset.train), len(dataset.test)), (train, test))
    if classes == 1:
      self.assertEqual(dataset.num_classes, 1)
    else:
      self.assertEqual(dataset.class_names, classes)
    json.dumps(dataset.class_names).encode()
    seen = set()
    for part in (dataset.train, dataset.test):
      for i in range(len(part)):
        self.assertBetween(part[i]["label"], 0, dataset.num_classes - 1)
      pixels = {part[i]["image"].tobytes() for i in range(len(part))}
      if "caf\ufffd" not in dataset.class_names:  # made of copies
        self.assertEmpty(seen & pixels)
      seen |= pixels
    self.assertLen(self.lines, 1)
    self.assertRegex(self.lines[0], r"^folder: \d+ . \d+ pictures, \d+ class")
    self.assertRegex(self.log_of(), line)
    load()
    self.assertLen(self.lines, 1)  # said once

  def test_of_very_many_it_is_remembered_that_they_are_good(self):
    cache = self.enterContext(tempfile.TemporaryDirectory())
    self.enterContext(mock.patch.dict(os.environ, {"AR_JAX_CACHE": cache}))
    self.enterContext(mock.patch.object(scan, "_MANY", 5))
    put("cats", "dogs", n=4)(self.root)
    load = lambda: data.load("folder", size=32, path=self.root)
    looked = self.enterContext(
      mock.patch.object(scan.reader, "look", wraps=reader.look)
    )
    load()
    self.assertEqual(looked.call_count, 8)
    found = load()
    self.assertEqual(looked.call_count, 8)
    self.assertEqual((len(found.train), len(found.test)), (7, 1))
    self.assertRegex(self.log_of(), "8 smaller than 32 pixels are enlarged")
    with open(f"{self.root}/cats/0.png", "w") as f:
      f.write("x")
    self.refused("cats/0.png .unknown format", load)

  def test_the_table_is_long_enough(self):
    self.assertGreater(len(PICTURES) + len(MASKS) + len(FOLDERS), 60)


if __name__ == "__main__":
  absltest.main()
