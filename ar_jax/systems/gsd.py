"""GSD: drafts of the model itself, judged by groups of units.

Grouped Speculative Decoding for Autoregressive Image Generation (arXiv
2508.07747). New in it, without any training:
  - the drafts are the target's own draws of the last forward (Jacobi);
  - a draft is accepted with the ratio of the masses of a group of units that
    the target finds about as likely, so alike units no longer reject one
    another;
  - the group is made anew for every draft.
It trains as the system it draws from, and has the same variables. That may be
any system of discrete units; where a step has many of them (VAR, NAR), all of
a step are judged at once, each by its own group.

Shapes: B batch, L units, M known units, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ar_jax import ops
from ar_jax.core.decoding import near_codes
from ar_jax.core.decoding.speculate import Stats
from ar_jax.core.system import Array, Batch, UserError, Vars
from ar_jax.families.token.drafting import self_speculation


@dataclasses.dataclass(frozen=True)
class GSD(self_speculation.SelfSpeculative):
  """The system."""

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
    """Draws the units of one example per key, i32[B, L], and tells what it
    took.

    Args:
      variables: as `init` makes them.
      cond: what the target needs; also `prompt` i32[B, M] and `known` i32[B]
        where images are known in part.
      keys: Key[B].
      window: units that a forward reads; one of them is known, the others are
        drafts. A target of many units a step reads whole examples.
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
      **options: the target's guidance, its schedule, and filters.

    Raises:
      UserError: an option is out of range, or one of the target's.
    """
    if size < 1:
      raise UserError(f"size={size}: a group has at least 1 unit, the draft")
    embedding = self.target.embedding(variables)
    table = radius = None
    if grouping == "fixed":
      rule = ops.rules.Groups(residual)
      table = near_codes.partition(embedding, size)
    elif grouping == "dynamic":
      rule = ops.rules.Cluster(size, delta_p)
      if quantile is not None and distance is None:
        distance = near_codes.quantile(embedding, quantile)
      if distance is not None and size > 1:
        table = near_codes.ranks(embedding)
        radius = near_codes.counts(embedding, distance)
    else:
      raise UserError(f"grouping={grouping!r}: choose 'dynamic' or 'fixed'")
    return self_speculation.generate(
      self.target,
      variables,
      cond,
      keys,
      window=window,
      rule=rule,
      table=table,
      radius=radius,
      impl=impl,
      **options,
    )


def build(*, target: Mapping[str, Any]) -> GSD:
  """Builds GSD over another system.

  Args:
    target: `{"name": "llamagen", **arguments}`; any system of discrete units.

  Raises:
    UserError: the target has no law of discrete units.
  """
  return GSD(self_speculation.target(target, "gsd"))
