"""Clips of one's own: what is read, how much of it, what is said of what cannot
be."""

import dataclasses
import pathlib
import tempfile
import types
from unittest import mock

import ml_collections
import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from ar_jax import own
from ar_jax.core.errors import UserError
from ar_jax.own import clips

DATA = types.SimpleNamespace(fields={"video": ((4, 2, 2, 1), "uint8")})


@dataclasses.dataclass(frozen=True)
class GoesOn:
  """Reads clips of so many frames."""

  lengths: tuple[int, ...] = (1, 2, 3)
  needs: tuple[str, ...] = ("video",)

  def clip_lengths(self):
    return self.lengths


def grey(n):
  return Image.fromarray(np.full((4, 6), 40 * n, np.uint8))


class ClipsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    (self.root / "frames").mkdir()
    for name, n in (("f1", 1), ("f2", 2), ("f10", 3)):
      grey(n).save(self.root / "frames" / f"{name}.png")
    more = [grey(4), grey(5), grey(6)]
    grey(1).save(self.root / "a.gif", save_all=True, append_images=more)

  def asked(self, name, count=0, system=GoesOn(), n=3):
    sample = dict(clip=str(self.root / name), clip_frames=count)
    config = ml_collections.ConfigDict(dict(sample=sample))
    found = clips.asked(system, DATA, n, config)
    self.assertEqual(set(found), {"clip", *system.needs})
    return found["clip"]

  def names(self, name):
    sample = dict(clip=str(self.root / name))
    return clips.names(None, ml_collections.ConfigDict(dict(sample=sample)))

  def test_frames_in_the_order_of_their_numbers(self):
    found = self.asked("frames")
    self.assertEqual(found.shape, (3, 3, 2, 2, 1))
    self.assertEqual(found.dtype, np.uint8)
    np.testing.assert_array_equal(found[2, :, 0, 0, 0], [40, 80, 120])

  def test_the_last_frames_of_a_gif(self):
    found = self.asked("a.gif")[0, :, 0, 0, 0]
    np.testing.assert_array_equal(found, [160, 200, 240])
    found = self.asked("a.gif", 2)[0, :, 0, 0, 0]
    np.testing.assert_array_equal(found, [200, 240])
    # A model whose codes are of several frames takes no more than fits.
    found = self.asked("a.gif", system=GoesOn((1, 5)))[0, :, 0, 0, 0]
    np.testing.assert_array_equal(found, [240])

  def test_several_clips_in_turn(self):
    found = self.asked("", 1)[:, 0, 0, 0, 0]
    np.testing.assert_array_equal(found, [240, 120, 240])
    self.assertEqual(self.names(""), ["a.gif", "frames"])
    self.assertEqual(self.names("a.gif"), ["a.gif"])
    self.assertEqual(self.names("frames"), ["frames"])

  def test_wide_clips_are_said_to_be_cut(self):
    wide = Image.new("L", (8, 2))
    wide.save(self.root / "w.gif", save_all=True, append_images=[grey(6)])
    with self.assertLogs("ar_jax", "INFO") as log:
      self.asked("", 1)
    said = "sample.clip: of 3 clips 2 made smaller, 3 cut to their middle"
    self.assertIn(f"{said}: the system reads 2x2 pixels", log.output[-1])

  def test_what_is_left_out_is_said(self):
    deep = self.root / "frames" / "deep"
    deep.mkdir()
    grey(6).save(deep / "f1.png")
    with self.assertLogs("ar_jax", "INFO") as log:
      self.asked("", 1)
    self.assertIn("3 pictures are of no clip and left out", log.output[0])
    with self.assertLogs("ar_jax", "INFO") as log:
      self.asked("frames")
    said = (
      "3 pictures are the frames of one clip; 1 GIFs and pictures of folders"
    )
    self.assertIn(f"{said} beside them are left out", log.output[0])

  @parameterized.parameters(
    ("none", 0, GoesOn(), "no such file or folder"),
    ("frames/f1.png", 0, GoesOn(), "no GIF"),
    ("frames", 0, GoesOn((5, 9)), "3 frames; this model reads 5 or 9"),
    ("a.gif", 4, GoesOn(), "reads 1, 2 or 3 frames"),
    ("a.gif", 0, GoesOn(()), "goes on with no clip"),
    ("a.gif", 0, object(), "goes on with no clip"),
  )
  def test_one_line_of_what_is_wrong(self, name, count, system, message):
    with self.assertRaisesRegex(UserError, message):
      self.asked(name, count, system)

  def test_what_is_no_clip(self):
    (self.root / "b.gif").write_bytes(b"GIF89a")
    with self.assertRaisesRegex(UserError, "b.gif"):
      self.asked("b.gif")
    empty = self.root / "empty"
    empty.mkdir()
    with self.assertRaisesRegex(UserError, "no clip in this folder|pictures"):
      self.asked("empty")

  def test_a_clip_stands_for_the_video_of_an_example(self):
    """Rows of the data are asked for where something is lacking alone."""
    clip = ml_collections.ConfigDict(
      {"sample": {"clip": str(self.root / "a.gif")}}
    )
    none = ml_collections.ConfigDict({"sample": {}})
    text = {"prompt": np.zeros((2, 1))}
    rows = {"label": np.zeros(2)}
    for needs, config, prompted, lacking in (
      ((clips.FIELD,), clip, {}, False),
      ((), clip, {}, False),
      (("label",), clip, {}, True),
      ((), none, {}, True),
      # What begins with a text needs rows of its own.
      ((), none, text, True),
      (("prompt",), none, text, False),
    ):
      with mock.patch.object(
        own.conditions, "conditions", return_value=rows
      ) as asked:
        found = own.asked(
          GoesOn(needs=needs), DATA, 2, config, prompted=prompted
        )
      self.assertEqual(asked.called, lacking)
      self.assertEqual("clip" in found, config is clip)
      self.assertEqual("label" in found, lacking)


if __name__ == "__main__":
  absltest.main()
