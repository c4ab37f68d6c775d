"""What lies in a folder of pictures: one walk, before anything is read.

Hidden files and folders, and those that systems put beside pictures, are
passed over. A link to a folder is followed unless it leads to what is read
already, so no picture is there twice.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import os
import pathlib
import stat
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from ar_jax.core.errors import UserError
from ar_jax.data import digests, notes
from ar_jax.data.images import reader

# Endings that are read, where Pillow has been built with the format.
SUFFIXES = tuple(
  ".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff .ppm .pgm "
  ".pbm .pnm .jp2 .tga .avif .heic .heif .jxl".split()
)
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


_MANY = 20_000  # pictures that take some seconds to look at
_FEW = 16_000_000  # bytes of pictures that take about a second to decode


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
  def name(self) -> str:
    return notes.printable("/".join(self.parts))


@dataclasses.dataclass
class Tree:
  """What a walk has found.

  Attributes:
    pictures: by path.
    others: files with endings that are not read.
    folders: the paths of all folders, as `parts`.
    hidden: how many hidden pictures and folders were passed over.
    remarks: what else to tell.
  """

  pictures: list[Entry]
  others: list[Entry]
  folders: set[tuple[str, ...]]
  hidden: int
  remarks: list[str]

  def below(self, *parts: str) -> Tree:
    """The part of it below a folder of the first level."""
    n = len(parts)
    return dataclasses.replace(
      self,
      pictures=[e for e in self.pictures if e.parts[:n] == parts],
      others=[e for e in self.others if e.parts[:n] == parts],
    )


def suffixes() -> tuple[str, ...]:
  """The endings of files that are read on this machine."""
  known = Image.registered_extensions()
  return tuple(s for s in SUFFIXES if known.get(s) in Image.OPEN)


def walk(root: str | os.PathLike) -> Tree:
  """Everything in `root`; see the module's docstring."""
  root = os.path.abspath(root)
  tree = Tree([], [], {()}, 0, [])
  readable = suffixes()
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
        (tree.pictures if kind in readable else tree.others).append(entry)

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
  tree.pictures.sort(key=lambda e: e.parts)
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


def check(
  root: str | os.PathLike, entries: Sequence[Entry], *, skip: bool
) -> tuple[list[Entry], list[tuple[int, int]], list[str]]:
  """(those that can be read, their width and height, what to tell of others).

  A few pictures are decoded whole. Of many only the header and the end are
  read; damage between them is found when the picture is needed. Of very many
  it is remembered that these very files were good.

  Args:
    root: for messages.
    entries: pictures.
    skip: whether to leave out the ones that cannot be read.

  Raises:
    UserError: some cannot be read, and `skip` is not set; it names them.
  """
  digest = digests.of_stats(
    ("/".join(e.parts), e.size, e.changed) for e in entries
  )
  if len(entries) > _MANY and (known := _known_sizes(digest)) is not None:
    return list(entries), known, []
  whole = sum(e.size for e in entries) <= _FEW
  look = lambda some: [reader.look(e.path, whole) for e in some]
  chunks = [entries[i : i + 64] for i in range(0, len(entries), 64)]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    seen = [found for part in pool.map(look, chunks) for found in part]
  both = list(zip(entries, seen, strict=True))
  good = [e for e, (why, _) in both if not why]
  sizes = [size for _, (why, size) in both if not why]
  bad = [f"{e.name} ({why})" for e, (why, _) in both if why]
  if not bad:
    if len(entries) > _MANY:
      _keep_sizes(digest, sizes)
    return good, sizes, []
  said = f"{len(bad)} cannot be read: {notes.listed(bad)}"
  if not skip:
    raise UserError(
      f"{root}: of {len(entries)} pictures {said}; remove or replace them, or "
      "leave them out with data.skip_bad=True"
    )
  return good, sizes, [said]


def _record(digest: str) -> pathlib.Path:
  home = os.environ.get("AR_JAX_CACHE") or "~/.cache/ar_jax"
  return pathlib.Path(home).expanduser() / "scans" / f"{digest}.npy"


def _known_sizes(digest: str) -> list[tuple[int, int]] | None:
  """What was found when these files were looked at before."""
  try:
    return [(int(w), int(h)) for w, h in np.load(_record(digest))]
  except (OSError, ValueError, EOFError):
    return None


def _keep_sizes(digest: str, sizes: Sequence[tuple[int, int]]) -> None:
  record = _record(digest)
  try:
    record.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=record.parent, delete=False) as f:
      np.save(f, np.asarray(sizes, np.int32))
    os.replace(f.name, record)
  except OSError:  # a full or read-only disk costs time, not the run
    pass
