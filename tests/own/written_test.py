"""What was made of each thing that a person brings: its file or its line."""

import pathlib
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest
from PIL import Image

from ar_jax.core import forms
from ar_jax.own import written


class WrittenTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.out = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.said = self.enterContext(mock.patch("builtins.print"))

  def lines(self, called, name, form, x, **others):
    made = {"seconds": np.zeros(len(x)), name: x, **others}
    path = written.write(called, made, {name: form}, self.out)
    return path.read_text().splitlines()

  def test_images_in_turn(self):
    x = np.arange(3, dtype=np.uint8).repeat(12).reshape(3, 2, 2, 3)
    found = self.lines(["a.png", "b\n.png"], "image", forms.Image(), x)
    self.assertEqual(
      found,
      [
        "a.png\tsamples.000.png",
        "b\\n.png\tsamples.001.png",
        "a.png\tsamples.002.png",
      ],
    )
    for i in range(3):
      own = np.asarray(Image.open(self.out / f"samples.00{i}.png"))
      np.testing.assert_array_equal(own, x[i])
    self.assertEqual([c.args[0] for c in self.said.call_args_list], found)

  def test_many_draws_of_few_things(self):
    x = np.zeros((70, 2, 2, 1), np.uint8)
    for called, files in (["a"], 64), ([f"a{i}" for i in range(66)], 66):
      found = self.lines(called, "image", forms.Image(), x)
      self.assertLen(found, files)
      self.assertLen(list(self.out.glob("samples.*.png")), files)

  def test_videos(self):
    x = np.zeros((1, 3, 8, 8, 1), np.uint8)
    x += np.arange(0, 240, 80, dtype=np.uint8)[:, None, None, None]
    found = self.lines(["a.gif"], "video", forms.Video(4.0), x)
    self.assertEqual(found, ["a.gif\tsamples.000.gif"])
    with Image.open(self.out / "samples.000.gif") as image:
      self.assertEqual(image.n_frames, 3)

  def test_texts_and_skeletons(self):
    form = forms.Text(("", *"abc"))
    found = self.lines(["a", "b"], "text", form, np.array([[1, 2], [3, 0]]))
    self.assertEqual(found, ["a\tab", "b\tc"])
    joints = np.zeros((1, 4, 3), np.float32)
    found = self.lines(["a.obj"], "joints", forms.Skeleton(), joints)
    self.assertEqual(found, ["a.obj\tsamples.000.obj"])

  def test_nothing_brought_and_nothing_to_be_held(self):
    image, series = np.zeros((1, 2, 2, 1), np.uint8), np.zeros((1, 4, 1))
    for called, form, x in (
      ([], forms.Image(), image),
      (["a"], forms.Series(), series),
    ):
      self.assertIsNone(written.write(called, {"x": x}, {"x": form}, self.out))
    self.assertEmpty(list(self.out.iterdir()))


if __name__ == "__main__":
  absltest.main()
