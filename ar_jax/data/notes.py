"""What the data tell the user, in one line and once."""

from __future__ import annotations

import logging

_log = logging.getLogger("ar_jax")
_told: set[str] = set()


def once(message: str, about: str = "") -> None:
  """Logs a line the first time that this process comes to it.

  Args:
    message: the line.
    about: what it is about; of several lines about one thing only the first
      is told. By default the line itself.
  """
  if (about or message) not in _told:
    _told.add(about or message)
    _log.info("%s", message)


def listed(things, most: int = 5) -> str:
  """The first of some things, and how many more there are."""
  things = [str(thing) for thing in things]
  more = len(things) - most
  return ", ".join(things[:most]) + (f" and {more} more" if more > 0 else "")


def printable(name: str) -> str:
  """A file's name that stays on one line, whatever bytes it is made of."""
  return name if name.isprintable() else ascii(name)[1:-1]
