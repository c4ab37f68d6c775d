"""What the pictures and files of each form show."""

import csv
import pathlib
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest
from PIL import Image

from ar_jax import show
from ar_jax.core import forms
from ar_jax.core.domains import peptides
from ar_jax.show import audio, peaks, skeleton
from ar_jax.show.image import named
from tests import toy_forms


def rows_of(kind, name, n=5):
  u = np.random.default_rng(0).random((n, 4)).astype(np.float32)
  return np.stack([toy_forms.field(name, v) for v in u])


class PictureTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)

  def test_video_strips_and_a_moving_grid(self):
    form = forms.Video(4.0)
    x = form.stored(rows_of("video", "video"))
    label = np.array([1, 0, 1, 0, 1])
    sheet = show.picture(form, x, {"label": label}, columns=2)
    self.assertEqual(sheet.shape, (2 * 13 + 1, 6 * 13 + 1, 3))
    np.testing.assert_array_equal(sheet[1:13, 14:26], x[1, 1])  # of class 0
    (gif,) = show.write(self.folder, "s", form, x, columns=3)
    with Image.open(gif) as image:
      self.assertEqual(image.n_frames, 6)
      self.assertEqual(image.info["duration"], 250)
      self.assertEqual(image.size, (8 * (3 * 13 + 1), 8 * (2 * 13 + 1)))

  def test_names_of_ions_stay_on_the_panel(self):
    red = np.array((214, 39, 40))
    inked = []
    for mz in (500.0, 1000.0):  # in the middle, and at the right edge
      x = np.array([[1000.0, 0.1], [mz, 1.0]], np.float32)
      shown = peaks.panel(x, 300, 80, ions=[peaks.Ion("y12", mz, tuple(red))])
      name = np.abs(shown[14:27].astype(int) - red).max(-1) < 90
      inked.append(name.sum())
    self.assertEqual(*inked)

  def test_the_true_image_stands_behind_what_was_made_of_another(self):
    form = forms.Image()
    source, made, true = (np.full((6, 4, 4, 1), v, np.uint8) for v in (1, 2, 3))
    beside = {"low": source}
    sheet = show.picture(form, made, beside, columns=7, truth=true[:5])
    # Two triples a row, and no more than there are truths.
    self.assertEqual(sheet.shape, (3 * 5 + 1, 6 * 5 + 1, 1))
    first, last = sheet[2, 2::5, 0].tolist(), sheet[12, 2::5, 0].tolist()
    self.assertEqual(first, [1, 2, 3, 1, 2, 3])
    self.assertEqual(last, [1, 2, 3, 255, 255, 255])
    pair = show.picture(form, made, {"image": source}, columns=7)
    both = show.picture(form, made, {"image": source}, columns=7, truth=source)
    np.testing.assert_array_equal(both, pair)
    of = {"low": form, "image": form}
    self.assertTrue(show.takes_truth("image", of, ("low",)))
    # A tokenizer's truth is what it read; a class has no true image.
    self.assertFalse(show.takes_truth("image", of, ("image",)))
    self.assertFalse(show.takes_truth("image", of, ("label",)))

  def test_rows_have_the_names_of_their_classes(self):
    form, names = forms.Image(), ("cat", "a very long name", "dog")
    label = np.array([2, 0, 2, 0, 3])
    x = (40 * label + 10)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8)
    plain = show.picture(form, x[:4], {"label": label[:4]}, columns=2)
    sheet = show.picture(
      form, x[:4], {"label": label[:4]}, columns=2, names=names, scale=3
    )
    margin = sheet.shape[1] - 3 * plain.shape[1]
    self.assertEqual(sheet.shape, (3 * plain.shape[0], sheet.shape[1], 3))
    pixels = plain.repeat(3, 0).repeat(3, 1)
    np.testing.assert_array_equal(sheet[:, margin:, :1], pixels)
    for half in np.array_split(sheet[:, :margin], 2):
      self.assertLess(half.min(), 128)  # written
    # A class each, and one that stands for none: a name below each.
    each = show.picture(form, x[3:], {"label": label[3:]}, names=names)
    self.assertGreater(each.shape[0], 100)
    self.assertEqual(named(label[[1, 4]], names), ["cat", "no class"])
    self.assertEqual(named(label, ()), [])

  def test_images_and_videos_have_the_texts_they_were_drawn_from(self):
    form, text = forms.Image(), forms.Text()
    x = np.full((6, 16, 16, 3), (9, 200, 9), np.uint8)
    words = ["a", "b" * 60, "c d e", "f", "g", ""]
    ids = np.stack([text.ids(word, 64) for word in words])
    of = {"text": text}
    sheet = show.picture(form, x, {"text": ids}, columns=3, of=of)
    side = 16 * 7  # enlarged, for the texts
    self.assertEqual(sheet.shape[1], 3 * (side + 7) + 1)
    shown = lambda sheet, colour: (sheet == colour).all(-1).sum()
    self.assertEqual(shown(sheet, x[0, 0, 0]), 6 * side * side)
    # All of one text: once, above.
    same = np.repeat(ids[:1], 6, 0)
    grid = show.picture(form, x, {}, columns=3, scale=2)
    once = show.picture(form, x, {"text": same}, columns=3, of=of, scale=2)
    room = len(once) - len(grid)
    self.assertBetween(room, 5, 40)
    np.testing.assert_array_equal(once[room:], grid)
    self.assertLess(once[:room].min(), 128)
    # Beside the picture that an instruction edits, and before a video.
    edits = {"text": ids, "image": x + 1}
    edited = show.picture(form, x, edits, columns=6, of=of)
    both = [shown(edited, colour) for colour in (x[0, 0, 0], x[0, 0, 0] + 1)]
    self.assertEqual(both, [6 * (16 * 4) ** 2] * 2)
    video = forms.Video(4.0)
    frames = np.repeat(x[:, None], 3, 1)
    strips = show.picture(video, frames, {}, columns=3)
    with_text = show.picture(video, frames, {"text": ids}, columns=3, of=of)
    margin = with_text.shape[1] - strips.shape[1]
    np.testing.assert_array_equal(with_text[:, margin:], strips)
    self.assertLess(with_text[:, :margin].min(), 128)

  def test_spectrogram_shows_the_pitch(self):
    time = np.arange(8000) / 8000
    for hertz in (500, 3000):
      tone = 0.5 * np.sin(2 * np.pi * hertz * time)
      loud = audio.spectrogram(tone, 50, 80).sum(2).mean(1)
      row = 79 - int(80 * hertz / 4000)
      self.assertLessEqual(abs(int(loud.argmax()) - row), 1)
    silence = show.picture(forms.Audio(8000), np.zeros((1, 50), np.float32))
    self.assertLess(silence[-20:-10, 10:300].max(), 20)

  def test_text_of_several_lines_and_of_strange_letters(self):
    form = forms.Text()
    x = np.stack([form.ids("a\nb", 8), form.ids("caf\u00e9\x01", 8)])
    (path,) = show.write(self.folder, "s", form, x)
    self.assertEqual(
      path.read_text(encoding="utf-8"),
      "===== 0 =====\na\nb\n===== 1 =====\ncaf\u00e9\x01\n",
    )
    empty = show.picture(form, 0 * x)
    dark = show.picture(form, x) < 128
    self.assertGreater(dark.sum(), (empty < 128).sum())

  def test_texts_beside_what_they_were_read_of(self):
    form, blue, red = forms.Text(("", "a", "b")), (31, 119, 180), (214, 39, 40)
    inked = lambda sheet, colour: (sheet == colour).all(-1).sum()
    image = np.full((2, 4, 8, 1), 77, np.uint8)
    x = np.array([[1, 2, 0], [2, 2, 0]])
    of = {"image": forms.Image()}
    beside = {"image": image}
    right, wrong = (
      show.picture(form, x, beside, of=of, truth=truth)
      for truth in (x, x[:, ::-1])
    )
    # 16 pixels for each, and red letters where the text is another.
    self.assertEqual(inked(right, (77, 77, 77)), 2 * 16 * 16 * 32)
    self.assertEqual(inked(right, red), 0)
    self.assertGreater(inked(wrong, red), 3)
    # Two pictures of one text, of other sizes.
    peer = np.full((2, 20, 20, 3), 88, np.uint8)
    both = {"image": image, "peer": peer}
    sheet = show.picture(form, x, both, of=of | {"peer": forms.Image()})
    self.assertEqual(inked(sheet, (77, 77, 77)), 2 * 16 * 16 * 32)
    self.assertEqual(inked(sheet, (88, 88, 88)), 2 * 60 * 60)
    # What is larger than its place is made smaller, evenly.
    large = {"image": np.full((1, 640, 640, 3), 77, np.uint8)}
    sheet = show.picture(form, x[:1], large, of=of)
    self.assertEqual(inked(sheet, (77, 77, 77)), 64 * 64)
    # A sound without the silence behind it, and a question above.
    tone = np.sin(np.arange(800) * 0.5, dtype=np.float32)
    sound = {"audio": np.pad(tone, (0, 9000))[None], "asked": x[:1]}
    of = {"audio": forms.Audio(8000), "asked": form}
    padded, cut = (
      show.picture(form, x[:1], sound | length, of=of)
      for length in ({}, {"audio_length": np.array([800])})
    )
    self.assertGreater(cut[6:70, 6:326].sum(), 2 * padded[6:70, 6:326].sum())
    alone = show.picture(form, x[:1], sound, of={"audio": of["audio"]})
    self.assertGreater((padded < 200).sum(), (alone < 200).sum() + 20)
    # Without such a field it is a text like any other.
    np.testing.assert_array_equal(
      show.picture(form, x, {"asked": x}, of=of), show.picture(form, x)
    )
    # Peaks of a peptide have the colours of its ions: b2 (G, A) and y1 (K).
    peptide = forms.Text(("", *peptides.SYMBOLS))
    b, y = peptides.ions(peptides.parse("GAK"))
    spectrum = np.array([[[b[1], 1.0], [y[0] + 0.04, 0.5], [99.0, 1.0]]])
    beside = {"peaks": spectrum.astype(np.float32)}
    ids = peptides.parse("GAK")[None]
    of = {"peaks": forms.Peaks()}
    for text, blues, reds in (("GAK", True, True), ("LLL", False, False)):
      ids = peptides.parse(text)[None]
      sheet = show.picture(peptide, ids, beside, of=of)
      self.assertEqual(inked(sheet, blue) > 50, blues)
      self.assertEqual(inked(sheet, red) > 50, reds)

  def test_series_over_the_truth(self):
    form = toy_forms.FORMS["series"]["series"]
    x = rows_of("series", "series")
    alone = show.picture(form, x)
    both = show.picture(form, x, truth=x + 0.2)
    grey = lambda sheet: (sheet == 200).all(-1).sum()
    self.assertLess(grey(alone), 50)  # of letters
    self.assertGreater(grey(both), 1000)
    # What it goes on from comes before it; what is of other values does not.
    longer = show.picture(form, x, {"history": x})
    self.assertTrue((longer != alone).any())
    other = show.picture(form, x, {"history": x[..., :1]})
    np.testing.assert_array_equal(other, alone)
    (path,) = show.write(self.folder, "s", form, x)
    with path.open() as file:
      table = list(csv.reader(file))
    self.assertEqual(table[0], ["sample", "time", "sine", "cosine"])
    self.assertLen(table, 1 + 5 * toy_forms.TIMES)
    self.assertEqual(float(table[3][1]), 0.2)
    np.testing.assert_allclose(np.float32(table[42][2:]), x[1, 1], rtol=1e-6)
    # In the unit in which it came, behind what was known before.
    form = forms.Series(("v",), 1.0, (100.0,), (2.0,))
    (path,) = show.write(self.folder, "t", form, np.ones((1, 2, 1)))
    with path.open() as file:
      rows = list(csv.reader(file))[1:]
    self.assertEqual(rows, [["0", "0", "102"], ["0", "1", "102"]])
    flat = np.zeros((1, 3, 1), np.float32)
    past = np.arange(6, dtype=np.float32).reshape(1, 6, 1)
    alone, behind = (
      show.picture(form, flat, beside) for beside in ({}, {"history": past})
    )
    height = lambda sheet: np.ptp(np.nonzero((sheet < 150).any(2))[0])
    self.assertGreater((alone != behind).sum(), 100)
    self.assertGreaterEqual(height(behind), height(alone))
    # Nothing that is constant, alone, or no number, ends it.
    none = np.full((1, 4, 1), np.nan)
    for odd in (np.ones((1, 3, 1)), np.ones((2, 1, 2)), none):
      show.picture(form, odd)

  def test_skeleton_of_the_joints_that_there_are(self):
    form = forms.Skeleton()
    x = rows_of("skeleton", "joints", 2)
    beside = {
      "parent": np.tile(toy_forms.PARENT, (2, 1)),
      "count": np.array([7, 3]),
    }
    joints, bones = skeleton.parts(x, beside, 0)
    self.assertLen(joints, 7)
    self.assertEqual(bones, [(0, 1), (1, 2), (1, 3), (1, 4), (0, 5), (0, 6)])
    first, second = show.write(self.folder, "s", form, x, beside)
    lines = first.read_text().splitlines()
    self.assertEqual([line[0] for line in lines], ["o"] + ["v"] * 7 + ["l"] * 6)
    self.assertEqual(lines[-1], "l 1 7")
    self.assertLen(second.read_text().splitlines(), 1 + 3 + 2)
    # What is beyond the count changes nothing; without parents, no bones.
    moved = x.copy()
    moved[:, 7] += 100
    np.testing.assert_array_equal(
      show.picture(form, moved, beside), show.picture(form, x, beside)
    )
    self.assertEqual(skeleton.parts(x, {}, 0)[1], [])

  def test_a_skeleton_lies_within_its_shape(self):
    form, x = forms.Skeleton(), np.zeros((1, 2, 3), np.float32)
    x[0, 1] = 0.5, 0, 0
    points = np.zeros((1, 3, 6), np.float32)
    points[0, :, :3] = (-1, 0, 0), (1, 0, 0), (1, 0, 0)
    grey, red = np.array(skeleton.GREY), np.array(skeleton.COLOURS[1])
    where = lambda sheet, colour: np.argwhere((sheet == colour).all(-1))
    sheet = show.picture(form, x, {"points": points})
    # A quarter of the box is that of the joints, and the shape fills it.
    at = where(sheet[:, : skeleton._SIDE], grey)[:, 1]
    inner = skeleton._SIDE - 2 * skeleton._EDGE
    self.assertIn(inner, np.ptp(at) + np.arange(-1, 2))
    joints = where(sheet[:, : skeleton._SIDE], red)[:, 1]
    self.assertBetween(np.ptp(joints), inner / 4, inner / 4 + 8)
    # Coloured by the joint that moves a point most; query in place of points.
    skin = np.eye(2, dtype=np.float32)[[0, 1, 1]][None]
    beside = {"query": points, "vertices": np.array([2]), "skin": skin}
    _, colours = skeleton._surface(beside, 0)
    self.assertLen(set(colours), 2)
    self.assertEqual(skeleton._surface({}, 0)[1], [])
    other = skeleton._surface({"points": points, "skin": skin[:, :2]}, 0)[1]
    self.assertEqual(set(other), {skeleton.GREY})

  def test_a_file_is_whole_or_not_there(self):
    x = np.zeros((1, 4, 4, 1), np.uint8)
    broken = mock.patch.object(Image.Image, "save", side_effect=OSError("full"))
    show.save_png(self.folder / "a.png", x[0])
    before = (self.folder / "a.png").read_bytes()
    with broken, self.assertRaises(OSError):
      show.save_png(self.folder / "a.png", x[0] + 1)
    self.assertEqual((self.folder / "a.png").read_bytes(), before)
    self.assertEqual(Image.open(self.folder / "a.png").size, (4, 4))


if __name__ == "__main__":
  absltest.main()
