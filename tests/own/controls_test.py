"""Control pictures of one's own: what is read, how it is fitted, what is said
of what cannot be."""

import pathlib
import tempfile

import ml_collections
import numpy as np
from absl.testing import absltest
from PIL import Image

from ar_jax import own, show
from ar_jax.core import forms
from ar_jax.core.errors import UserError
from ar_jax.core.forms import Image as ImageForm
from ar_jax.data import Dataset
from ar_jax.own import controls
from tests.evals import fakes


class Follows(fakes.Fake):
  """Reads a class and the edges of a picture."""

  needs, control = ("label", "edges"), "edges"


def data(channels=1, side=8):
  rows = [
    {
      "image": np.full((side, side, channels), i, np.uint8),
      "edges": np.full((side, side, 1), 100 + i, np.uint8),
      "label": np.int32(i % 2),
    }
    for i in range(4)
  ]
  both = {"image": ImageForm(), "edges": ImageForm()}
  return Dataset("x", rows, rows, 2, ("a", "b"), forms=both)


class ControlsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def picture(self, name, height, width, fill=0, mode="L"):
    path = self.folder / name
    path.parent.mkdir(exist_ok=True)
    shade = fill if mode == "L" else (fill,) * 3
    Image.new(mode, (width, height), shade).save(path)
    return str(path)

  def asked(self, path, n=5, system=None, labels=(), **sample):
    config = ml_collections.ConfigDict(
      dict(
        sample=dict(control=str(path), extract=False, sides=()) | sample,
        data=dict(derive=dict(edges=dict(kind="sobel", threshold=0.2))),
      )
    )
    system = system or Follows()
    return own.asked(system, data(), n, config, labels)

  def test_none_is_that_of_the_test_examples(self):
    found = self.asked("")
    self.assertEqual(found["edges"].shape, (5, 8, 8, 1))
    self.assertGreaterEqual(found["edges"].min(), 100)

  def test_one_picture_for_all(self):
    found = self.asked(self.picture("a.png", 8, 8, 30), labels=(1,))
    np.testing.assert_array_equal(found["edges"], 30)
    self.assertEqual(found["edges"].shape, (5, 8, 8, 1))
    np.testing.assert_array_equal(found["label"], 1)

  def test_a_folder_in_turns(self):
    for i, name in enumerate(("b.png", "a.png", "c.png")):
      self.picture(f"some/{name}", 8, 8, 10 * i)
    (self.folder / "some" / "notes.txt").write_text("x")
    with self.assertLogs("ar_jax", "INFO") as log:
      found = self.asked(self.folder / "some")
    first = found["edges"][:, 0, 0, 0]
    np.testing.assert_array_equal(first, [10, 0, 20, 10, 0])
    self.assertIn("3 pictures in", log.output[0])
    self.assertIn("notes.txt", log.output[0])

  def test_sides(self):
    wide = self.picture("wide.png", 20, 60, 7, "RGB")
    found = self.asked(wide, n=1, sides=(4, 12))["edges"]
    self.assertEqual(found.shape, (1, 4, 12, 1))
    np.testing.assert_array_equal(found, 7)
    # Scaled until it covers a square, and of that the middle.
    half = np.zeros((10, 30), np.uint8)
    half[:, 10:20] = 200
    found = controls.fitted(Image.fromarray(half), 10, 10)
    np.testing.assert_array_equal(found, 200)
    with self.assertLogs("ar_jax", "INFO") as log:
      self.picture("more/large.png", 40, 40)
      self.picture("more/small.png", 2, 2)
      self.picture("more/high.png", 9, 6)
      self.asked(self.folder / "more", sides=(6, 6))
    said = "of 3 pictures 1 made smaller, 1 cut to their middle"
    self.assertIn(f"{said}: the system reads 6x6 pixels", log.output[-1])
    for sides in ((8,), (0, 8), (8, 2.5)):
      with self.assertRaisesRegex(UserError, "height, width"):
        self.asked(wide, sides=sides)

  def test_the_rule_of_the_data_on_a_photo(self):
    step = np.zeros((8, 8), np.uint8)
    step[:, 4:] = 255
    path = self.folder / "photo.png"
    Image.fromarray(step).save(path)
    found = self.asked(path, n=1, extract=True)["edges"][0, ..., 0]
    np.testing.assert_array_equal(found[:, 3:5], 255)
    self.assertFalse(found[:, :3].any() or found[:, 5:].any())

  def test_mistakes(self):
    (self.folder / "none").mkdir()
    broken = self.folder / "broken.png"
    broken.write_bytes(b"no picture")
    good = self.picture("a.png", 8, 8)
    for path, system, message in (
      ("/no/such.png", None, "no such file or folder"),
      (self.folder / "none", None, "no picture in this folder"),
      (broken, None, "broken.png: cannot be read as an image"),
      (good, fakes.Fake(), "follows no picture"),
    ):
      with self.subTest(message):
        with self.assertRaisesRegex(UserError, message) as caught:
          self.asked(path, system=system)
        self.assertNotIn("\n", str(caught.exception))

  def test_shown_beside_what_was_drawn(self):
    drawn = np.full((3, 8, 8, 3), 50, np.uint8)
    beside = {
      "label": np.zeros(3, np.int32),
      "edges": np.full((3, 8, 8, 1), 200, np.uint8),
    }
    sheet = show.picture(forms.Image(), drawn, beside, columns=4)
    np.testing.assert_array_equal(sheet[1:9, 1:9], 200)
    np.testing.assert_array_equal(sheet[1:9, 10:18], 50)
    # Colours beside grey, and what is of another size is not shown.
    beside["edges"] = np.full((3, 8, 8, 3), 200, np.uint8)
    sheet = show.picture(forms.Image(), drawn[..., :1], beside, columns=4)
    np.testing.assert_array_equal(sheet[1:9, 1:9], 200)
    beside["edges"] = np.full((3, 4, 4, 1), 200, np.uint8)
    sheet = show.picture(forms.Image(), drawn, beside, columns=4)
    self.assertNotIn(200, sheet)


class KindsTest(absltest.TestCase):
  def test_each_of_what_is_brought_has_a_sample(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    (folder / "deep").mkdir()
    for name in ("b.png", "a.png", "deep/c.png"):
      Image.new("L", (8, 8)).save(folder / name)
    for wanted, count in ((2, 3), (7, 7)):
      sample = {"control": str(folder), "count": wanted}
      config = ml_collections.ConfigDict({"sample": sample})
      called = own.names(Follows(), config)
      self.assertEqual(called, ["a.png", "b.png", "deep/c.png"])
      self.assertEqual(own.count(config, called), count)
    config.sample.control = str(folder / "b.png")
    self.assertEqual(own.names(Follows(), config), ["b.png"])
    # What is read is read once.
    config.sample.read = "x.png"
    self.assertEqual(own.count(config, ["x.png"]), 1)
    config.sample.update(control="", read="")
    self.assertEqual(own.names(Follows(), config), [])
    self.assertEqual(own.count(config, []), 7)

  def test_two_kinds_at_once(self):
    config = ml_collections.ConfigDict(
      {"sample": {"control": "a.png", "read": "b.png"}}
    )
    with self.assertRaisesRegex(UserError, "sample.control and sample.read"):
      own.check(None, config)


if __name__ == "__main__":
  absltest.main()
