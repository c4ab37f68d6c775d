"""Silences what libraries say and a person can do nothing about."""

from __future__ import annotations

import logging

# The logger that says it, and a part of what it says.
UNWANTED = (
  ("jax._src.xla_bridge", "Unable to initialize backend"),
  ("absl", "Unable to initialize backend"),
  ("absl", "CheckpointManagerOptions.read_only"),  # orbax, of every reader
  ("absl", "Given directory is read only"),
)


class _Unwanted(logging.Filter):
  def filter(self, record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return not any(
      name == record.name and part in text for name, part in UNWANTED
    )


_FILTER = _Unwanted()


def hush() -> None:
  """Drops these lines from now on; to be called before JAX looks for devices."""
  for name in {name for name, _ in UNWANTED}:
    logging.getLogger(name).addFilter(_FILTER)
