"""Rigged shapes of a person's own."""

import pathlib
import tempfile

import numpy as np
from absl.testing import absltest

from ar_jax import data, show
from ar_jax.core.errors import UserError
from ar_jax.core.forms import Skeleton
from ar_jax.data.science import rig_text

PLACES = np.array([[0.0, 0, 0], [4, 0, 0], [0, 2, 0], [0, 0, 2]])
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
JOINTS = np.array([[1.0, 0, 0], [3, 0, 0], [0, 1, 0]])
PARENT = np.array([2, 0, 2])  # the last is the root
SKIN = np.array([[0, 0, 1.0], [0.5, 0.5, 0], [0, 0, 1], [1, 0, 0]])


class RiggedTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)
    obj = "".join("v {} {} {}\n".format(*p) for p in PLACES)
    obj += "".join("f {} {} {}\n".format(*(f + 1)) for f in FACES)
    (self.folder / "a.obj").write_text(obj)
    self.text("a", "\n".join(rig_text.lines(JOINTS, PARENT, SKIN)))
    arrays = dict(vertices=PLACES, faces=FACES, joints=JOINTS, parent=PARENT)
    np.savez(self.folder / "b.npz", **arrays, skin=SKIN)
    np.savez(self.folder / "c.npz", **arrays)

  def text(self, name, content):
    (self.folder / f"{name}.txt").write_text(content)

  def load(self, **options):
    known = dict(joints=5, points=30, test_fraction=0.34)
    return data.load("rigged", path=str(self.folder), **known | options)

  def test_examples(self):
    found = self.load()
    self.assertEqual((len(found.train), len(found.test)), (2, 1))
    middle, scale = np.array([2, 1, 1]), 2
    for source in (found.train, found.test):
      for i in range(len(source)):
        x = source[i]
        self.assertEqual(x["count"], 3)
        self.assertEqual(x["parent"].tolist(), [0, 0, 1, 0, 0])
        # Points of the surface reach nearly as far as the shape.
        places = JOINTS[[2, 0, 1]] - middle
        self.assertLess(np.abs(x["joints"][:3] - places / scale).max(), 0.5)
        np.testing.assert_allclose(x["skin"].sum(1), 1, atol=1e-6)
        self.assertLessEqual(np.abs(x["points"][:, :3]).max(), 1 + 1e-6)
        np.testing.assert_array_equal(x["points"], source[i]["points"])
    drawn = [found.train.draw(0, np.random.default_rng(k)) for k in range(2)]
    self.assertGreater(np.abs(drawn[0]["points"] - drawn[1]["points"]).max(), 0)
    posed = self.load(pose=1.0).train.draw(0, np.random.default_rng(0))
    self.assertTrue(np.isfinite(posed["points"]).all())

  def test_text_and_back(self):
    path = self.folder / "a.txt"
    joints, parent, skin = rig_text.read(str(path), 4)
    np.testing.assert_allclose(joints, JOINTS)
    np.testing.assert_array_equal(parent, PARENT)
    np.testing.assert_allclose(skin, SKIN)
    # What a system makes is written so, too, and can be read again.
    order = [2, 0, 1]
    beside = {
      "parent": np.array([[0, 0, 1, 0]]),
      "count": np.array([3]),
      "skin": np.pad(SKIN[:, order], ((0, 2), (0, 1)))[None],
      "vertices": np.array([4]),
    }
    x = np.pad(JOINTS[order], ((0, 1), (0, 0)))[None]
    files = show.write(self.folder, "s", Skeleton(), x, beside)
    self.assertEqual([f.name for f in files], ["s.000.obj", "s.000.txt"])
    again = rig_text.read(str(files[1]), 4)
    np.testing.assert_allclose(again[0], JOINTS[order], atol=1e-5)
    np.testing.assert_array_equal(again[1], [0, 0, 1])
    np.testing.assert_allclose(again[2], SKIN[:, order], atol=1e-4)

  def test_wrong_rigs(self):
    good = (self.folder / "a.txt").read_text()
    for content, message in (
      ("", "no joint in it"),
      (good + "\nwhat 1", "line 11: it begins with none"),
      (good + "\nhier joint0 joint9", "line 11: there is no joint 'joint9'"),
      (good + "\nskin 9 joint0 1", "line 11: vertex 9"),
      (good + "\nskin 0 joint0", "line 11"),
      (good.replace("root joint2", ""), "'joint2' has no parent"),
      (good.replace("skin 0 joint2 1.0000", ""), "vertex 0 follows no joint"),
      (good + "\nhier joint1 joint0", "circle"),
      (good + "\njoints joint0 1 1 1", "second joint"),
      (good.replace("joints joint0 1 0 0", "joints joint0 nan 0 0"), "finite"),
    ):
      self.text("a", content)
      with self.assertRaisesRegex(UserError, message):
        self.load()
    self.text("a", good)
    with self.assertRaisesRegex(UserError, "3 joints; set data.joints"):
      self.load(joints=2)
    (self.folder / "a.txt").unlink()
    with self.assertRaisesRegex(UserError, "no .*a.txt beside it"):
      self.load()
    np.savez(self.folder / "a.npz", vertices=PLACES)
    (self.folder / "a.obj").unlink()
    with self.assertRaisesRegex(UserError, "has no joints, parent"):
      self.load()
    with self.assertRaisesRegex(UserError, "no such folder"):
      data.load("rigged", path=str(self.folder / "none"))


if __name__ == "__main__":
  absltest.main()
