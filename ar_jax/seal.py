"""The seal of a checkpoint: sums of its files, compared before it is read.

All processes of a run call these together, and share the reading.
"""

from __future__ import annotations

import json
import pathlib
import zlib

import jax
import numpy as np

from ar_jax.core import processes

SEAL = "seal.json"


def _files(step: pathlib.Path) -> list[str]:
  """All that is sealed. A killed run may have left `seal.json.tmp`."""
  files = (p for p in step.rglob("*") if p.is_file())
  return sorted(
    str(p.relative_to(step)) for p in files if not p.name.startswith(SEAL)
  )


def _crc(path: pathlib.Path) -> int:
  crc = 0
  with path.open("rb") as f:
    while block := f.read(1 << 24):
      crc = zlib.crc32(block, crc)
  return crc


def _sums(step: pathlib.Path, names: list[str]) -> list[int | None]:
  """The CRC-32 of each file, None where it cannot be read. Every process sums
  the files of its turn."""
  own = np.zeros((len(names), 2), np.uint32)
  for i in range(jax.process_index(), len(names), jax.process_count()):
    try:
      own[i] = 1, _crc(step / names[i])
    except OSError:
      continue
  found = processes.gather(own).sum(0, dtype=np.uint32)
  return [int(crc) if read else None for read, crc in found]


def close(step: pathlib.Path) -> None:
  """Seals the folder of a step that is complete."""
  names = processes.broadcast(_files(step))
  sums = dict(zip(names, _sums(step, names), strict=True))
  if processes.leads():
    temporary = step / (SEAL + ".tmp")
    temporary.write_text(json.dumps(sums))
    temporary.rename(step / SEAL)


def fault(step: pathlib.Path) -> str | None:
  """Why a step cannot be trusted; None if it can (or was never sealed)."""
  wanted = None
  if processes.leads() and (step / SEAL).exists():
    try:
      wanted = json.loads((step / SEAL).read_text())
    except (OSError, ValueError):
      wanted = {SEAL: None}  # no sum is None: the seal itself is damaged
  wanted = processes.broadcast(wanted)
  if wanted is None:
    return None
  for name, crc in zip(wanted, _sums(step, list(wanted)), strict=True):
    if crc is None:
      return f"{name} is missing"
    if crc != wanted[name]:
      return f"{name} has changed since it was written"
  return None
