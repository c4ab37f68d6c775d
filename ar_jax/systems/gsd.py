"""GSD: drafts of the model itself, judged by groups of units.

Grouped Speculative Decoding for Autoregressive Image Generation (arXiv
2508.07747). New in it, without any training:
  - the drafts are the target's own draws of the last forward (Jacobi);
  - a draft is accepted with the ratio of the masses of a group of units that
    the target finds about as likely, so alike units no longer reject one
    another;
  - the group is made anew for every draft.
It trains as the system it draws from, and has the same variables.

Shapes: B batch, L units, M known units, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ar_jax import ops
from ar_jax.core import neighbours, system
from ar_jax.core.generator import Around
from ar_jax.core.speculate import Stats
from ar_jax.core.system import Array, Batch, System, UserError, Vars
from ar_jax.nn import speculation
from ar_jax.nn.next_token import NextToken


@dataclasses.dataclass(frozen=True)
class GSD(Around):
  """The system.

  Attributes:
    target: what is drawn from; its `net` is a `NextToken`.
  """

  target: System

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    """Draws one image per key, f32[B, H, W, c] in [0, 1]; options as in
    `generate`."""
    units, _ = self.generate(variables, cond, keys, **options)
    return self.target.decode(variables, units)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    window: int = 16,
    size: int = 14,
    delta_p: float = 0.15,
    quantile: float | None = 0.2,
    distance: float | None = None,
    grouping: str = "dynamic",
    residual: str = "group",
    impl: str | None = None,
    **options,
  ) -> tuple[Array, Stats]:
    """Draws the units of one image per key, i32[B, L], and tells what it took.

    Args:
      variables: as `init` makes them.
      cond: what the target needs; also `prompt` i32[B, M] and `known` i32[B]
        where images are known in part.
      keys: Key[B].
      window: units that a forward reads; one of them is known, the others are
        drafts.
      size: G, units of a group, the draft included. 1 is exact: speculative
        Jacobi decoding (arXiv 2410.01699).
      delta_p: how much the probabilities of units of a group may differ from
        that of the draft.
      quantile: units of a group are as near to the draft as this share of all
        pairs, by their embeddings; None does not ask for it.
      distance: the same as a squared distance in place of a share; the
        published code has 0.5 for Lumina-mGPT.
      grouping: "dynamic", or "fixed": the vocabulary is divided once, by the
        embeddings.
      residual: what follows a rejection, with fixed groups: "group" makes the
        law of the group exactly the target's, "token" is the published one.
      impl: of `ops.verify`.
      **options: of the target's `program`: guidance, filters.

    Raises:
      UserError: an option is out of range, or one of the target's.
    """
    if window < 2 or size < 1:
      raise UserError(
        f"window={window}, size={size}: they must be at least 2 and 1"
      )
    program = self.target.program(**options)
    own = self.target.own(variables)
    embedding = program.net.bind(own).units.embedding
    table = radius = None
    if grouping == "fixed":
      rule = ops.rules.Groups(residual)
      table = neighbours.partition(embedding, size)
    elif grouping == "dynamic":
      rule = ops.rules.Cluster(size, delta_p)
      if quantile is not None and distance is None:
        distance = neighbours.quantile(embedding, quantile)
      if distance is not None and size > 1:
        table = neighbours.ranks(embedding)
        radius = neighbours.counts(embedding, distance)
    else:
      raise UserError(f"grouping={grouping!r}: choose 'dynamic' or 'fixed'")
    return speculation.generate(
      program,
      own,
      cond[self.needs[0]],
      keys,
      speculation.jacobi(window - 1, program),
      rule=rule,
      table=table,
      radius=radius,
      prompt=cond.get("prompt"),
      known=cond.get("known"),
      impl=impl,
    )


def build(*, target: Mapping[str, Any]) -> GSD:
  """Builds GSD over another system.

  Args:
    target: `{"name": "llamagen", **arguments}`; any system whose net is a
      `NextToken`.

  Raises:
    UserError: the target does not draw one unit of a vocabulary a step.
  """
  target = dict(target)
  name = target.pop("name")
  target = system.build(name, **target)
  if not isinstance(getattr(target, "net", None), NextToken):
    raise UserError(
      f"gsd: target {name!r} does not draw one unit after the other; take one "
      "that does, such as 'llamagen'"
    )
  return GSD(target)
