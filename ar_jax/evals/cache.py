"""What evaluation computes once and keeps: judges and reference statistics.

Files lie under `~/.cache/ar_jax`, or where AR_JAX_CACHE says, and are named by
a digest of what they depend on. Data are known by the options they are loaded
with and the names, sizes and times of all their files; a file that is changed
with its size and time kept is seen only if a probe falls on it.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Mapping

import numpy as np
from absl import logging

from ar_jax.core import processes
from ar_jax.core.forms import Image, described
from ar_jax.data import Dataset

_PROBES = 64  # examples of each split that are looked at


def digest(*parts: str | bytes | np.ndarray) -> str:
  """32 hexadecimal digits that change if any part changes."""
  hashed = hashlib.sha256()
  for part in parts:
    if isinstance(part, np.ndarray):
      hashed.update(f"{part.dtype}{part.shape}".encode())
      part = np.ascontiguousarray(part).tobytes()
    hashed.update(part.encode() if isinstance(part, str) else part)
    hashed.update(b"\0")
  return hashed.hexdigest()[:32]


def data_digest(data: Dataset) -> str:
  """Of what the data set is read from, of what its fields mean, and of
  examples of both splits, all of their fields.

  All examples of a set that does not say what it is read from (one that is
  made by hand) are hashed; of the others some evenly spaced ones, which see
  what neither files nor options do: another version of a library.
  """
  parts: list[str | np.ndarray] = [
    data.name,
    str(data.num_classes),
    data.digest,
  ]
  for name, form in sorted(data.forms.items()):
    if form != Image():  # pixels say themselves what they are
      parts += [name, repr(described(form))]
  for source in (data.train, data.test):
    parts.append(str(len(source)))
    n = min(len(source), _PROBES) if data.digest else len(source)
    for i in np.linspace(0, len(source) - 1, n).astype(int):
      example = source[int(i)]
      for field in sorted(example):
        parts += [field, np.asarray(example[field])]
  return digest(*parts)


def _path(kind: str, name: str) -> pathlib.Path:
  home = os.environ.get("AR_JAX_CACHE") or "~/.cache/ar_jax"
  return pathlib.Path(home).expanduser() / kind / f"{name}.npz"


def load(kind: str, name: str) -> dict[str, np.ndarray] | None:
  """The arrays saved under this name, or None if there are none, or not on
  every host of a run: what follows is for all processes to do alike."""
  found = _load(kind, name)
  return found if processes.agree(found is not None) else None


def _load(kind: str, name: str) -> dict[str, np.ndarray] | None:
  try:
    with np.load(_path(kind, name), allow_pickle=False) as f:
      return dict(f)
  except FileNotFoundError:
    return None
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
    logging.warning("cached %s ignored: %s", _path(kind, name), e)
    return None


def save(kind: str, name: str, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes all or nothing, so that a reader never meets half a file."""
  path = _path(kind, name)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as f:
      try:
        np.savez(f, **arrays)
        f.close()
        os.replace(f.name, path)
      except BaseException:
        os.unlink(f.name)
        raise
  except OSError as e:  # a full or read-only disk costs time, not the result
    logging.warning("%s not cached: %s", kind, e)
