"""Drawn words, and the user's own pictures of words."""

import logging
import pathlib
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from ar_jax import data
from ar_jax.core.errors import UserError
from ar_jax.data import notes
from ar_jax.data.images import scene_text, word_images

DOTS = dict(letters="dots", words="random", most=4, length=24)


class SceneTextTest(parameterized.TestCase):
  def test_the_set_and_its_forms(self):
    found = data.load("scene_text", height=16, width=40, **DOTS)
    self.assertEqual((len(found.train), len(found.test)), (24, 3))
    form = found.forms["text"]
    texts = [
      [form.read(part[i]["text"]) for i in range(len(part))]
      for part in (found.train, found.test)
    ]
    for text in (*texts[0], *texts[1]):
      self.assertRegex(text, "^[a-z]{3,4}$")
    self.assertNoCommonElements(found.train.words, found.test.words)
    one = found.train[3]
    self.assertEqual(
      (one["image"].shape, one["image"].dtype), ((16, 40, 1), np.uint8)
    )
    np.testing.assert_array_equal(one["image"], found.train[3]["image"])
    self.assertGreater(np.ptp(one["image"]), 60)
    colour = data.load("scene_text", channels=3, **DOTS).train[0]["image"]
    self.assertGreater(np.abs(np.diff(colour.astype(int), axis=-1)).max(), 0)

  def test_the_word_is_what_is_drawn(self):
    """Without trouble an image is its own word's mask, brought to its box."""
    found = data.load("scene_text", height=32, width=96, hard=0.0, **DOTS)
    for i in range(6):
      example = found.train[i]
      word = found.forms["text"].read(example["text"])
      image = example["image"][..., 0].astype(np.float64)
      rows = np.abs(image - np.median(image)) > 40
      at = [np.flatnonzero(rows.any(axis)) for axis in (1, 0)]
      box = rows[at[0][0] : at[0][-1] + 1, at[1][0] : at[1][-1] + 1]
      like = {}
      for other in {word, *found.train.words[:40]}:
        mask = scene_text.ink(other, None).resize(box.shape[::-1])
        like[other] = ((np.asarray(mask) > 127) == box).mean()
      self.assertEqual(max(like, key=like.get), word)

  def test_letters_may_keep_their_proportions(self):
    ends = {}
    for stretch in (True, False):
      found = data.load(
        "scene_text", height=16, width=96, hard=0.0, stretch=stretch, **DOTS
      )
      image = np.stack([found.train[i]["image"][..., 0] for i in range(8)])
      dark = image < np.median(image, (1, 2), keepdims=True) - 40
      ends[stretch] = [np.flatnonzero(x.any(0)).max() for x in dark]
    self.assertGreater(np.mean(ends[True]), 70)
    self.assertLess(np.max(ends[False]), 70)

  def test_held_out_faces(self):
    files = [pathlib.Path(f"/f{i}.ttf") for i in range(6)]
    with mock.patch.object(scene_text, "_faces", lambda folder: files):
      found = data.load("scene_text", held_out=2, **DOTS | {"letters": "fonts"})
    self.assertLen(found.test.faces, 2)
    self.assertLen({*found.train.faces, *found.test.faces}, 6)

  @parameterized.parameters(
    (dict(letters="x"), "choose one of fonts, dots"),
    (dict(words="x"), "choose 'wordlist' or 'random'"),
    (dict(least=5, most=4), "at most as many"),
    (dict(letters="fonts", fonts="/none"), "apt-get install fonts-dejavu-core"),
    (dict(words="wordlist", path="/none"), "no such file"),
  )
  def test_refused(self, options, says):
    with self.assertRaisesRegex(UserError, says):
      data.load("scene_text", **DOTS | options)


class WordImagesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    notes._told.clear()

  def save(self, *names):
    for i, name in enumerate(names):
      path = self.root / name
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new("RGB", (30 + i, 12), (i, 9 * i, 0)).save(path)

  def load(self, **options):
    with self.assertLogs("ar_jax", logging.INFO) as logs:
      found = data.load(
        "word_images", path=str(self.root), height=8, width=20, **options
      )
    read = found.forms["text"].read
    texts = [
      [read(part[i]["text"]) for i in range(len(part))]
      for part in (found.train, found.test)
    ]
    return found, texts, logs.output[0]

  def test_names_say_the_words(self):
    self.save(
      "train/one_1.png", "train/two.png", "train/7_towne_12.png",
      "test/won.png", "test/zero.png", "test/notttttt.png",
    )  # fmt: skip
    found, texts, line = self.load(most=6)
    self.assertEqual(texts[0], ["towne", "one", "two"])
    self.assertEqual(texts[1], ["won"])
    self.assertEqual(found.forms["text"].symbols, ("", *"enotw"))
    self.assertEqual(found.train[0]["image"].shape, (8, 20, 3))
    self.assertEqual(found.train[0]["text"].shape, (7,))
    self.assertIn("texts by file names", line)
    self.assertIn("1 of more than 6 letters left out", line)
    self.assertIn("1 for test have letters that training lacks", line)

  def test_a_file_of_labels(self):
    self.save(*[f"im/{i}.png" for i in range(5)])
    names = [f"im/{i}.png\tWord {i % 2}" for i in range(5)]
    (self.root / "labels.tsv").write_text("\n".join(names))
    found, texts, line = self.load(lower=True, channels=1)
    self.assertCountEqual(texts[0] + texts[1], ["word 0"] * 3 + ["word 1"] * 2)
    self.assertIn("labels from files", line)
    self.assertNotIn("skipped", line)
    (self.root / "labels.tsv").write_text("\n".join(names[:3]))
    with self.assertRaisesRegex(UserError, "2 pictures have no line in"):
      self.load()
    (self.root / "labels.tsv").write_text("im/0.png")
    with self.assertRaisesRegex(UserError, "line 1 has no tab"):
      self.load()

  def test_texts_beside_and_a_given_alphabet(self):
    self.save("a.png", "b.png", "c.png")
    for name, text in (("a", "ba"), ("b", "ab"), ("c", "abé")):
      (self.root / f"{name}.txt").write_text(text)
    found, texts, line = self.load(symbols="ba")
    self.assertCountEqual(texts[0] + texts[1], ["ba", "ab"])
    self.assertEqual(found.forms["text"].symbols, ("", "b", "a"))
    self.assertIn("1 with other letters left out", line)

  def test_names(self):
    for stem, word in (("a_1", "a"), ("12_Up_9", "Up"), ("x_y", "x_y")):
      self.assertEqual(word_images.named(stem), word)


if __name__ == "__main__":
  absltest.main()
