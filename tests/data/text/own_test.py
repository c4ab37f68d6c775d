"""A user's own files, good and bad: every mistake gets one clear line."""

import codecs
import os
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core.errors import UserError
from ar_jax.data import notes
from ar_jax.data.text import own, vocabulary

LINES = [f"line {i} says {'abcdefgh'[i % 8] * 5}." for i in range(60)]
WHOLE = "\n".join(LINES)


class Case(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def write(self, name, content=WHOLE):
    file = self.root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    raw = content if isinstance(content, bytes) else content.encode()
    file.write_bytes(raw)
    return str(file)

  def fails(self, message, path=None, **options):
    with self.assertRaisesRegex(UserError, message) as caught:
      own.text(path=str(self.root) if path is None else path, **options)
    self.assertNotIn("\n", str(caught.exception))

  def said(self, **options):
    """The one line that is told, and the data set."""
    notes._told.clear()
    with self.assertLogs("ar_jax", "INFO") as log:
      data = own.text(**{"path": str(self.root), **options})
    self.assertLen(log.records, 1)
    return log.records[0].getMessage(), data


def texts(source, form):
  return [form.read(source[i]["text"]) for i in range(len(source))]


class ExamplesTest(Case):
  def test_one_file_by_place(self):
    whole = WHOLE
    line, data = self.said(path=self.write("a.log"), length=16)
    form = data.forms["text"]
    train, test = texts(data.train, form), texts(data.test, form)
    start = "".join(train)
    self.assertTrue(whole.startswith(start))
    # It is cut after a line; what is left over at the end is no window.
    at = whole.index("\n", int(0.9 * len(whole))) + 1
    self.assertEqual("".join(test), whole[at:][: 16 * len(test)])
    self.assertBetween(at - len(start), 0, 15)
    self.assertIn(f"text: {at:,} + {len(whole) - at:,} characters", line)
    for i in (0, len(data.train) - 1):
      self.assertEqual(data.train[i]["text"].dtype, np.int32)
      form.check(data.train[i]["text"][None])

  def test_training_sees_every_place(self):
    data = own.text(path=self.write("a.txt"), length=16)
    rng = np.random.default_rng(0)
    train = data.train
    drawn = [train.draw(0, rng)["text"] for _ in range(64)]
    begins = {tuple(x) for x in drawn}
    self.assertGreater(len(begins), 8)
    ends = [train.draw(len(train) - 1, rng)["text"] for _ in range(64)]
    self.assertTrue(all((x > 0).all() for x in ends))  # none is filled up
    self.assertTrue(any(np.array_equal(x, train.ids[-16:]) for x in ends))
    with self.assertRaises(IndexError):
      train[len(train)]

  def test_stride(self):
    path = self.write("a.txt")
    one = own.text(path=path, length=16)
    half = own.text(path=path, length=16, stride=8)
    for i in range(len(one.train)):
      np.testing.assert_array_equal(
        one.train[i]["text"], half.train[2 * i]["text"]
      )

  @parameterized.parameters("characters", "words", "bytes")
  def test_units(self, unit):
    path = self.write("a.txt", "Grüße, don't go.\n" * 40)
    data = own.text(path=path, unit=unit, length=8)
    form = data.forms["text"]
    text = form.read(data.train[0]["text"])
    want = {
      "characters": "Grüße, d",
      "words": "Grüße , don't go . Grüße , don't",
      "bytes": "Grüße,",
    }
    self.assertEqual(text, want[unit])
    self.assertEqual(form.vocab, {"characters": 17, "words": 7}.get(unit, 256))

  def test_vocabulary_is_of_the_training_part(self):
    path = self.write("a.txt", "ab" * 90 + "z" * 20)
    line, data = self.said(path=path, length=4)
    form = data.forms["text"]
    self.assertEqual(form.symbols, ("", "\ufffd", "a", "b"))
    np.testing.assert_array_equal(
      data.test[0]["text"], [vocabulary.UNKNOWN] * 4
    )
    self.assertIn("100.00% of the test part unknown", line)

  def test_most_frequent_words(self):
    path = self.write("a.txt", "the cat the dog the cat bird. " * 30)
    data = own.text(path=path, unit="words", vocab=4, length=7, lower=True)
    form = data.forms["text"]
    self.assertEqual(form.symbols, ("", "<unk>", "the", "cat"))
    self.assertEqual(
      form.read(data.train[0]["text"]), "the cat the <unk> the cat <unk>"
    )

  def test_lines_and_texts(self):
    path = self.write("a.txt")
    line, data = self.said(path=path, examples="lines", length=18)
    form = data.forms["text"]
    self.assertEqual(texts(data.train, form), [x[:18] for x in LINES[:54]])
    self.assertEqual(texts(data.test, form), [x[:18] for x in LINES[54:]])
    self.assertIn("50 longer than length=18 are cut", line)
    for i in range(10):
      self.write(f"f/{i}.md", f"text {i}" * (i + 1))
    line, data = self.said(
      path=str(self.root / "f"), examples="texts", length=30
    )
    self.assertEqual((len(data.train), len(data.test)), (9, 1))
    self.assertIn("4 shorter than length=30 are filled up", line)


class FolderTest(Case):
  def test_whole_files_are_held_out(self):
    for i in range(10):
      self.write(f"{i % 3}/{i}.txt", f"{chr(97 + i)}" * 100)
    self.write(".hidden/x.txt", "z" * 100)
    self.write("1/.y.txt", "z" * 100)
    self.write("book.PDF", b"%PDF\0")
    self.write("2/more.csv")
    self.write("empty.txt", " \r\n")
    self.write("copy.txt", "a" * 100)
    line, data = self.said(length=50, test_fraction=0.2)
    form = data.forms["text"]
    letters = lambda part: {x[0] for x in texts(part, form)}
    train = {s for s in form.symbols if s.isalpha() and s != "\ufffd"}
    self.assertEqual(letters(data.train), train)
    self.assertLen(train, 8)
    np.testing.assert_array_equal(data.test[0]["text"], [1] * 50)
    for part in (
      "skipped 1 .pdf, 1 .csv, 2 hidden",
      "1 empty: empty.txt",
      "1 copies",
    ):
      self.assertIn(part, line)

  def test_train_and_test_folders(self):
    self.write("Train/a.txt", "ab" * 50)
    self.write("valid/b.txt", "ba" * 50)
    self.write("c.txt", "cc")
    line, data = self.said(length=10)
    form = data.forms["text"]
    self.assertEqual(texts(data.train, form)[0], "ab" * 5)
    self.assertEqual(texts(data.test, form)[0], "ba" * 5)
    self.assertIn("1 texts outside of train/ and test/ left out", line)

  def test_digest_is_of_the_files(self):
    for name in "ab":
      self.write(f"{name}.txt")
      self.write(f"{name}2.txt", name * 90)
    before = own.text(path=str(self.root), length=8).digest
    self.assertEqual(own.text(path=f"{self.root}/", length=8).digest, before)
    os.utime(self.root / "a.txt", (1, 1))
    self.assertNotEqual(own.text(path=str(self.root), length=8).digest, before)


class LoadTest(Case):
  def test_by_name(self):
    path = self.write("a.txt")
    one, two = (
      data.load("text", path=path, length=16, unit=unit)
      for unit in ("characters", "bytes")
    )
    self.assertEqual(one.num_classes, 0)
    self.assertNotEqual(one.digest, two.digest)
    batch = data.batch_at(one.train, 3, batch=4, seed=0)
    self.assertEqual(batch["text"].shape, (4, 16))
    again = data.batch_at(one.train, 3, batch=4, seed=0)
    np.testing.assert_array_equal(batch["text"], again["text"])
    with self.assertRaisesRegex(UserError, "data.lenght.*did you mean length"):
      data.load("text", path=path, lenght=16)
    with self.assertRaisesRegex(UserError, "'text' needs it"):
      data.load("text")


class HostileTest(Case):
  def test_kinds_of_line_ends_and_byte_order_marks(self):
    plain = own.text(path=self.write("a.txt"), length=16)
    content = "\r\n".join(LINES).encode()
    other = own.text(
      path=self.write("b.txt", codecs.BOM_UTF8 + content), length=16
    )
    self.assertEqual(plain.forms, other.forms)
    np.testing.assert_array_equal(plain.train.ids, other.train.ids)

  def test_not_utf8(self):
    content = WHOLE.encode()
    path = self.write("a.txt", content + "\ncafé".encode("latin-1"))
    place = len(content) + 4
    self.fails(rf"a.txt: byte {place} \(line 61\) is 0xe9, .* not UTF-8", path)
    marked = self.write("b.txt", codecs.BOM_UTF8 + b"ab\n\xff")
    self.fails(r"byte 6 \(line 2\) is 0xff", marked)
    self.fails("is UTF-16", self.write("c.txt", "hello".encode("utf-16")))
    self.fails("is UTF-32", self.write("d.txt", "hello".encode("utf-32")))

  def test_binary(self):
    self.fails("byte 3 is 0, so this is no text", self.write("a", b"abc\0d"))

  def test_nothing_there(self):
    self.fails("data.path=''", "")
    self.fails("no such file or folder", str(self.root / "none"))
    self.fails("no .txt or .md file in it")
    self.write("a.pdf")
    self.fails("no .txt or .md file in it, only 1 .pdf")
    self.fails("holds no text", self.write("b.txt", ""))
    self.fails("its files are empty")
    self.write("c.txt", "word")
    self.fails("one text cannot be split")

  def test_too_little(self):
    self.fails("1 characters are too few", self.write("a.txt", "x"))
    self.fails("is a single line", self.write("b.txt", "x"), examples="lines")
    path = self.write("c.txt")
    self.fails("is a single text", path, examples="texts")
    self.fails("neighbours are chunks of other files", path, neighbours=2)

  def test_shorter_than_an_example(self):
    line, data = self.said(path=self.write("a.txt", "short\n" * 4), length=64)
    self.assertEqual((len(data.train), len(data.test)), (1, 1))
    found = data.train[0]["text"]
    self.assertEqual(data.forms["text"].read(found), "short\nshort\nshort\nsho")
    self.assertFalse(found[21:].any())
    np.testing.assert_array_equal(
      data.train.draw(0, np.random.default_rng(0))["text"], found
    )
    self.assertIn("2 shorter than length=64 are filled up", line)

  def test_one_huge_line(self):
    data = own.text(path=self.write("a.txt", "ab" * 200_000), length=64)
    self.assertEqual((len(data.train), len(data.test)), (5625, 625))

  def test_names_that_are_no_text(self):
    name = os.fsencode(self.root) + b"/\xff\n.txt"
    pathlib.Path(os.fsdecode(name)).write_bytes(b"\xff")
    self.fails(r"udcff.*not UTF-8")

  def test_links_in_a_circle_and_dead_ones(self):
    for i in range(3):
      self.write(f"a/{i}.txt", f"{i}" * 50)
    (self.root / "a" / "up").symlink_to(self.root)
    (self.root / "a" / "dead.txt").symlink_to(self.root / "none")
    data = own.text(path=str(self.root), length=10)
    self.assertEqual((len(data.train), len(data.test)), (10, 5))

  @parameterized.parameters(
    ("data.unit='chars'", {"unit": "chars"}),
    ("data.examples='pages'", {"examples": "pages"}),
    ("data.length=0", {"length": 0}),
    ("data.stride=-1", {"stride": -1}),
    ("data.vocab=2", {"vocab": 2}),
    ("of bytes there are always 256", {"unit": "bytes", "vocab": 9}),
    ("data.test_fraction=1.0", {"test_fraction": 1.0}),
    ("data.chunk=3: length=128", {"chunk": 3}),
  )
  def test_options(self, message, options):
    self.fails(message, self.write("a.txt"), **options)


if __name__ == "__main__":
  absltest.main()
