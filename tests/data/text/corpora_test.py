"""Corpora from files as Debian has them, and from Debian where it is."""

import gzip
import os
import pathlib
import shutil
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Text
from ar_jax.data import array_cache
from ar_jax.data.text import corpora, retrieval, roff
from ar_jax.data.text.windows import Windows

PAGE = r""".\" who wrote this
.TH open 2 2023 "Linux"
.SH NAME
open \- open a file
.SH SYNOPSIS
.nf
.BI "int open(const char *" path ", int " flags );
    indented\e
.fi
.SH DESCRIPTION
The
.BR open ()
call opens \fIit\fP,
.\" not this
see \(lqthat\(rq.
.TS
l l.
a	b
.TE
.IP \(bu 3
one
.if n \{\
hidden
.\}
.TP
.B O_APPEND
at the end\&.
.de X
no
..
.UR http://x
"""
TEXT = """NAME
open - open a file
SYNOPSIS
int open(const char *path, int flags);
    indented\\
DESCRIPTION
The open() call opens it, see "that".
* one
O_APPEND at the end. http://x"""


class CorporaTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.enterContext(
      mock.patch.dict(os.environ, {"AR_JAX_CACHE": str(self.root / "cache")})
    )

  def test_verses(self):
    file = self.root / "verses"
    file.write_text(
      "".join(
        f"Ge{c}:{v} Verse {v} of chapter {c}.\n"
        for c in range(1, 21)
        for v in range(1, 4)
      )
    )
    data = corpora.chars(path=str(file), length=20, examples="lines")
    form = data.forms["text"]
    self.assertEqual((len(data.train), len(data.test)), (54, 6))
    self.assertEqual(form.read(data.train[1]["text"]), "Verse 2 of chapter 1")
    words = corpora.words(path=str(file), length=6)
    self.assertEqual(
      words.forms["text"].read(words.train[0]["text"]),
      "Verse 1 of chapter 1 .",
    )

  def test_page_as_text(self):
    self.assertEqual(roff.plain(PAGE), TEXT)
    self.assertEqual(roff.plain(".so man3/printf.3\n"), "")

  def test_pages_and_their_neighbours(self):
    folder = self.root / "man3"
    folder.mkdir()
    topics = ["read bytes from files", "sort a list of numbers"]
    for i in range(20):
      body = (topics[i % 2] + f" page{i}. ") * 8
      page = f".TH P{i} 3\n.SH NAME\n{body}\n"
      (folder / f"p{i:02}.3.gz").write_bytes(gzip.compress(page.encode()))
    (folder / "link.3.gz").symlink_to(folder / "p00.3.gz")
    (folder / "so.3.gz").write_bytes(gzip.compress(b".so man3/p00.3\n"))
    load = lambda: corpora.pages(
      path=str(self.root), length=16, chunk=8, neighbours=2
    )
    data = load()
    form = data.forms["text"]
    for source in (data.train, data.test):
      for example in (source[i] for i in range(len(source))):
        rows = example["neighbours"]
        self.assertEqual((rows.shape, rows.dtype), ((2, 2, 16), np.int32))
        topic = "bytes" if "bytes" in form.read(example["text"]) else "numbers"
        for row in rows.reshape(-1, 16):
          self.assertIn(topic, form.read(row))
    # Never of the page itself: its name is on no neighbour.
    for i in range(len(data.train)):
      example = data.train[i]
      names = lambda x: {w for w in form.read(x).split() if "page" in w}
      own = names(example["text"])
      for row in example["neighbours"].reshape(-1, 16):
        self.assertEmpty(own & names(row))
    # Windows begin at chunks, in training as well.
    rng = np.random.default_rng(0)
    begins = {tuple(data.train.draw(0, rng)["text"][:8]) for _ in range(20)}
    ids = data.train.ids
    self.assertEqual(begins, {tuple(ids[:8]), tuple(ids[8:16])})
    with mock.patch.object(array_cache, "save", side_effect=AssertionError):
      np.testing.assert_array_equal(
        load().train[3]["neighbours"], data.train[3]["neighbours"]
      )

  def test_neighbours_by_hand(self):

    form = Text(("", "<unk>", *"abcdefgh"), " ")
    ids = lambda text: np.array([form.symbols.index(x) for x in text], np.int32)
    train = Windows([ids("abcdefghab"), ids("efgh"), ids("abce")], 8, 8)
    test = Windows([ids("ccab")], 8, 8)
    retrieval.beside(train, test, form, 4, 2)
    found = train[0]["neighbours"]
    read = lambda row: form.read(row).replace(" ", "")
    # The chunk most like "abcd" is "abce"; nothing else has anything of it.
    self.assertEqual(read(found[0, 0]), "abce")
    self.assertFalse(found[0, 1].any() and read(found[0, 1]) != "efgh")
    self.assertEqual(read(found[1, 0]), "efgh")
    # What follows stands beside it.
    self.assertEqual(read(train[1]["neighbours"][0, 0]), "efghab")
    self.assertFalse(train[1]["neighbours"][1].any())  # there is no 2nd chunk
    self.assertIn(read(test[0]["neighbours"][0, 0]), ("abcdefgh", "abce", "ab"))

  def test_what_is_missing_says_how_to_install_it(self):
    nowhere = self.root / "none"
    for name, patched, package in (
      ("kjv", {"_BIBLE": nowhere}, "bible-kjv bible-kjv-text"),
      ("manpages", {"_MAN": nowhere, "_MAN_FILES": nowhere}, "manpages-dev"),
      ("wordlist", {"_WORDS": nowhere}, "wamerican"),
    ):
      with self.subTest(name), mock.patch.multiple(corpora, **patched):
        with self.assertRaisesRegex(UserError, f"apt-get install {package}"):
          corpora.chars(corpus=name)
    with self.assertRaisesRegex(UserError, "did you mean 'kjv'"):
      corpora.chars(corpus="kjw")
    with self.assertRaisesRegex(UserError, "no such file"):
      corpora.chars(path=str(nowhere))
    file = self.root / "verses"
    file.write_text("no verse\n")
    with self.assertRaisesRegex(UserError, "no verse such as"):
      corpora.chars(path=str(file))

  def test_the_installed_ones(self):
    if not (shutil.which("bible") and corpora._BIBLE.exists()):
      self.skipTest("apt-get install bible-kjv bible-kjv-text")
    found = corpora.read("kjv")
    self.assertLen(found.texts, 1189)
    self.assertStartsWith(found.texts[0], "In the beginning God created")
    self.assertEqual(sum(t.count("\n") + 1 for t in found.texts), 31_102)


if __name__ == "__main__":
  absltest.main()
