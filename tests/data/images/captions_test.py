"""Texts of the pictures of a folder."""

import json
import pathlib
import tempfile
from unittest import mock

import ml_collections
import numpy as np
from absl.testing import absltest
from PIL import Image

from ar_jax import data
from ar_jax.command import checks
from ar_jax.core.errors import UserError
from ar_jax.core.forms import Text
from ar_jax.data import notes


class CaptionsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    once = mock.patch.object(
      notes, "once", lambda line, about="": self.told(line)
    )
    self.enterContext(once)
    self.lines = []

  def told(self, line):
    self.lines.append(line)

  def save(self, name, shade=0):
    path = self.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), shade).save(path)

  def write(self, name, text):
    (self.root / name).write_text(text, "utf-8")

  def load(self, **more):
    options = dict(size=8, channels=1, test_fraction=0.34, text=16) | more
    return data.load("folder", path=str(self.root), **options)

  def rows(self, found):
    """Shade -> the text of that picture."""
    read = found.forms["text"].read
    return {
      int(part[i]["image"][0, 0, 0]): read(part[i]["text"])
      for part in (found.train, found.test)
      for i in range(len(part))
    }

  def test_a_file_beside_each(self):
    for i in range(4):
      self.save(f"{i}.bmp", i)
      self.write(f"{i}.txt", f"number {i}\n")
    found = self.load()
    self.assertIsInstance(found.forms["text"], Text)
    self.assertEqual(self.rows(found), {i: f"number {i}" for i in range(4)})
    self.assertEqual(found.num_classes, 1)
    self.assertNotIn("skipped", self.lines[-1])
    before = found.digest
    self.write("2.txt", "another")
    self.assertNotEqual(self.load().digest, before)
    plain = self.load(text=0, classes=1)
    self.assertNotIn("text", plain.train[0])
    self.assertIn("4 files of texts are not read", self.lines[-1])

  def test_several_lines_are_drawn_from_in_training(self):
    for i in range(4):
      self.save(f"{i}.bmp", i)
      self.write(f"{i}.txt", f"first {i}\n\nsecond {i}\nthird {i}")
    found = self.load()
    self.assertIn("12 texts, of which training draws one", self.lines[-1])
    config = ml_collections.ConfigDict({"cache": {"views": 1}})
    with self.assertLogs("ar_jax", "INFO") as logs:
      checks.check_views(config, found)
    self.assertIn("always sees the same text of an example", logs.output[0])
    config.cache.views = 3
    checks.check_views(config, found)
    for i in range(4):
      self.write(f"{i}.txt", f"first {i}")
    with self.assertRaisesRegex(UserError, "nothing makes the views"):
      checks.check_views(config, self.load())
    self.assertEqual(self.rows(found), {i: f"first {i}" for i in range(4)})
    rng, seen = np.random.default_rng(0), set()
    for _ in range(60):
      row = found.train.draw(0, rng)
      text = found.forms["text"].read(row["text"])
      self.assertEqual(text[-1], str(row["image"][0, 0, 0]))
      seen.add(text.split()[0])
    self.assertEqual(seen, {"first", "second", "third"})

  def test_lists_and_tables(self):
    for i in range(4):
      self.save(f"images/{i}.bmp", i)
    want = {i: f"a, {i}" for i in range(4)}
    lists = {
      # Names without their folder, below a heading, as Flickr8k has it.
      "captions.txt": "image,caption\n"
      + "".join(f'{i}.bmp,"a, {i}"\n' for i in want),
      "images/captions.tsv": "".join(f"{i}\ta, {i}\n" for i in want),
      "metadata.csv": "text,more,file_name\n"
      + "".join(f'"a, {i}",x,images/{i}.bmp\n' for i in want),
      "images/metadata.jsonl": "".join(
        json.dumps({"file_name": f"{i}.bmp", "text": f"a, {i}"}) + "\n"
        for i in want
      ),
    }
    for name, text in lists.items():
      self.write(name, text)
      self.assertEqual(self.rows(self.load()), want, name)
      heading = "1 named with a text but without a picture: image"
      (line,) = [x for x in self.lines if x.startswith("folder:")]
      self.assertEqual(heading in line, name == "captions.txt")
      self.assertNotIn("skipped", line)
      self.lines.clear()
      (self.root / name).unlink()

  def test_classes_and_parts_stay(self):
    for part, n in (("train", 3), ("test", 2)):
      for i in range(n):
        for name in "ab":
          self.save(f"{part}/{name}/{i}.bmp", 10 * n + i)
          self.write(f"{part}/{name}/{i}.txt", f"{name} {i}")
    found = self.load()
    self.assertEqual((len(found.train), len(found.test)), (6, 4))
    self.assertEqual(found.class_names, ("a", "b"))
    for row in map(found.test.__getitem__, range(4)):
      text = found.forms["text"].read(row["text"])
      self.assertEqual("ab"[row["label"]], text[0])

  def test_beside_maps(self):
    for i in range(4):
      self.save(f"pictures/{i}.bmp", i)
      self.save(f"maps/{i}.png", 100 + i)
      self.write(f"pictures/{i}.txt", f"one {i}\ntwo {i}")
    options = dict(size=8, channels=1, test_fraction=0.34, text=16)
    found = data.load(
      "folder",
      path=str(self.root / "pictures"),
      maps=str(self.root / "maps"),
      **options,
    )
    rng, seen = np.random.default_rng(0), set()
    for _ in range(20):
      row = found.train.draw(0, rng)
      shade = int(row["image"][0, 0, 0])
      self.assertEqual(int(row["map"][0, 0, 0]), 100 + shade)
      seen.add(found.forms["text"].read(row["text"]).split()[0])
    self.assertEqual(seen, {"one", "two"})

  def test_what_is_cut_or_lacking_is_told(self):
    for i in range(4):
      self.save(f"{i}.bmp", i)
    for i in range(3):
      self.write(f"{i}.txt", "\u00e9" * 5 + "x" * i)
    with self.assertRaisesRegex(
      UserError, r"of 4 pictures 1 have no text: 3.bmp.*skip_bad=True"
    ):
      self.load()
    found = self.load(skip_bad=True, text=9)
    self.assertEqual(len(found.train) + len(found.test), 3)
    self.assertIn("3 texts longer than 9 bytes are cut", self.lines[-1])
    # Behind a whole character.
    self.assertEqual(set(self.rows(found).values()), {"\u00e9" * 4})
    # A list goes before the files beside, and two of one name are refused.
    self.write("captions.tsv", "0.bmp\tlisted\n")
    self.lines.clear()
    self.assertEqual(self.rows(self.load(skip_bad=True))[0], "listed")
    (line,) = [x for x in self.lines if x.startswith("folder:")]
    self.assertIn("1 .txt are not read, of pictures that", line)
    (self.root / "captions.tsv").unlink()
    self.save("0.png", 9)
    with self.assertRaisesRegex(UserError, "0.bmp and 0.png have one name"):
      self.load(skip_bad=True)
    (self.root / "0.png").unlink()
    for name, text, message in (
      (
        "metadata.csv",
        "name,text\n0.bmp,x\n",
        "row 1 has no texts 'file_name'",
      ),
      ("metadata.jsonl", "[1]\n", "row 1 has no texts"),
      ("metadata.jsonl", "no\n", "a line is no JSON"),
      ("captions.tsv", "alone\n", "has no tab, bar, comma or space"),
    ):
      self.write(name, text)
      with self.assertRaisesRegex(UserError, message):
        self.load(skip_bad=True)
      (self.root / name).unlink()


if __name__ == "__main__":
  absltest.main()
