"""TFDS, written and read back without TensorFlow."""

import importlib.util
import io
import pathlib
import sys
import tempfile

import numpy as np
import tensorflow_datasets as tfds
from absl.testing import absltest
from PIL import Image

from ar_jax import data
from ar_jax.core.system import UserError


class TinyPictures(tfds.core.GeneratorBasedBuilder):
  """Grey pictures whose value is 20 times their number."""

  VERSION = tfds.core.Version("1.0.0")
  KEY = "image"

  def _info(self):
    features = {"label": tfds.features.ClassLabel(names=("even", "odd"))}
    if self.KEY:
      features[self.KEY] = tfds.features.Image(shape=(None, None, 3))
    features = tfds.features.FeaturesDict(features)
    return tfds.core.DatasetInfo(builder=self, features=features)

  def _split_generators(self, dl_manager):
    return {
      "train": self._generate_examples(8),
      "test": self._generate_examples(4),
      "unlabelled": self._generate_examples(2, labelled=False),
    }

  def _generate_examples(self, n, labelled=True):
    for i in range(n):
      example = {"label": i % 2 if labelled else -1}
      if self.KEY:
        encoded = io.BytesIO()
        picture = np.full((10 + i, 12, 3), 20 * i, np.uint8)
        Image.fromarray(picture).save(encoded, "PNG")
        example[self.KEY] = io.BytesIO(encoded.getvalue())
      yield i, example


class NoPictures(TinyPictures):
  KEY = ""


def _prepare(builder, path):
  builder(data_dir=path, file_format="array_record").download_and_prepare()


class PreparedTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.path = cls.enterClassContext(tempfile.TemporaryDirectory())
    _prepare(TinyPictures, cls.path)

  def load(self, name="tiny_pictures", **options):
    return data.load(name, size=8, path=self.path, **options)

  def test_round_trip(self):
    tiny = self.load()
    self.assertEqual((len(tiny.train), len(tiny.test)), (8, 4))
    self.assertEqual(tiny.class_names, ("even", "odd"))
    b = next(data.batches(tiny.train, batch=8, seed=0, workers=2))
    self.assertEqual(b["image"].shape, (8, 8, 8, 3))
    number = b["image"][:, 0, 0, 0] // 20
    np.testing.assert_array_equal(np.sort(number), range(8))
    np.testing.assert_array_equal(b["label"], number % 2)

  def test_tensorflow_is_not_needed(self):
    self.load("tfds:tiny_pictures", crop="random", channels=1)
    if importlib.util.find_spec("tensorflow") is None:
      self.assertNotIn("tensorflow", sys.modules)

  def test_parts_of_splits(self):
    tiny = self.load(train_split="train[:75%]", test_split="train[75%:]")
    self.assertEqual((len(tiny.train), len(tiny.test)), (6, 2))

  def fails(self, message, *args, **options):
    with self.assertRaisesRegex(UserError, message) as caught:
      self.load(*args, **options)
    self.assertNotIn("\n", str(caught.exception))

  def test_errors(self):
    self.fails("not prepared in .*tfds build cifar10", "cifar10")
    self.fails("apt-get install", "fashion_mnist")
    self.fails("no such set", "tfds:xyzzy")
    self.fails("did you mean tiny_pictures", "tiny_picture")
    self.fails("no split 'dev'", test_split="dev")
    _prepare(NoPictures, self.path)
    self.fails("no image among its features", "no_pictures")

  def test_other_file_formats(self):
    path = self.enterContext(tempfile.TemporaryDirectory())
    folder = pathlib.Path(path) / "tiny_pictures" / "1.0.0"
    _prepare(TinyPictures, path)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with self.assertRaisesRegex(UserError, "no random access"):
      data.load("tiny_pictures", size=8, path=path)

  def test_labels_are_checked(self):
    tiny = self.load(test_split="unlabelled")
    with self.assertRaisesRegex(UserError, "unlabelled, example 1: label -1"):
      tiny.test[1]


if __name__ == "__main__":
  absltest.main()
