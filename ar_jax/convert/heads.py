"""How many heads of attention a file has: the size that most do not tell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.files.tables import State

# A temperature for each head, where queries and keys are normalised.
_TEMPERATURES = ".attn.scale_mul_1H11"


def stated(state: State) -> int | None:
  """What a file says of its heads, if it does."""
  found = (x for key, x in state.items() if key.endswith(_TEMPERATURES))
  first = next(found, None)
  return None if first is None else int(np.size(first))


def count(
  state: State,
  width: int,
  published: Mapping[int, int],
  given: int | None,
  name: str,
) -> int:
  """The heads of a file: as given, else as it says, else as published.

  Args:
    state: official key -> array.
    width: D.
    published: width -> heads.
    given: by the user, or None.
    name: of the family, for the message.

  Raises:
    UserError: the heads are not known, or do not divide the width.
  """
  heads = given or stated(state) or published.get(width)
  if heads is None:
    raise UserError(
      f"how many heads has it? The file does not tell, and width {width} is no "
      f"published {name}: say it with --heads=N"
    )
  if heads < 1 or width % heads:
    raise UserError(f"heads={heads} do not divide the width of {width}")
  return heads


def line(model: Mapping) -> str:
  """What to say of heads that were taken from the published table."""
  return (
    f"heads: {model['heads']}, as published for width {model['width']}; the "
    "file does not tell (--heads=N for another number)"
  )
