"""What libraries print and a user cannot act on.

What fails is said once, by the error that ends the run. Orbax logs what it
raises as well, with tracebacks from all its threads, and warns of what it was
asked for; threads that write files end with a traceback each when a disk is
full, and so do the writers that are closed at the end.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings

_LIBRARIES = ("/orbax/", "/tensorboardX/")


def _worth_reading(record: logging.LogRecord) -> bool:
  return "orbax" not in record.pathname


def _of_library(trace) -> bool:
  while trace:
    name = trace.tb_frame.f_code.co_filename
    if any(library in name for library in _LIBRARIES):
      return True
    trace = trace.tb_next
  return False


def _hook(before):
  def call(args):
    if not _of_library(args.exc_traceback):
      before(args)

  return call


def libraries() -> None:
  """Silences them, once."""
  logger = logging.getLogger("absl")
  if _worth_reading in logger.filters:
    return
  logger.addFilter(_worth_reading)
  threading.excepthook = _hook(threading.excepthook)
  sys.unraisablehook = _hook(sys.unraisablehook)
  # Then a program is compiled again.
  warnings.filterwarnings("ignore", "Error .* persistent compilation cache")
