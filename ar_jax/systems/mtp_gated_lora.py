"""MTP by gated LoRA: a trained model drafts its own next k units from masks.

Your LLM Knows the Future: Uncovering Its Multi-Token Prediction Potential
(arXiv 2507.11851). New in it:
  - k learned masks behind a unit predict the units after the next one in the
    same forward, with low-rank changes of the frozen layers that apply to masks
    alone, so that the law of the next unit is what it was, to the bit;
  - a small net gives what each mask says the unit that was drafted before it;
  - an objective of three parts, for masks j = 1 .. k behind some units i,
      L = CE(head(z_ij), u_i+j) + CE(head(s(z_ij, e(u_i+j-1))), u_i+j)
          + mean (z_ij - sg h_i+j)^2,
    h_u being the model's own state before unit u;
  - masks stand behind every draft, so that k drafts follow whatever stands.

No code is public; the order inside the net and its equal weights are ours, and
queries, keys and values have one low-rank change together, as they are one
matrix here.

Shapes: B batch, L units, k masks, A anchors, r the rank, D width, V codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.decoding.speculate import Stats
from ar_jax.core.errors import UserError
from ar_jax.core.system import Array, Batch, Loss, Vars
from ar_jax.families.base import Beside, hidden_conditions
from ar_jax.families.token.drafting import (
  self_draft,
  self_speculation,
  speculation,
)
from ar_jax.families.token.drafting.self_draft import Sampler, SelfDrafter
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.token_wise import TokenWise, show
from ar_jax.nn.heads.categorical import Categorical, cross_entropy

# The published one, over Tulu3-8B: arguments of `build`.
PAPER = dict(drafts=8, rank=128)


@dataclasses.dataclass(frozen=True)
class MTP(Beside):
  """The system: `target` with params of its own beside it. Beside what it
  makes, `sample` returns `forwards` and `units`.

  Attributes:
    target: one unit a step, frozen.
    drafter: what drafts.
    rank: r.
    anchors: A, units behind which training puts masks, drawn anew for every
      example; None for all. Outside of training it is all.
    consistency: weight of the third part of the objective.
    label_dropout: how often training hides the condition.
  """

  target: TokenWise
  drafter: SelfDrafter
  rank: int
  anchors: int | None = 8
  consistency: float = 1.0
  label_dropout: float = 0.0

  counts = ("forwards", "units")

  def init(self, key: Array, batch: Batch) -> Vars:
    """As always; but a target that is not given has a head that says
    something, or no gradient would come through it."""
    variables = super().init(key, batch)
    head = variables[self.beside]["head"]["linear"]
    kernel = jax.nn.initializers.lecun_normal()(
      jax.random.fold_in(key, 1), head["kernel"].shape
    )
    params = {**variables[self.beside]}
    params["head"] = {**params["head"], "linear": {**head, "kernel": kernel}}
    return {**variables, self.beside: params}

  def own(self, key: Array, variables: Vars) -> Any:
    given = variables[self.beside]
    return self.drafter.init(key, self.target.net, given, self.rank)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """The mean over masks of both cross-entropies and of the distance of
    states; the first also over the units themselves, where it is a constant.
    `nll` is that of the target, which is what is drawn from."""
    batch = self.encode(variables, batch)
    cond, units = self.target.condition(batch), batch["units"]
    (b, length), k, hidden = units.shape, self.drafter.drafts, None
    anchors = jnp.broadcast_to(jnp.arange(length), (b, length))
    if train:
      fresh, hide = jax.vmap(jax.random.split, out_axes=1)(
        system.example_keys(key, batch)
      )
      hidden = hidden_conditions(hide, self.label_dropout)
      if self.anchors is not None:
        some = lambda key: jax.random.permutation(key, length)[: self.anchors]
        anchors = jax.vmap(some)(fresh)
    given = jax.lax.stop_gradient(
      self.target.net_variables(self.of_target(variables))
    )
    own, net = variables["params"], self.target.net.bind(given)
    h, z = self.drafter.forced(
      self.target.net, given, own, cond, units, anchors, hidden
    )
    # What mask j of anchor i is to say: unit i + j.
    at = anchors[..., None] + jnp.arange(1, k + 1)[None, None]
    real, there = self._real(units), at < length
    pick = jax.vmap(lambda x, i: jnp.take(x, i, axis=0, mode="clip"))
    there &= pick(real, at)
    said = self.drafter.said(own, z, net.units(pick(units, at - 1)))
    target, state = pick(units, at), jax.lax.stop_gradient(pick(h, at))
    nll = jnp.where(real, cross_entropy(net.head.logits(h), units), 0.0)
    masks = jnp.maximum(jnp.sum(there, (1, 2)), 1)
    total = lambda x: jnp.sum(jnp.where(there, x, 0.0), (1, 2))
    plain = total(cross_entropy(self._logits(net, z), target))
    logits = self._logits(net, said)
    drafted = total(cross_entropy(logits, target)) / masks
    apart = total(jnp.mean(jnp.square(z - state), -1)) / masks
    count = jnp.sum(real, 1)
    base = (jnp.sum(nll, 1) + plain) / (count + masks)
    value = base + self.consistency * apart
    if self.drafter.sampler is not None:
      value = value + drafted
    hits = total(jnp.argmax(logits, -1) == target) / masks
    metrics = {
      "base": base,
      "sampler": drafted,
      "consistency": apart,
      "accuracy": hits,
    }
    counted = None
    if self.target.stop is not None:
      counted = count.astype(jnp.float32)
    return Loss(value, metrics, nll=nll, units=counted)

  def _real(self, units: Array) -> Array:
    """bool[B, L], the units that count: none behind the end of an example."""
    if self.target.stop is None:
      return jnp.ones(units.shape, bool)
    ends = units == self.target.stop
    return jnp.cumsum(ends, axis=1) - ends == 0

  def _logits(self, net: NextToken, z: Array) -> Array:
    """f32[B, A, k, V] of states [B, A, k, D]."""
    flat = net.head.logits(z.reshape(len(z), -1, z.shape[-1]))
    return flat.reshape(*z.shape[:-1], -1)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    quadratic: bool = True,
    chosen: bool = False,
    mode: str | None = None,
    impl: str | None = None,
    **options,
  ) -> tuple[Array, Stats]:
    """Draws the units of one example per key, i32[B, L], by the law of the
    target, and tells what it took.

    Args:
      variables: as `init` makes them.
      cond: what the target needs; also `prompt` i32[B, M] and `known` i32[B]
        where examples are known in part, and `bias` f32[B, V].
      keys: Key[B].
      quadratic: masks behind every draft, rather than behind the last alone.
      chosen: the most probable units are drafted, none is drawn.
      mode: of `speculate.speculate`; None is "point" where drafts are chosen,
        else "exact". In "gumbel" what is drawn is what the target draws with
        these keys.
      impl: of `ops.verify`.
      **options: the target's guidance, its schedule, and filters.

    Raises:
      UserError: an option is out of range, or one of the target's.
    """
    program = self.target.program(**options)
    given = self.of_target(variables)
    drafts = self_draft.source(
      self.drafter,
      variables["params"],
      program,
      quadratic=quadratic,
      chosen=chosen,
    )
    return speculation.generate(
      program,
      self.target.net_variables(given),
      self.target.condition(cond),
      keys,
      drafts,
      mode=mode or ("point" if chosen else "exact"),
      prompt=cond.get("prompt"),
      known=cond.get("known"),
      bias=cond.get("bias"),
      impl=impl,
    )

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    size: int | None = None,
    **options,
  ) -> dict[str, Array]:
    """Draws one example per key as the target does; options as in
    `generate`."""
    units, stats = self.generate(variables, cond, keys, **options)
    made = self.target.decode(self.of_target(variables), units)
    drawn = jnp.full(len(keys), units.shape[1])
    if "known" in cond:
      drawn = drawn - cond["known"]
    counts = {"forwards": stats.forwards, "units": drawn}
    return {self.makes[0]: show(made, size), **counts}


def build(
  *,
  target: Mapping[str, Any],
  drafts: int = 4,
  rank: int = 8,
  alpha: float | None = None,
  sampler: bool = True,
  anchors: int | None = 8,
  consistency: float = 1.0,
  label_dropout: float | None = None,
) -> MTP:
  """Builds MTP over another system.

  Args:
    target: `{"name": "llamagen", **arguments}`; of one code a step, in layers
      of Llama.
    drafts: k.
    rank: r.
    alpha: the changes are multiplied by alpha / r; 2 r if None.
    sampler: whether masks are told the unit before theirs.
    anchors, consistency: see `MTP`.
    label_dropout: see there; that of the target if None.

  Raises:
    UserError: the target is another one, or a number is out of range.
  """
  spec, target = target, self_speculation.target(target, "mtp_gated_lora")
  net = target.net
  fits = isinstance(net, NextToken) and isinstance(net.head, Categorical)
  if not fits or net.memory is not None:
    raise UserError(
      f"mtp_gated_lora: target {spec['name']!r} does not draw one code after "
      "the other, as 'llamagen' does"
    )
  if drafts < 1 or rank < 1 or (anchors is not None and anchors < 1):
    raise UserError(
      f"drafts={drafts}, rank={rank}, anchors={anchors}: must be at least 1"
    )
  drafter = SelfDrafter(
    drafts,
    2.0 if alpha is None else alpha / rank,
    Sampler(net.width) if sampler else None,
  )
  if label_dropout is None:
    label_dropout = target.label_dropout
  return MTP(target, drafter, rank, anchors, consistency, label_dropout)
