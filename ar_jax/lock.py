"""A run owns its folder: two runs that trained in one would mix their files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import pathlib
import socket
from collections.abc import Iterator

from ar_jax.core import processes
from ar_jax.core.errors import UserError

_HELD = (errno.EAGAIN, errno.EACCES)

log = logging.getLogger("ar_jax")


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
  """Holds `workdir/lock`, for all processes of a run by its first one.

  The system releases it when the process dies, however it does; the file
  stays and says who held it last.

  Raises:
    UserError: another run holds it; raised by all processes.
  """
  file, other = None, ""
  if processes.leads():
    file, other = _take(workdir / "lock")
  try:
    if other := processes.broadcast(other):
      raise UserError(
        f"{workdir}: another run ({other}) is at work there; wait for it, "
        "stop it, or choose another --workdir"
      )
    yield
  finally:
    if file:
      file.close()


def _take(path: pathlib.Path):
  """(the file, locked, or None; who else holds it, or "")."""
  file = path.open("a+")
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as e:
    file.seek(0)
    holder = file.read().strip() or "unknown"
    if e.errno not in _HELD:
      log.warning(
        "%s: cannot be locked (%s); start no other run there", path, e.strerror
      )
      return file, ""
    file.close()
    return None, holder
  file.truncate(0)
  file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
  file.flush()
  return file, ""
