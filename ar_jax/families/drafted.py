"""What systems share whose units something else drafts for them: the units are
those of another system, in fewer of its forwards, which are counted."""

from __future__ import annotations

import abc
from typing import Any

from ar_jax.core.system import Array, Batch, Vars
from ar_jax.families.base import Around


class Drafted(Around):
  """Around the system that judges the drafts."""

  counts = ("forwards",)

  @abc.abstractmethod
  def generate(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> tuple[Array, Any]:
    """Units, and statistics with `forwards` f32[B]."""

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> dict[str, Array]:
    """Draws one example per key as the target does, and counts the forwards of
    each; options as in `generate`."""
    units, stats = self.generate(variables, cond, keys, **options)
    made = self.target.on(cond).decode(self.of_target(variables), units)
    return {self.makes[0]: made, "forwards": stats.forwards}
