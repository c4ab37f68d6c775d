"""Arrays that take long to compute, saved under `~/.cache/ar_jax`, or where
AR_JAX_CACHE says, by a digest of all that they depend on."""

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
