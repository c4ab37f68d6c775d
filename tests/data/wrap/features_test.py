"""Stored features of texts beside the images of any set."""

import pathlib
import tempfile

import numpy as np
from absl.testing import absltest

from ar_jax import data
from ar_jax.core.system import UserError


class FeaturesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    rng = np.random.default_rng(0)
    self.stored = {}
    for name, n in (("train", 16), ("test", 2)):
      self.stored[name] = rng.standard_normal((n, 5, 3)).astype(np.float16)
      np.save(self.root / f"{name}.npy", self.stored[name])

  def load(self, **options):
    return data.load(
      "fake", size=8, length=16, text_features=str(self.root), **options
    )

  def test_row_for_row(self):
    loaded = self.load()
    for name in ("train", "test"):
      source, stored = getattr(loaded, name), self.stored[name]
      self.assertLen(source, len(stored))
      np.testing.assert_array_equal(source[1]["text"], stored[1])
      self.assertEqual(source[1]["text"].dtype, np.float32)
    batch = data.batch_at(loaded.train, 0, batch=4, seed=0)
    self.assertEqual(batch["text"].shape, (4, 5, 3))

  def test_of_images_and_ids_of_texts(self):
    for name, n in (("train", 16), ("test", 2)):
      np.save(self.root / f"{name}.npy", np.full((n, 7), n, np.int64))
    ids = self.load().train[3]["text"]
    self.assertEqual((ids.dtype, ids.tolist()), (np.int32, [16] * 7))
    with self.assertRaisesRegex(UserError, "data.image_features: .* missing"):
      data.load("fake", size=8, length=16, image_features="nowhere")
    for name, n in (("train", 16), ("test", 2)):
      np.save(self.root / f"{name}.npy", np.arange(3.0 * n).reshape(n, 3))
    loaded = data.load(
      "fake", size=8, length=16, image_features=str(self.root), share=0.25
    )
    self.assertEqual(loaded.train[2]["feature"].tolist(), [6, 7, 8])
    self.assertLen(loaded.train, 4)  # a part of the examples has its rows

  def test_a_class_has_a_name(self):
    example = data.load("fake", size=8, num_classes=3, text=9).train[4]
    name = bytes(example["text"].astype(np.uint8)).decode()
    self.assertEqual(name, "class 1\0\0")

  def test_mistakes(self):
    np.save(self.root / "test.npy", self.stored["test"][:1])
    with self.assertRaisesRegex(UserError, "test.npy is of shape"):
      self.load()
    (self.root / "test.npy").unlink()
    with self.assertRaisesRegex(UserError, "test.npy is missing"):
      self.load()


if __name__ == "__main__":
  absltest.main()
