"""Self-speculation: systems that draft for themselves (Jacobi), whatever
their plan.

Shapes: B examples, L units, M known units, V vocabulary.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import ops
from ar_jax.core import system
from ar_jax.core.decoding import jacobi, pairs, pick
from ar_jax.core.decoding.speculate import Stats
from ar_jax.core.system import Batch, UserError, Vars
from ar_jax.families.base import Generator
from ar_jax.families.drafted import Drafted
from ar_jax.families.token.drafting import speculation
from ar_jax.families.token.net import NextToken

Array = jax.Array


def target(spec: Mapping[str, Any], paper: str) -> Generator:
  """Builds a target that can draw as `generate` does.

  Args:
    spec: `{"name": "llamagen", **arguments}`.
    paper: who asks.

  Raises:
    UserError: the target has no law of discrete units.
  """
  built = system.part(spec)
  if not (isinstance(built, Generator) and hasattr(built, "logits")):
    raise UserError(
      f"{paper}: target {spec['name']!r} has no law of discrete units; take "
      "one that has, such as 'llamagen', 'nar' or 'var'"
    )
  return built


@dataclasses.dataclass(frozen=True)
class SelfSpeculative(Drafted):
  """A system whose target drafts for itself, with a rule of its own in
  `generate`. It trains as its target and has its variables.

  Attributes:
    target: of discrete units, see `target`.
  """

  target: Generator

  @abc.abstractmethod
  def generate(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> tuple[Array, Stats]:
    """Units i32[B, L] of one example per key, and what it took."""


def generate(
  target: Generator,
  variables: Vars,
  cond: Batch,
  keys: Array,
  *,
  window: int,
  rule: Any = None,
  table: Array | None = None,
  radius: Array | None = None,
  impl: str | None = None,
  **options,
) -> tuple[Array, Stats]:
  """Draws the units of one image per key by drafts of the target itself
  (Jacobi), whatever its plan.

  Args:
    target: see `target`. Of one unit a step it reads a window with a
      cache; of many it reads whole examples, see `core.decoding.jacobi`.
    variables: those of the target.
    cond: what it needs, and of what it takes `prompt` and `known`, or `given`
      and `keep`, and `bias`.
    keys: Key[B], threefry.
    window: units that a forward reads, of targets of one unit a step.
    rule, table, radius: see `speculation.generate`.
    impl: of `ops.verify`.
    **options: guidance, its schedule, and filters.

  Returns:
    Units i32[B, L], and what it took.

  Raises:
    UserError: an option is out of range.
  """
  target = target.on(cond)
  if not isinstance(target.net, NextToken):
    verify = functools.partial(
      ops.verify, rule=rule, table=table, radius=radius, impl=impl
    )
    return _steps(target, variables, cond, keys, verify, **options)
  if window < 2:
    raise UserError(
      f"window={window}: must be at least 2, one known, one draft"
    )
  program = target.program(**options)
  return speculation.generate(
    program,
    target.net_variables(variables),
    target.condition(cond),
    keys,
    speculation.jacobi(window - 1, program),
    rule=rule,
    table=table,
    radius=radius,
    prompt=cond.get("prompt"),
    known=cond.get("known"),
    bias=cond.get("bias"),
    impl=impl,
  )


def _steps(
  target: Generator,
  variables: Vars,
  cond: Batch,
  keys: Array,
  verify: Callable,
  *,
  guidance: float | None = 1.0,
  schedule: str | None = None,
  **law: float,
) -> tuple[Array, Stats]:
  """`core.decoding.jacobi.decode` over a system."""
  plan, given = target.plan, target.condition(cond)
  schedule = schedule or target.schedule
  guidance = target.scale(guidance)
  scales = np.array(pick.schedule(schedule, guidance, plan.steps), np.float32)
  scale = jnp.asarray(scales[plan.step_of()])[None, :, None]
  guided = guidance != 1.0
  hidden = pairs.without(len(keys)) if guided else None
  given = pairs.double(given, guided)
  bias = pick.bias_at(cond.get("bias"), plan.step_of())

  def score(units):
    units = pairs.double(units, guided)
    logits = target.logits(variables, given, units, hidden)
    if guided:
      logits = pick.guide(*pairs.split(logits), scale)
    return pick.biased(logits, bias, law.get("temperature", 1.0))

  edited = "given" in target.takes and "given" in cond
  edit = target.edit(variables, cond) if edited else None
  return jacobi.decode(score, verify, plan, keys, edit=edit, **law)
