"""What the user can mend."""

from __future__ import annotations

from collections.abc import Iterable, Set


class UserError(ValueError):
  """Something the user can mend. `main` prints it as one line and exits 1.

  The message says what is wrong, where, and what to do.
  """


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
  """Raises UserError unless the value of option `name` is one of the known."""
  if value not in known:
    names = ", ".join(sorted(known) if isinstance(known, Set) else known)
    raise UserError(f"{name}={value!r}: choose one of {names}")


def check_positive(**sizes: int) -> None:
  """Raises UserError unless these sizes of a model are at least 1."""
  for name, value in sizes.items():
    if value < 1:
      raise UserError(f"model.{name}={value}: must be at least 1")
