"""The user's own text files."""

from __future__ import annotations

import collections
import os
import pathlib

from ar_jax.core.errors import UserError
from ar_jax.data import digests, notes
from ar_jax.data.dataset import Dataset, split_by_seed
from ar_jax.data.text import examples as layouts
from ar_jax.data.text import reading

SUFFIXES = (".txt", ".md")
_TEST = ("test", "testing", "val", "valid", "validation", "eval")
_TRAIN = ("train", "training")


def text(
  *,
  path: str,
  unit: str = "characters",
  length: int = 128,
  stride: int = 0,
  examples: str = "windows",
  vocab: int = 0,
  lower: bool = False,
  test_fraction: float = 0.1,
  chunk: int = 1,
  neighbours: int = 0,
) -> Dataset:
  """Your own text: one file, or a folder of .txt and .md files.

  From: any UTF-8 text.
  Command: --config.data.name=text --config.data.path=FILE_OR_FOLDER
  Fields: text, with `neighbours` > 0 also document and neighbours.

  Of a folder all files in it and below are read, hidden ones excepted, and
  whole files are held out, the same ones every time; of a single file its
  end is. One line says what was found, cut, filled up and left out. Id 0 ends
  a text, id 1 is what the training part lacks.

  Args:
    path: the file or the folder. With a `train` or `training` sub-folder and
      one of `test`, `testing`, `val`, `valid`, `validation` and `eval`, these
      are the two parts.
    unit: "characters", "words" (marks by themselves) or "bytes" (of UTF-8;
      id 0 ends, nothing is unknown).
    length: units of an example; shorter texts are filled up with id 0.
    stride: from one window to the next; 0 is `length`. Training moves each by
      less than it.
    examples: "windows" of a file, its "lines" (empty ones left out), or the
      beginnings of whole "texts", the files.
    vocab: ids at most, the two special ones among them; 0 for all that occur.
    lower: makes small letters of capitals.
    test_fraction: the part held out where there is no test folder, 0 to 1.
    chunk: windows begin at multiples of so many units; for `neighbours`.
    neighbours: how many chunks of other files that are like it stand beside
      each chunk, as in `pages`.

  Raises:
    UserError: no such file or folder, no text in it, too little to hold some
      out, or a file that is not UTF-8 text, with the place.
  """
  layout = layouts.Layout(
    unit, length, examples, stride, vocab, lower, chunk, neighbours
  )
  root = pathlib.Path(path).expanduser()
  if not path or not root.exists():
    raise UserError(
      f"data.path={path!r}: no such file or folder; name a text file, or a "
      "folder of .txt and .md files"
    )
  if not 0 < test_fraction < 1:
    raise UserError(f"data.test_fraction={test_fraction}: must be in 0 to 1")
  if root.is_file():
    train, test = _divided(root, test_fraction, layout)
    digest, said = digests.of_files(root.parent, [root]), []
  else:
    train, test, digest, said = _folder(root, test_fraction)
  return layouts.dataset("text", train, test, layout, digest=digest, said=said)


def _divided(
  file: pathlib.Path, fraction: float, layout: layouts.Layout
) -> tuple[list[str], list[str]]:
  """The beginning and the end of a file, cut after a line if there is one."""
  whole = reading.read(file)
  if not whole.strip():
    raise UserError(f"{file}: holds no text")
  if layout.examples == "texts":
    raise UserError(
      f"{file}: is a single text, and some must be held out; take "
      "data.examples='windows' or 'lines'"
    )
  if layout.neighbours:
    raise UserError(
      f"{file}: neighbours are chunks of other files; name a folder of files"
    )
  at = int(len(whole) * (1 - fraction))
  line = whole.find("\n", at)
  if layout.examples == "lines":
    lines = [x for x in whole.split("\n") if x.strip()]
    if len(lines) < 2:
      raise UserError(
        f"{file}: is a single line, and some must be held out; take "
        "data.examples='windows'"
      )
    keep = min(max(1, int(len(lines) * (1 - fraction))), len(lines) - 1)
    return ["\n".join(lines[:keep])], ["\n".join(lines[keep:])]
  # No further than half of what is to be held out, for the sake of a line.
  if 0 <= line < at + (len(whole) - at) // 2:
    at = line + 1
  train, test = whole[:at], whole[at:]
  if not train.strip() or not test.strip():
    raise UserError(
      f"{file}: {len(whole)} characters are too few to hold some of them out"
    )
  return [train], [test]


def _folder(
  root: pathlib.Path, fraction: float
) -> tuple[list[str], list[str], str, list[str]]:
  """(texts for training, for test, digest, what to say)."""
  files, other = _walk(root)
  if not files:
    raise UserError(
      f"{root}: no .txt or .md file in it"
      + (f", only {other}" if other else "")
      + "; name another folder, or a single file of any name"
    )
  said = [f"skipped {other}"] if other else []
  texts: dict[pathlib.Path, str] = {}
  seen: dict[str, pathlib.Path] = {}
  empty, copies = [], []
  for file in files:
    name = notes.printable(str(file.relative_to(root)))
    found = reading.read(file)
    if not found.strip():
      empty.append(name)
    elif found in seen:
      copies.append(name)
    else:
      seen[found] = file
      texts[file] = found
  if empty:
    said.append(f"{len(empty)} empty: {notes.listed(empty)}")
  if copies:
    said.append(
      f"{len(copies)} copies of others left out: {notes.listed(copies)}"
    )
  if not texts:
    raise UserError(f"{root}: holds no text, its {len(files)} files are empty")
  digest = digests.of_files(root, files)
  top = lambda f: f.relative_to(root).parts[0].lower()
  train = [t for f, t in texts.items() if top(f) in _TRAIN]
  test = [t for f, t in texts.items() if top(f) in _TEST]
  if train and test:
    rest = len(texts) - len(train) - len(test)
    if rest:
      said.append(f"{rest} outside train and test left out")
    return train, test, digest, said
  if len(texts) < 2:
    raise UserError(
      f"{root}: holds a single text, and some must be held out; name the file "
      "itself, of which the end is"
    )
  held = min(max(1, round(fraction * len(texts))), len(texts) - 1)
  rows = split_by_seed(len(texts), held)
  every = list(texts.values())
  return *([every[i] for i in part] for part in rows), digest, said


def _walk(root: pathlib.Path) -> tuple[list[pathlib.Path], str]:
  """(the text files below a folder, in the order of their names, what else is
  there). Links to folders are not followed."""
  files, other = [], collections.Counter()
  for folder, below, names in os.walk(root):
    below[:] = [b for b in below if not b.startswith((".", "__MACOSX"))]
    for name in names:
      file = pathlib.Path(folder, name)
      if name.startswith(".") or not file.is_file():
        continue
      if file.suffix.lower() in SUFFIXES:
        files.append(file)
      else:
        other[file.suffix.lower() or "without a suffix"] += 1
  files.sort(key=lambda f: f.relative_to(root).parts)
  listed = notes.listed(f"{n} {suffix}" for suffix, n in sorted(other.items()))
  return files, notes.printable(listed)
