"""What lies in a folder of data: one walk, before anything is read.

Hidden files and folders, and those that systems put beside the data, are
passed over. A link to a folder is followed unless it leads to what is read
already, so no file is there twice.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import stat
from collections.abc import Iterable, Sequence

from ar_jax.core.errors import UserError
from ar_jax.data import notes

_JUNK = {
  "__macosx", "@eadir", "@tmp", "@recycle", "#recycle", "#snapshot",
  "$recycle.bin", "recycler", "system volume information", "lost+found",
  "thumbs.db", "desktop.ini", "__pycache__",
}  # fmt: skip
# A folder of nothing but these is no class of pictures.
_DOCUMENTS = set(
  ".txt .csv .tsv .json .jsonl .xml .yaml .yml .toml .md .rst .html .htm .pdf "
  ".doc .docx .xls .xlsx .py .ipynb .sh .bat .log .ini .cfg .db .sqlite .url "
  ".lnk .zip .tar .gz .tgz .bz2 .xz .7z .rar".split()
)


@dataclasses.dataclass(frozen=True)
class Entry:
  """A file below the folder.

  Attributes:
    parts: its path below the folder.
    path: its path.
    size: bytes.
    changed: when, in ns.
    who: device and number of the file, the same for a link to it.
  """

  parts: tuple[str, ...]
  path: str
  size: int = 0
  changed: int = 0
  who: tuple[int, int] | None = None

  @property
  def kind(self) -> str:
    """The ending, in lower case."""
    return os.path.splitext(self.parts[-1])[1].lower()

  @property
  def stem(self) -> tuple[str, ...]:
    """`parts` without the ending: what files that belong together share."""
    *place, name = self.parts
    return (*place, os.path.splitext(name)[0])

  @property
  def name(self) -> str:
    return notes.printable("/".join(self.parts))


@dataclasses.dataclass
class Tree:
  """What a walk has found.

  Attributes:
    files: those that are read, by path.
    others: files with endings that are not read.
    folders: the paths of all folders, as `parts`.
    hidden: how many hidden files and folders were passed over.
    remarks: what else to tell.
    what: one of the files is called so in messages.
    endings: of the files that are read.
  """

  files: list[Entry]
  others: list[Entry]
  folders: set[tuple[str, ...]]
  hidden: int
  remarks: list[str]
  what: str
  endings: tuple[str, ...]

  def below(self, *parts: str) -> Tree:
    """The part of it below a folder of the first level."""
    n = len(parts)
    return dataclasses.replace(
      self,
      files=[e for e in self.files if e.parts[:n] == parts],
      others=[e for e in self.others if e.parts[:n] == parts],
    )


def walk(root: str | os.PathLike, endings: Sequence[str], what: str) -> Tree:
  """Everything in `root`; see the module's docstring.

  Args:
    root: a folder.
    endings: of the files that are read, as ".wav", in lower case.
    what: one of these is called so in messages.

  Raises:
    UserError: a folder cannot be listed.
  """
  root = os.path.abspath(root)
  tree = Tree([], [], {()}, 0, [], what, tuple(endings))
  readable = tree.endings
  seen = {_identity(os.stat(root))}
  links: collections.deque[tuple[tuple[str, ...], str]] = collections.deque()

  def new(path: str) -> bool:
    who = _identity(os.stat(path))
    return not (who in seen or seen.add(who))

  def list_one(parts: tuple[str, ...], path: str) -> None:
    try:
      with os.scandir(path) as listing:
        found = sorted(listing, key=lambda item: item.name)
    except OSError as e:
      raise UserError(
        f"{notes.printable(path)}: cannot be listed ({e.strerror}); change its "
        "permissions or move it away"
      ) from e
    for item in found:
      name, below = item.name, (*parts, item.name)
      kind = os.path.splitext(name)[1].lower()
      if name.startswith(".") or name.lower() in _JUNK:
        counts = kind in readable and not name.startswith("._")
        tree.hidden += counts or _is_folder(item)
      elif _is_folder(item):
        if item.is_symlink():
          links.append((below, item.path))
        elif new(item.path):
          folders.append((below, item.path))
      else:
        entry = _entry(below, item.path)
        (tree.files if kind in readable else tree.others).append(entry)

  folders = collections.deque([((), root)])
  real = os.path.realpath(root)
  while folders or links:
    if folders:
      parts, path = folders.popleft()
    else:  # links come after all that is really here
      parts, path = links.popleft()
      target = os.path.realpath(path)
      if os.path.commonpath([real, target]) == target or not new(path):
        name = notes.printable("/".join(parts))
        tree.remarks.append(f"{name}, a link to what is read already")
        continue
    tree.folders.add(parts)
    list_one(parts, path)
  tree.files.sort(key=lambda e: e.parts)
  return tree


def _is_folder(item: os.DirEntry) -> bool:
  try:
    return item.is_dir()
  except OSError:  # a link that leads to itself
    return False


def _identity(found: os.stat_result) -> tuple[int, int]:
  return found.st_dev, found.st_ino


def _entry(parts: tuple[str, ...], path: str) -> Entry:
  try:
    found = os.stat(path)
  except OSError:
    return Entry(parts, path)
  if not stat.S_ISREG(found.st_mode):
    return Entry(parts, path)
  who = _identity(found)
  return Entry(parts, path, found.st_size, found.st_mtime_ns, who)


def is_document(entry: Entry) -> bool:
  """Whether it is surely no picture of a kind that cannot be read."""
  return entry.kind in _DOCUMENTS


def kinds(entries: Iterable[Entry]) -> str:
  """As "12 .heic, 1 without ending", the most first."""
  counts = collections.Counter(e.kind or "without ending" for e in entries)
  return ", ".join(
    f"{n} {notes.printable(kind)}" for kind, n in counts.most_common()
  )


def skipped(tree: Tree) -> str:
  """As "12 .heic, 2 hidden, 1 link to what is read already"."""
  said = [kinds(tree.others)]
  if tree.hidden:
    said.append(f"{tree.hidden} hidden")
  return ", ".join(part for part in [*said, *tree.remarks] if part)
