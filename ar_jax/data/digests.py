"""Digests that say what data are made of, so that nothing made of them before
is taken for what they are now.

Files are known by their names relative to the data's folder, their sizes and
the times of their last change: it costs no reading, is the same for `photos`
and `photos/`, and changes when a picture is replaced.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np


def fingerprint(*things: Any) -> str:
  """A digest of nested dicts, sequences, arrays, numbers and strings."""
  sha = hashlib.sha256()

  def add(thing: Any) -> None:
    if isinstance(thing, dict):
      sha.update(f"dict {len(thing)};".encode())
      for key in sorted(thing, key=str):
        add(str(key))
        add(thing[key])
    elif isinstance(thing, list | tuple):
      sha.update(f"list {len(thing)};".encode())
      for item in thing:
        add(item)
    elif hasattr(thing, "dtype"):
      array = np.asarray(thing)
      sha.update(f"array {array.dtype} {array.shape};".encode())
      sha.update(np.ascontiguousarray(array).tobytes())
    else:
      sha.update(f"{type(thing).__name__} {thing!r};".encode())

  add(things)
  return sha.hexdigest()[:16]


def of_stats(stats: Iterable[tuple[str, int, int]]) -> str:
  """Of files given as (name, size in bytes, time of change in ns)."""
  sha = hashlib.sha256()
  for name, size, changed in stats:
    sha.update(b"%s\0%d %d\n" % (os.fsencode(name), size, changed))
  return sha.hexdigest()[:16]


def of_files(root: str | os.PathLike, files: Iterable[pathlib.Path]) -> str:
  """Of the files, by their names below `root`; one that is not there is
  nothing but its name."""
  stats = []
  for file in files:
    name = os.path.relpath(file, root)
    try:
      found = os.stat(file)
      stats.append((name, found.st_size, found.st_mtime_ns))
    except OSError:
      stats.append((name, -1, 0))
  return of_stats(sorted(stats))
