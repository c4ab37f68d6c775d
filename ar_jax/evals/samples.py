"""Samples for an evaluator, as they would be stored.

What is true of them stands in the fields of the same names of the examples
that their conditions come from: `conditions.truth`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ar_jax import conditions
from ar_jax.core import forms as kinds
from ar_jax.core.forms import Form
from ar_jax.core.system import System, UserError, Vars

CHUNK = 1000  # samples in memory at once, about

Draw = Callable[..., dict[str, np.ndarray]]  # as `ar_jax.step.draw`


def chunks(
  system: System,
  variables: Vars,
  cond: Mapping[str, np.ndarray],
  key: jax.Array,
  *,
  batch: int,
  forms: Mapping[str, Form],
  options: Mapping[str, Any] | None = None,
  draw: Draw | None = None,
) -> Iterator[dict[str, np.ndarray]]:
  """Chunks of what a system makes, a sample per row of `cond`.

  The chunks are whole batches, so that only the last one is padded.

  Args:
    system, variables, cond, key: as in `ar_jax.step.draw`.
    batch: samples drawn at once.
    forms: of the data.
    options: of `system.sample`.
    draw: in place of `ar_jax.step.draw`.

  Yields:
    name -> [n, ...] for the fields of `system.makes`, as their forms store
    them: images are u8[n, H, W, C].

  Raises:
    UserError: as `stored`.
  """
  if draw is None:
    from ar_jax.step import draw  # evaluation without samples does not need it
  step = batch * max(1, CHUNK // batch)
  n = len(next(iter(cond.values())))
  for start in range(0, n, step):
    drawn = draw(
      system,
      variables,
      {k: v[start : start + step] for k, v in cond.items()},
      key,
      batch=min(batch, n),
      start=start,
      options=dict(options or {}),
    )
    yield stored(drawn, forms)


def whole(*args, **kwargs) -> dict[str, np.ndarray]:
  """What `chunks` yields, behind each other; arguments as there."""
  parts = list(chunks(*args, **kwargs))
  return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def stored(
  drawn: Mapping[str, np.ndarray], forms: Mapping[str, Form]
) -> dict[str, np.ndarray]:
  """Fields that were drawn, as files hold them.

  Raises:
    UserError: a number in them is not finite, so nothing after it would be.
  """
  for name, x in drawn.items():
    if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
      raise UserError(
        f"the system draws {name} with numbers that are not finite; see its "
        "loss"
      )
  return kinds.stored(drawn, forms)


def field(
  name: str, system: System, *args, evaluator: str, **kwargs
) -> Iterator[np.ndarray]:
  """Chunks of one field; arguments as in `chunks`.

  Raises:
    UserError: the system does not make it.
  """
  check_makes(system, name, evaluator)
  return (chunk[name] for chunk in chunks(system, *args, **kwargs))


def check_makes(system: System, name: str, evaluator: str) -> None:
  """Raises UserError unless a system makes the field that an evaluator
  scores."""
  if name not in system.makes:
    raise UserError(
      f"evals.{evaluator}: scores the field {name!r} of samples; this system "
      f"makes {', '.join(system.makes) or 'none'}; take it out of evals"
    )


def check_pairs(system: System, evaluator: str) -> None:
  """Raises UserError unless every sample has a truth of its own, in the test
  example that its condition comes from."""
  if not conditions.of_examples(system):
    raise UserError(
      f"evals.{evaluator}: compares every sample with its test example; this "
      f"system reads {' and '.join(system.needs) or 'nothing'} and no example; "
      "take it out of evals"
    )
