"""Files that say the texts of others beside them, a line each."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from ar_jax.core.errors import UserError
from ar_jax.data import notes
from ar_jax.data.folders.walk import Entry
from ar_jax.data.text import reading


def _mark(line: str) -> str | None:
  """What parts the name from the text: a tab wherever it is, else the first
  bar or comma, else the first space."""
  if "\t" in line:
    return "\t"
  places = {line.find(m): m for m in "|," if m in line}
  return places[min(places)] if places else " " if " " in line else None


def _unquoted(cell: str) -> str:
  """Without the quotes that a table writes around a cell; within them a quote
  stands twice, or behind a backslash."""
  cell = cell.strip()
  if len(cell) < 2 or not cell[0] == cell[-1] == '"':
    return cell
  return cell[1:-1].replace('""', '"').replace('\\"', '"')


def listed(
  files: Iterable[Entry], endings: Sequence[str] = ()
) -> dict[tuple[str, ...], str]:
  """The texts that files say, one of each name; see `every`.

  Raises:
    UserError: as there, or two lines say different texts of one name.
  """
  found: dict[tuple[str, ...], str] = {}
  for at, place, text in _named(files, endings):
    if found.setdefault(place, text) != text:
      raise UserError(
        f"{at}: {notes.printable('/'.join(place))} has another text above; "
        "leave one"
      )
  return found


def every(
  files: Iterable[Entry], endings: Sequence[str] = ()
) -> dict[tuple[str, ...], list[str]]:
  """The texts that files say, by the paths of what they belong to, as parts
  below the root: a line is a name, a tab (or bar, comma, space) and a text.
  Between bars the last text is taken: of the three columns of LJ Speech the one
  whose numbers are in words.

  Args:
    files: the lists.
    endings: which a name may have or lack, in small letters; paths are without.

  Raises:
    UserError: a file is no text, or a line has no name and text.
  """
  found: dict[tuple[str, ...], list[str]] = {}
  for _, place, text in _named(files, endings):
    found.setdefault(place, []).append(text)
  return found


def _named(
  files: Iterable[Entry], endings: Sequence[str]
) -> Iterator[tuple[str, tuple[str, ...], str]]:
  """(where it stands, path without one of these endings, text) of each line."""
  for file in files:
    for at, place, text in _lines(file):
      stem, ending = os.path.splitext(place[-1]) if place else ("", "")
      if ending.lower() in endings:
        place = (*place[:-1], stem)
      yield at, place, text


def _lines(file: Entry) -> Iterator[tuple[str, tuple[str, ...], str]]:
  """(where it stands, path, text) of each line."""
  lines = reading.read(pathlib.Path(file.path)).split("\n")
  for n, line in enumerate(lines, 1):
    if not line.strip():
      continue
    line = line.lstrip(" ")  # a mark at the end says that the text is empty
    mark = _mark(line)
    at = f"{notes.printable(file.path)}: line {n}"
    if mark is None:
      raise UserError(
        f"{at} has no tab, bar, comma or space between a file name and its text"
      )
    name, _, text = line.partition(mark)
    if mark == "|":
      text = text.rpartition(mark)[2]
    place = (p for p in _unquoted(name).split("/") if p not in ("", "."))
    yield at, (*file.parts[:-1], *place), _unquoted(text)
