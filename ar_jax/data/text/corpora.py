"""Texts that Debian packages bring: the Bible, manual pages, English words."""

from __future__ import annotations

import dataclasses
import difflib
import gzip
import pathlib
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterable

from ar_jax.core.errors import UserError
from ar_jax.data import digests, notes
from ar_jax.data.dataset import Dataset, split_by_seed
from ar_jax.data.text import examples, reading, roff

_BIBLE = pathlib.Path("/usr/lib/bible.data")
_MAN = pathlib.Path("/usr/share/man")
_MAN_FILES = pathlib.Path("/var/lib/dpkg/info/manpages-dev.list")
_WORDS = pathlib.Path("/usr/share/dict/words")
_HELD_OUT = 0.1


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Some texts, and a digest of the files that they are from."""

  texts: list[str]
  digest: str


def chars(
  *,
  corpus: str = "kjv",
  path: str = "",
  length: int = 128,
  stride: int = 0,
  examples: str = "windows",
  vocab: int = 0,
  lower: bool = False,
) -> Dataset:
  """Characters of a corpus: the King James Bible, manual pages, or words.

  From: the Debian packages `bible-kjv` and `bible-kjv-text` (kjv),
  `manpages-dev` (manpages) or `wamerican` (wordlist).
  Command: --config.data.name=chars --config.data.corpus=kjv
  Fields: text.

  The texts are the chapters of `kjv`, a verse a line, the pages of `manpages`
  and the words of `wordlist`; a tenth of them, drawn once and for all, is held
  out. Id 0 ends a text, id 1 is a character that the training part lacks.

  Args:
    corpus: "kjv", "manpages" or "wordlist".
    path: a file or folder in place of Debian's: what `bible -f` prints, a
      folder with `man2` and `man3` in it, a file with a word in every line.
    length: ids of an example; shorter texts are filled up with id 0.
    stride: from one window to the next; 0 is `length`. Training moves each by
      less than it.
    examples: "windows" of a text, its "lines", or the beginnings of "texts".
    vocab: ids at most, of which the first two are the end and the unknown; 0
      for all that occur.
    lower: makes small letters of capitals.

  Raises:
    UserError: the corpus is unknown, not installed, or not what it should be.
  """
  return _dataset(
    "chars", corpus, path, unit="characters", length=length, stride=stride,
    examples=examples, vocab=vocab, lower=lower,
  )  # fmt: skip


def words(
  *,
  corpus: str = "kjv",
  path: str = "",
  length: int = 64,
  stride: int = 0,
  examples: str = "windows",
  vocab: int = 8192,
  lower: bool = False,
) -> Dataset:
  """Words and marks of a corpus: the King James Bible or manual pages.

  From: the Debian packages `bible-kjv` and `bible-kjv-text` (kjv) or
  `manpages-dev` (manpages).
  Command: --config.data.name=words --config.data.corpus=kjv
  Fields: text.

  Texts and parts are those of `chars`. Id 0 ends a text, id 1 (`<unk>`) is
  every word that is not among those of the vocabulary.

  Args:
    corpus: "kjv" or "manpages"; "wordlist" has a word in a text.
    path: as in `chars`.
    length: words and marks of an example; shorter texts are filled up with id
      0.
    stride: as in `chars`.
    examples: "windows" of a text, its "lines", or the beginnings of "texts".
    vocab: ids at most: the two special ones and the most frequent words; 0
      for all that occur.
    lower: makes small letters of capitals.

  Raises:
    UserError: the corpus is unknown, not installed, or not what it should be.
  """
  return _dataset(
    "words", corpus, path, unit="words", length=length, stride=stride,
    examples=examples, vocab=vocab, lower=lower,
  )  # fmt: skip


def pages(
  *,
  corpus: str = "manpages",
  path: str = "",
  length: int = 128,
  chunk: int = 32,
  neighbours: int = 2,
  unit: str = "words",
  vocab: int = 8000,
  lower: bool = False,
) -> Dataset:
  """Windows of pages, and what other pages say that is like each chunk.

  From: the Debian package `manpages-dev` (manpages), or `bible-kjv` and
  `bible-kjv-text` (kjv).
  Command: --config.data.name=pages --config.data.corpus=manpages
  Fields: text, document, and neighbours, i32[length / chunk, k, 2 chunk].

  Ready for models that retrieve: windows begin at multiples of `chunk`, and
  beside every chunk of one stand the k chunks of other training pages that are
  most like it (tf-idf of words and pairs of words, cosine), each with the
  chunk that follows. A row of zeros is none. They are found once and kept
  under ~/.cache/ar_jax, or where AR_JAX_CACHE says.

  Args:
    corpus: "manpages" or "kjv", whose chapters are the pages.
    path: as in `chars`.
    length: ids of a window, a multiple of `chunk`.
    chunk: ids of a chunk.
    neighbours: k; 0 for none.
    unit: "words" or "characters".
    vocab: ids at most, as in `words`.
    lower: makes small letters of capitals.

  Raises:
    UserError: the corpus is unknown, not installed, or not what it should be.
  """
  return _dataset(
    "pages", corpus, path, unit=unit, length=length, vocab=vocab, lower=lower,
    chunk=chunk, neighbours=neighbours,
  )  # fmt: skip


def _dataset(name: str, corpus: str, path: str, **layout) -> Dataset:
  made = examples.Layout(**layout)
  found = read(corpus, path)
  n = len(found.texts)
  if n < 2:
    raise UserError(
      f"{path or corpus}: {n} texts, and one must be held out; "
      "data.name=text takes a single file"
    )
  held = max(1, round(_HELD_OUT * n))
  train, test = split_by_seed(n, held)
  pick = lambda rows: [found.texts[i] for i in rows]
  return examples.dataset(
    f"{name} of {corpus}", pick(train), pick(test), made, digest=found.digest
  )


def read(corpus: str, path: str = "") -> Corpus:
  """A corpus by its name.

  Args:
    corpus: "kjv", "manpages" or "wordlist".
    path: as in `chars`.

  Raises:
    UserError: it is unknown, not installed, or not what it should be.
  """
  if corpus not in CORPORA:
    close = difflib.get_close_matches(corpus, CORPORA, 1)
    hint = f"did you mean {close[0]!r}?" if close else "there are"
    raise UserError(
      f"data.corpus={corpus!r}: {hint} {', '.join(CORPORA)}; your own files "
      "are data.name=text"
    )
  return CORPORA[corpus](path)


def _kjv(path: str) -> Corpus:
  """Chapters, a verse a line."""
  if path:
    file = _given(path)
    printed = reading.read(file)
  else:
    file, program = _BIBLE, shutil.which("bible")
    if program is None or not file.exists():
      raise UserError(
        "corpus 'kjv': the program `bible` or its text is not here; "
        "apt-get install bible-kjv bible-kjv-text, or name a file of verses "
        "as `bible -f` prints them: data.path=FILE"
      )
    command = [program, "-f", "gen1:1-rev22:21"]
    done = subprocess.run(
      command, capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    printed = done.stdout.decode("utf-8", errors="replace")
  chapters: dict[str, list[str]] = {}
  for line in printed.splitlines():
    verse = re.match(r"(\w+ ?\d+):\d+ (.+)", line)
    if verse:
      chapters.setdefault(verse[1], []).append(verse[2].strip())
  if not chapters:
    raise UserError(
      f"{file}: no verse such as 'Gen1:1 In the beginning' in what "
      f"{'it holds' if path else '`bible -f gen1:1-rev22:21` prints'}; "
      "apt-get install --reinstall bible-kjv bible-kjv-text"
    )
  texts = ["\n".join(verses) for verses in chapters.values()]
  return Corpus(texts, digests.of_files(file.parent, [file]))


def _manpages(path: str) -> Corpus:
  """Pages of sections 2 and 3, those of the package where dpkg lists them."""
  root = _given(path) if path else _MAN
  files: Iterable[pathlib.Path]
  if not path and _MAN_FILES.exists():
    listed = _MAN_FILES.read_text(encoding="utf-8").split("\n")
    files = [pathlib.Path(f) for f in listed if re.search(r"/man[23]/.", f)]
  else:
    files = [f for s in (2, 3) for f in root.glob(f"man{s}*/*.{s}*")]
  # Of a page with several names the others are links, or one `.so` line.
  files = sorted(f for f in files if f.is_file() and not f.is_symlink())
  texts, other = [], []
  for file in files:
    try:
      raw = file.read_bytes()
      raw = gzip.decompress(raw) if file.suffix == ".gz" else raw
      source = raw.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as e:
      raise UserError(
        f"{file}: cannot be read as a manual page ({e}); "
        "apt-get install --reinstall manpages-dev"
      ) from e
    text = roff.plain(source)
    (texts if text else other).append(text or file.name)
  if not texts:
    raise UserError(
      f"corpus 'manpages': no page in {root}/man2 and {root}/man3; "
      "apt-get install manpages-dev, or name a folder that has them: "
      "data.path=FOLDER"
    )
  if other:
    notes.once(
      f"{root}: left out {notes.listed(other)}, which only point to other "
      "pages or are not written in `man` macros"
    )
  return Corpus(texts, digests.of_files(root, files))


def _wordlist(path: str) -> Corpus:
  file = _given(path) if path else _WORDS
  if not file.exists():
    raise UserError(
      f"corpus 'wordlist': there is no {file}; apt-get install wamerican, or "
      "name a file with a word in every line: data.path=FILE"
    )
  texts = [w for line in reading.read(file).split("\n") if (w := line.strip())]
  return Corpus(
    list(dict.fromkeys(texts)), digests.of_files(file.parent, [file])
  )


def _given(path: str) -> pathlib.Path:
  found = pathlib.Path(path).expanduser()
  if not found.exists():
    raise UserError(f"data.path={path!r}: no such file or folder")
  return found


CORPORA: dict[str, Callable[[str], Corpus]] = {
  "kjv": _kjv,
  "manpages": _manpages,
  "wordlist": _wordlist,
}
