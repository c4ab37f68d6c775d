"""What libraries print and a user cannot act on."""

from __future__ import annotations

import logging
import threading


def _worth_reading(record: logging.LogRecord) -> bool:
  return "orbax" not in record.pathname


def _of_library(trace) -> bool:
  while trace:
    name = trace.tb_frame.f_code.co_filename
    if "/orbax/" in name or "/tensorboardX/" in name:
      return True
    trace = trace.tb_next
  return False


def _hook(args, before=threading.excepthook):
  if not _of_library(args.exc_traceback):
    before(args)


def orbax() -> None:
  """Orbax logs what it raises as well, with tracebacks from all its threads,
  and warns of what it was asked for. What fails is said once, by our error."""
  logger = logging.getLogger("absl")
  if _worth_reading not in logger.filters:
    logger.addFilter(_worth_reading)
  threads()


def threads() -> None:
  """Threads of libraries that write files end with a traceback each when a
  disk is full; the run itself says so in one line."""
  threading.excepthook = _hook
