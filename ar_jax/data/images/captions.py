"""Texts of the user's own pictures, from files beside them."""

from __future__ import annotations

import collections
import csv
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.data import notes
from ar_jax.data.dataset import Around, Example, Source, utf8
from ar_jax.data.folders import labelled
from ar_jax.data.folders.walk import Entry, Tree
from ar_jax.data.images import scan
from ar_jax.data.text import reading

LISTS = ("captions.tsv", "captions.csv", "captions.txt")
TABLES = ("metadata.csv", "metadata.jsonl")  # as Hugging Face's folders have it
_NAME, _TEXT = "file_name", "text"  # columns

Path = tuple[str, ...]  # parts below the root
Texts = dict[Path, list[str]]


class WithTexts(Around):
  """A source of pictures with the field `text`: the first of the texts of a
  picture or, where training draws, any of them.

  Args:
    source: has `image` and whatever else.
    texts: of each of its pictures, one or more.
    length: bytes of the field.
  """

  def __init__(
    self, source: Source, texts: Sequence[Sequence[str]], length: int
  ):
    super().__init__(source)
    self._texts, self._length = texts, length

  def __getitem__(self, i: int) -> Example:
    return self._with(self.source[i], self._texts[i][0])

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    texts = self._texts[i]
    which = int(rng.integers(len(texts)))
    return self._with(self.source.draw(i, rng), texts[which])

  def _with(self, example: Example, text: str) -> Example:
    return {**example, "text": utf8(text, self._length)}


def found(
  root: pathlib.Path,
  tree: Tree,
  pictures: Sequence[Entry],
  length: int,
  skip: bool,
) -> tuple[Texts, list[str]]:
  """The texts of pictures, and what to tell of them: lines of `LISTS` and
  `TABLES` in its folder or in one above; where none of them names it, the lines
  of the `.txt` of its name. These files are taken out of `tree.others`.

  Args:
    root: for messages.
    tree: of the folder.
    pictures: of it, those that can be read.
    length: bytes; longer texts are cut, and counted.
    skip: whether to leave out the pictures without a text.

  Raises:
    UserError: a file of texts is none, a picture has no text, or two have one
      name.
  """
  lists = [e for e in tree.others if e.parts[-1].lower() in LISTS]
  tables = [e for e in tree.others if e.parts[-1].lower() in TABLES]
  listed = labelled.every(lists, scan.SUFFIXES)
  for table in tables:
    for place, text in _rows(table):
      listed.setdefault(place, []).append(text)
  _check_names(root, pictures)
  texts, unknown = _of_pictures(pictures, listed)
  used = {id(e) for e in (*lists, *tables)}
  others = [e for e in tree.others if id(e) not in used]
  beside = {e.stem: e for e in others if e.kind == ".txt"}
  passed = 0
  for entry in pictures:
    its = beside.get(entry.stem)
    if its is not None:
      used.add(id(its))
      if entry.parts in texts:
        passed += 1
        continue
      lines = reading.read(pathlib.Path(its.path)).split("\n")
      texts[entry.parts] = [line.strip() for line in lines]
  texts = {k: [t for t in own if t] for k, own in texts.items() if any(own)}
  tree.others = [e for e in others if id(e) not in used]
  said = _said(texts, length)
  if passed:
    said.append(f"{passed} .txt are not read, of pictures that a list names")
  if unknown:
    names = [notes.printable("/".join(place)) for place in unknown]
    said.append(
      f"{len(names)} named with a text but without a picture: "
      f"{notes.listed(names)}"
    )
  lacking = [e.name for e in pictures if e.parts not in texts]
  if lacking:
    said.insert(0, f"{len(lacking)} have no text: {notes.listed(lacking)}")
    if not skip:
      raise UserError(
        f"{root}: of {len(pictures)} pictures {'; '.join(said)}; write "
        f"NAME.txt beside NAME.jpg, or a line in {LISTS[0]}, or leave them out "
        "with data.skip_bad=True"
      )
  return texts, said


def unread(tree: Tree, pictures: Sequence[Entry]) -> list[str]:
  """What to tell of texts beside pictures that nobody asked for."""
  names = {e.stem for e in pictures}
  n = sum(
    e.parts[-1].lower() in LISTS + TABLES
    or (e.kind == ".txt" and e.stem in names)
    for e in tree.others
  )
  return [f"{n} files of texts are not read, data.text is 0"] if n else []


def _check_names(root: pathlib.Path, pictures: Sequence[Entry]) -> None:
  """Raises UserError where two pictures differ in their endings alone."""
  first: dict[Path, Entry] = {}
  for entry in pictures:
    other = first.setdefault(entry.stem, entry)
    if other is not entry:
      raise UserError(
        f"{root}: {other.name} and {entry.name} have one name, so that a text "
        "would be of both; rename one of them"
      )


def _said(texts: Texts, length: int) -> list[str]:
  said, count = [], sum(map(len, texts.values()))
  cut = sum(len(t.encode()) > length for own in texts.values() for t in own)
  if cut:
    said.append(f"{cut} texts longer than {length} bytes are cut")
  if count > len(texts):
    said.append(f"{count} texts, of which training draws one of a picture")
  return said


def _of_pictures(
  pictures: Sequence[Entry], listed: Mapping[Path, list[str]]
) -> tuple[Texts, list[Path]]:
  """(texts by the paths of pictures, names that are of none). A name that is of
  no picture beside its list is that of the one picture of this name in the
  folders below."""
  exact = {entry.stem: entry.parts for entry in pictures}
  named = collections.defaultdict(list)
  for stem, path in exact.items():
    named[stem[-1]].append(path)
  texts: Texts = {}
  unknown = []
  for place, own in listed.items():
    *folder, name = place or ("",)
    below = [p for p in named[name] if list(p[: len(folder)]) == folder]
    path = exact.get(place) or (below[0] if len(below) == 1 else None)
    if path is None:
      unknown.append(place)
    else:
      texts.setdefault(path, []).extend(own)
  return texts, unknown


def _rows(table: Entry) -> Iterator[tuple[Path, str]]:
  """(path without its ending, text) of the rows of a table, with columns of
  these names.

  Raises:
    UserError: the file is no such table.
  """
  where = notes.printable(table.path)
  raw = reading.read(pathlib.Path(table.path))
  if table.kind == ".csv":
    rows: list[Any] = list(csv.DictReader(io.StringIO(raw)))
  else:
    try:
      rows = [json.loads(line) for line in raw.split("\n") if line.strip()]
    except ValueError as e:
      raise UserError(f"{where}: a line is no JSON ({e})") from e
  for n, row in enumerate(rows, 1):
    cells = (
      [row.get(k) for k in (_NAME, _TEXT)] if isinstance(row, dict) else []
    )
    if not cells or not all(isinstance(cell, str) for cell in cells):
      raise UserError(
        f"{where}: row {n} has no texts {_NAME!r} and {_TEXT!r}; name the "
        f"columns so, or write {LISTS[0]}"
      )
    name, text = cells
    parts = [p for p in name.split("/") if p not in ("", ".")] or [""]
    parts[-1] = os.path.splitext(parts[-1])[0]
    yield (*table.parts[:-1], *parts), " ".join(text.split())
