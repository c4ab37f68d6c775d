"""The seal of a checkpoint: sums of its files, compared before it is read.

Damage is what the seal says, and nothing else: a file that is gone, or whose
content is no longer the one that was sealed. A file that the system refuses to
read says nothing about its content, so that is an error and no damage.

All processes of a run call these together, share the reading, and come to the
same answer.
"""

from __future__ import annotations

import json
import os
import pathlib
import zlib

import jax
import numpy as np

from ar_jax.core import processes
from ar_jax.core.errors import UserError

SEAL = "seal.json"
_ABSENT, _READ, _REFUSED = range(3)


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
  """The CRC-32 of each file, None where there is none. Every process sums the
  files of its turn.

  Raises:
    UserError: a file cannot be read now; raised by all processes.
  """
  own = np.zeros((len(names), 2), np.uint32)
  for i in range(jax.process_index(), len(names), jax.process_count()):
    try:
      own[i] = _READ, _crc(step / names[i])
    except (FileNotFoundError, NotADirectoryError):
      continue
    except OSError as e:
      own[i] = _REFUSED, e.errno or 0
  sums = []
  for name, row in zip(names, processes.gather(own).sum(0), strict=True):
    state, value = map(int, row)
    if state == _REFUSED:
      raise UserError(
        f"{step / name}: cannot be read now ({os.strerror(value)}); nothing "
        "was changed: mend that and run again"
      )
    sums.append(value if state == _READ else None)
  return sums


def sealed(step: pathlib.Path) -> bool:
  return (step / SEAL).exists()


def close(step: pathlib.Path) -> None:
  """Seals the folder of a step that is complete.

  Raises:
    UserError: a file cannot be read.
  """
  names = processes.broadcast(_files(step))
  sums = dict(zip(names, _sums(step, names), strict=True))
  if processes.leads():
    temporary = step / (SEAL + ".tmp")
    temporary.write_text(json.dumps(sums))
    temporary.rename(step / SEAL)


def fault(step: pathlib.Path) -> str | None:
  """Why a step cannot be trusted; None if it can (or was never sealed).

  Raises:
    UserError: it cannot be told, for a file cannot be read now.
  """
  wanted, refused = None, ""
  if processes.leads() and sealed(step):
    try:
      wanted = json.loads((step / SEAL).read_text())
      wanted = wanted if isinstance(wanted, dict) else {SEAL: None}
    except ValueError:
      wanted = {SEAL: None}  # no sum is None: the seal itself is damaged
    except OSError as e:
      refused = e.strerror or str(e)
  wanted, refused = processes.broadcast((wanted, refused))
  if refused:
    raise UserError(
      f"{step / SEAL}: cannot be read now ({refused}); nothing was changed: "
      "mend that and run again"
    )
  if wanted is None:
    return None
  for name, crc in zip(wanted, _sums(step, list(wanted)), strict=True):
    if crc is None:
      return f"{name} is missing"
    if crc != wanted[name]:
      return f"{name} has changed since it was written"
  return None
