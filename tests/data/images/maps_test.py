"""Control maps beside the pictures of a folder."""

import pathlib
import tempfile

import numpy as np
from absl.testing import absltest
from PIL import Image

from ar_jax import data
from ar_jax.core.errors import UserError
from ar_jax.core.forms import Image as ImageForm


class MapsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    for i in range(6):
      name = f"{'ab'[i % 2]}/{i}"
      self.save(f"pictures/{name}.bmp", 10 * i)
      self.save(f"maps/{name}.png", 100 + i)

  def save(self, name, shade, side=12):
    path = self.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (side, side), shade).save(path)

  def load(self, **more):
    options = dict(size=8, channels=1, test_fraction=0.34) | more
    places = dict(
      path=str(self.root / "pictures"), maps=str(self.root / "maps")
    )
    return data.load("folder", **places | options)

  def test_each_picture_has_its_own(self):
    found = self.load()
    self.assertIsInstance(found.forms["map"], ImageForm)
    rows = [p[i] for p in (found.train, found.test) for i in range(len(p))]
    self.assertLen(rows, 6)
    for row in rows:
      self.assertEqual(row["map"].shape, (8, 8, 1))
      of = row["image"][0, 0, 0] // 10
      np.testing.assert_array_equal(row["map"], 100 + of)
      self.assertEqual(row["label"], of % 2)
    batch = data.batch_at(found.train, 0, batch=2, seed=0)
    np.testing.assert_array_equal(batch["map"] - 100, batch["image"] // 10)
    plain = self.load(maps="")
    self.assertNotIn("map", plain.train[0])
    self.assertNotEqual(plain.digest, found.digest)

  def test_mistakes(self):
    (self.root / "maps/b/1.png").unlink()
    for more, message in (
      (dict(), r"1 of .* have no map in .*: b/1.bmp"),
      (dict(maps="/no"), "no such folder"),
      (dict(crop="random"), "data.crop=center"),
    ):
      with self.assertRaisesRegex(UserError, message):
        self.load(**more)
    self.save("maps/b/1.png", 101)
    (self.root / "maps/b/3.png").write_bytes(b"x")
    with self.assertRaisesRegex(UserError, r"b/3.png \(unknown format\)"):
      self.load()
    self.save("maps/b/3.png", 103)
    self.save("maps/b/3.bmp", 103)
    with self.assertRaisesRegex(UserError, "maps of one picture"):
      self.load()


if __name__ == "__main__":
  absltest.main()
