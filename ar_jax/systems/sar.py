"""SAR: post-training of a scale-wise generator on its own stale predictions.

Rethinking Training Dynamics in Scale-wise Autoregressive Generation (arXiv
2512.06421). New in it, and all in the training step; nothing has parameters:
  - stagger-scale rollout: units are drawn from the teacher-forced logits at
    every map at once, and a second pass reads, before each map, the drawn one
    in place of the true one;
  - contrastive student forcing: that pass is to predict what the first one
    drew, not the truth, which the wrong input cannot explain.
It has the variables of the system that it trains and samples as that does.

Shapes: B batch, L units, T of them in the second pass, V codes. Of maps of bits
a unit is K bits of V = 2 each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.decoding import pick, steps
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Around
from ar_jax.families.scale.bitwise import BitScales
from ar_jax.families.scale.system import ScaleWise, Targets, weighted_sum

CHOICES = {
  "sf_scales": ("all", "last"),
  "draws": ("argmax", "sample"),
  "against": ("own", "truth"),
}


@dataclasses.dataclass(frozen=True)
class SAR(Around):
  """The system.

  Attributes:
    target: what is trained.
    sigma: weight of the second pass.
    sf_scales: "all" passes over all maps again, as the paper writes it; "last"
      over the last map alone, behind the class, as the published trainer does.
    draws: "argmax", or "sample".
    against: what the second pass is to predict: "own", what was drawn; or
      "truth", the ablation.
    guidance: of the draws; 1.0 is off. It rises from half of it at the first
      map to all of it at the last.
    law: arguments of `pick.law` for the draws, as a tuple of pairs.
  """

  target: ScaleWise
  sigma: float = 0.01
  sf_scales: str = "all"
  draws: str = "argmax"
  against: str = "own"
  guidance: float = 1.0
  law: tuple[tuple[str, float], ...] = ()

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """The loss of the target, its metrics and its `nll`, plus sigma times the
    second pass; see `second` for the metrics of that."""
    inner = self.target
    batch = inner.encode(variables, batch)
    targets = inner.targets(variables, batch, key, train=train)
    logits = inner.predict(
      variables, targets, inner.teacher_inputs(variables, targets)
    )
    first = inner.loss_of(targets, logits)
    # Labels are hidden, and layers dropped, anew.
    label, keys = inner.label_and_keys(
      batch, jax.random.fold_in(key, 1), train=train
    )
    again = dataclasses.replace(targets, label=label, keys=keys)
    drawing = steps.fold(system.example_keys(key, batch), 1)
    drawn = self.drawn(variables, targets, logits, drawing)
    error = inner.error(logits, targets.units)
    value, metrics = self.second(variables, again, drawn, error)
    return dataclasses.replace(
      first,
      value=first.value + self.sigma * value,
      metrics=first.metrics | metrics,
    )

  def drawn(
    self, variables: Vars, targets: Targets, logits: Array, keys: Array
  ) -> Array:
    """Units i32[B, L] or i32[B, L, K] drawn from the logits of the first pass;
    no gradient goes through them."""
    logits = jax.lax.stop_gradient(logits)
    if self.draws == "argmax":
      return jnp.argmax(logits, -1).astype(jnp.int32)
    if self.guidance != 1.0:
      inner = self.target
      null = inner.unconditional(targets)
      frozen = jax.lax.stop_gradient(variables)
      other = inner.predict(frozen, null, inner.teacher_inputs(frozen, targets))
      share = 0.5 * (1 + targets.level / jnp.maximum(jnp.max(targets.level), 1))
      scale = 1 + (self.guidance - 1) * share
      scale = scale.reshape(1, -1, *(1,) * (logits.ndim - 2))
      logits = pick.guide(logits, other, scale)
    return pick.draw(pick.law(logits, **dict(self.law)), keys)

  def second(
    self, variables: Vars, targets: Targets, drawn: Array, error: Array
  ) -> tuple[Array, dict[str, Array]]:
    """The second pass.

    Args:
      variables: as `init` makes them.
      targets: that of the first pass.
      drawn: i32[B, L].
      error: f32[B, L] of the first pass.

    Returns:
      Its loss f32[B], and metrics, each the mean over all of its units but
      those of the first map: `ce/second`, this loss; `ce/student`, its
      cross-entropy at the truth; `ce/teacher`, that of the first pass; and
      `gap`, by how much the student's is higher.
    """
    inner = self.target
    inputs = inner.student_inputs(variables, targets, drawn)
    if self.sf_scales == "last":
      targets, inputs, index = inner.last(variables, targets, inputs)
      drawn, error = drawn[:, index], error[:, index]
    start = self.sf_scales == "all"
    logits = inner.predict(variables, targets, inputs, start=start)
    later = (targets.level > 0).astype(jnp.float32)
    share = later / jnp.sum(later)
    truth = weighted_sum(inner.error(logits, targets.units), share)
    own = truth
    if self.against == "own":
      drawn = jax.lax.stop_gradient(drawn)
      own = weighted_sum(inner.error(logits, drawn), share)
    teacher = weighted_sum(error, share)
    return own, {
      "ce/second": own,
      "ce/student": truth,
      "ce/teacher": teacher,
      "gap": truth - teacher,
    }


def build(
  *,
  target: Mapping[str, Any],
  sigma: float = 0.01,
  sf_scales: str = "all",
  draws: str = "argmax",
  against: str = "own",
  guidance: float = 1.0,
  top_k: int = 0,
  top_p: float = 1.0,
) -> SAR:
  """Builds SAR over another system.

  Args:
    target: `{"name": "flexvar", **arguments}`; any scale-wise system.
    sigma: see `SAR`.
    sf_scales: see `SAR`.
    draws: see `SAR`. The published trainer samples, unless told otherwise,
      with guidance 2.2, top_k 900 and top_p 0.96.
    against: see `SAR`.
    guidance: see `SAR`.
    top_k: of sampled draws.
    top_p: of sampled draws.

  Raises:
    UserError: the target is not scale-wise, or an option is none of those
      possible.
  """
  given = dict(sf_scales=sf_scales, draws=draws, against=against)
  for option, value in given.items():
    if value not in CHOICES[option]:
      raise UserError(
        f"sar: {option}={value!r}: choose one of {', '.join(CHOICES[option])}"
      )
  spec, target = target, system.part(target)
  if not isinstance(target, ScaleWise):
    raise UserError(
      f"sar: target {spec['name']!r} does not draw map by map; take one that "
      "does, such as 'flexvar' or 'var'"
    )
  if type(target).loss is not ScaleWise.loss:
    raise UserError(
      f"sar: target {spec['name']!r} has a loss of its own, which the second "
      "pass does not know; take one such as 'flexvar', 'var' or 'infinity'"
    )
  if getattr(target, "correction", None) and target.correction.most:
    raise UserError(
      "sar: the target's correction shows wrong bits, and so does the second "
      "pass; leave correction out"
    )
  if sf_scales == "last" and isinstance(target, BitScales):
    raise UserError("sar: maps of bits are read all together: sf_scales='all'")
  if draws == "sample":
    target.scale(guidance)
  law = (("top_k", top_k), ("top_p", top_p))
  return SAR(target, sigma, sf_scales, draws, against, guidance, law)
