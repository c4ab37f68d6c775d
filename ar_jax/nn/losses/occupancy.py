"""Imitation by occupancy: how often a policy does what where, brought near to
how often the data do (IQ-Learn, arXiv 2106.12142; SequenceMatch, arXiv
2306.05426).

The logits of a policy are soft values, l(a | s), with V(s) their log-sum-exp
over the actions that are allowed in s; so log pi(a | s) = l(a | s) - V(s). They
imply the reward r = l(a | s) - gamma V(s'), and what is maximised is

  E_data[phi'(r) r] - E[V(s) - gamma V(s')] - alpha / 4 E[r^2]

E weighs step t by gamma^t. The second term is the same under every law of
trajectories that begin alike, (1 - gamma) E[V(s_0)] for weights that sum to 1,
as its sum telescopes; so a buffer of old roll-outs serves. With alpha = 0 and
that term of the data the whole is E_data[log pi]: maximum likelihood.

Shapes: T steps of a trajectory, behind any others.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError, check_choice

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Steps:
  """Steps of trajectories, f32[..., T] all of them.

  Attributes:
    q: l(a | s) of the action that was taken. Of one that is not to be learned
      V(s), as if it had been certain: its log pi counts nowhere.
    v: V(s).
    next: V(s'), with the value of the end where the action ends all.
    weight: gamma^t, or 0 of a step that does not count.
    linear: the same of the first term alone; None for `weight`.
  """

  q: Array
  v: Array
  next: Array
  weight: Array
  linear: Array | None = None

  def sum(self, x: Array) -> Array:
    """f32[...], of x f32[..., T]."""
    return jnp.sum(self.weight * x, -1)


# phi'(r), through which no gradient goes, as the parent's code has them. Those
# of chi^2 are its term of r^2.
DIVERGENCES = {
  "chi2": lambda r, w: jnp.ones_like(r),
  "hellinger": lambda r, w: 1 / jnp.square(1 + r),
  "kl": lambda r, w: jnp.exp(-r - 1),
  "kl_batch": lambda r, w: (
    jnp.exp(-r) / (jnp.sum(w * jnp.exp(-r)) / jnp.sum(w))
  ),
  "kl_unbiased": lambda r, w: jnp.exp(-r),
  "js": lambda r, w: jnp.exp(-r) / (2 - jnp.exp(-r)),
}
VALUES = ("mixture", "data", "initial")
PENALTIES = ("mixture", "data", "none")


def terms(
  data: Steps,
  model: Steps | None,
  *,
  gamma: float,
  alpha: float,
  value: str = "mixture",
  penalty: str = "mixture",
  divergence: str = "chi2",
  share: float = 0.5,
) -> dict[str, Array]:
  """The three terms, f32[...] each, by trajectory; the objective is `linear` -
  `value` - `penalty`.

  Args:
    data: of the data.
    model: of roll-outs of the model, as many trajectories; None where nothing
      is taken from them.
    gamma: discount.
    alpha: of r^2. The parent's is its reciprocal.
    value: where the second term is taken: "mixture" of both, "data", or
      "initial", what it telescopes to, V(s_0) times the weight of step 0.
    penalty: where r^2 is: "mixture", "data" or "none".
    divergence: a key of DIVERGENCES.
    share: of the data in a mixture.

  Raises:
    UserError: there is no such choice.
  """
  _check(value, penalty, divergence)
  reward = lambda s: s.q - gamma * s.next

  def over(where, of):
    found = data.sum(of(data))
    if where == "data":
      return found
    return share * found + (1 - share) * model.sum(of(model))

  r = reward(data)
  slope = jax.lax.stop_gradient(DIVERGENCES[divergence](r, data.weight))
  if value == "initial":
    second = data.weight[..., 0] * data.v[..., 0]
  else:
    second = over(value, lambda s: s.v - gamma * s.next)
  third = jnp.zeros_like(second)
  if penalty != "none":
    third = alpha / 4 * over(penalty, lambda s: jnp.square(reward(s)))
  weight = data.weight if data.linear is None else data.linear
  first = jnp.sum(weight * slope * r, -1)
  return {"linear": first, "value": second, "penalty": third}


@dataclasses.dataclass(frozen=True)
class Matching:
  """What `terms` is told, and what the end of a text is worth.

  Attributes:
    gamma, alpha, value, penalty, divergence: see `terms`.
    terminal: "zero", or a "learned" number, of a state that is never left.
    wrong: what becomes of an action of the data that is not to be learned:
      "certain", V(s) stands for its l, so that all that telescopes still does;
      or "left_out", it has no part in the first term, and then nothing
      balances the value of where it leads.
  """

  gamma: float = 0.998
  alpha: float = 0.01
  value: str = "mixture"
  penalty: str = "mixture"
  divergence: str = "chi2"
  terminal: str = "zero"
  wrong: str = "certain"

  def __post_init__(self):
    _check(self.value, self.penalty, self.divergence)
    check_choice("wrong", self.wrong, ("certain", "left_out"))
    if self.terminal not in ("zero", "learned") or not 0 < self.gamma < 1:
      raise UserError(
        f"terminal={self.terminal!r}, gamma={self.gamma}: must be zero or "
        "learned, and between 0 and 1"
      )

  @property
  def looks(self) -> bool:
    """Whether roll-outs are needed."""
    return "mixture" in (self.value, self.penalty)

  @property
  def learned(self) -> bool:
    """Whether the end has a parameter."""
    return self.terminal == "learned"

  def unlearned(self, data: Steps, wrong: Array) -> Steps:
    """The steps without what the actions `wrong` bool[..., T'] would teach;
    steps behind the last T' are none of these."""
    spare = data.q.shape[-1] - wrong.shape[-1]
    wrong = jnp.pad(wrong, (*[(0, 0)] * (wrong.ndim - 1), (0, spare)))
    if self.wrong == "certain":
      return dataclasses.replace(data, q=jnp.where(wrong, data.v, data.q))
    linear = jnp.where(wrong, 0.0, data.weight)
    return dataclasses.replace(data, linear=linear)

  def terms(self, data: Steps, model: Steps | None) -> dict[str, Array]:
    """See `terms`."""
    return terms(
      data, model, gamma=self.gamma, alpha=self.alpha, value=self.value,
      penalty=self.penalty, divergence=self.divergence,
    )  # fmt: skip


def _check(value: str, penalty: str, divergence: str) -> None:
  for name, given, known in (
    ("value", value, VALUES),
    ("penalty", penalty, PENALTIES),
    ("divergence", divergence, DIVERGENCES),
  ):
    check_choice(name, given, known)
