"""Files that say the texts of others beside them, a line each."""

from __future__ import annotations

import pathlib

from ar_jax.core.errors import UserError
from ar_jax.data import notes
from ar_jax.data.folders.walk import Entry
from ar_jax.data.text import reading


def listed(file: Entry) -> dict[tuple[str, ...], str]:
  """The texts that a file says, by the paths of what they belong to, as parts
  below the root: a line is a name, a tab (or comma, or space) and a text.

  Raises:
    UserError: the file is no text, or a line has no name and text.
  """
  found = {}
  lines = reading.read(pathlib.Path(file.path)).split("\n")
  for n, line in enumerate(lines, 1):
    if not line.strip():
      continue
    mark = next((m for m in "\t, " if m in line), None)
    if mark is None:
      raise UserError(
        f"{notes.printable(file.path)}: line {n} has no tab, comma or space "
        "between a file name and its text"
      )
    name, _, text = line.partition(mark)
    place = tuple(p for p in name.strip().split("/") if p not in ("", "."))
    found[(*file.parts[:-1], *place)] = text.strip().strip('"')
  return found
