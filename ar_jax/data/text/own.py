"""The user's own text files."""

from __future__ import annotations

import pathlib

from ar_jax.core.errors import UserError
from ar_jax.data import digests, notes
from ar_jax.data.dataset import Dataset
from ar_jax.data.folders import layout as folders
from ar_jax.data.folders import parts, walk
from ar_jax.data.text import examples as layouts
from ar_jax.data.text import reading

SUFFIXES = (".txt", ".md")


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
  tree = walk.walk(root, SUFFIXES, "text")
  if not tree.files:
    there = f", only {walk.kinds(tree.others)}" if tree.others else ""
    raise UserError(
      f"{root}: no .txt or .md file in it{there}; name another folder, or a "
      "single file of any name"
    )
  found = folders.layout(root, tree, classes=1)
  skipped = walk.skipped(tree)
  said = [*([f"skipped {skipped}"] if skipped else []), *found.remarks]
  seen: dict[str, str] = {}
  empty: list[str] = []
  copies: list[str] = []
  both = []
  for files in (found.train, found.test):
    texts = []
    for entry, label in files:
      if entry.who is None:  # a link to nothing, a pipe
        said.append(f"{entry.name} is no file")
        continue
      text = reading.read(pathlib.Path(entry.path))
      if not text.strip():
        empty.append(entry.name)
      elif text in seen:
        copies.append(entry.name)
      else:
        seen[text] = entry.name
        texts.append((entry, label))
    both.append(texts)
  if empty:
    said.append(f"{len(empty)} empty: {notes.listed(empty)}")
  if copies:
    said.append(
      f"{len(copies)} copies of others left out: {notes.listed(copies)}"
    )
  if not seen:
    raise UserError(f"{root}: holds no text, its files are empty")
  train, test = both
  if not found.test:
    train, test, more = parts.hold_out(root, train, fraction, "text")
    said += more
  text_of = {name: text for text, name in seen.items()}
  pick = lambda files: [text_of[entry.name] for entry, _ in files]
  digest = digests.of_stats(
    ("/".join((part, *e.parts)), e.size, e.changed)
    for part, files in (("train", train), ("test", test))
    for e, _ in files
  )
  return pick(train), pick(test), digest, said
