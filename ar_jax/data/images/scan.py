"""Which pictures of a folder can be read, found out before any is needed."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ar_jax.core.errors import UserError
from ar_jax.data import digests, notes
from ar_jax.data.folders import walk
from ar_jax.data.folders.walk import Entry
from ar_jax.data.images import reader

# Endings that are read, where Pillow has been built with the format.
SUFFIXES = tuple(
  ".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff .ppm .pgm "
  ".pbm .pnm .jp2 .tga .avif .heic .heif .jxl".split()
)
_MANY = 20_000  # pictures that take some seconds to look at
_FEW = 16_000_000  # bytes of pictures that take about a second to decode


def suffixes() -> tuple[str, ...]:
  """The endings of files that are read on this machine."""
  known = Image.registered_extensions()
  return tuple(s for s in SUFFIXES if known.get(s) in Image.OPEN)


def pictures(root: str | os.PathLike) -> walk.Tree:
  """Everything in `root`; see `folders.walk`."""
  return walk.walk(root, suffixes(), "picture")


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
