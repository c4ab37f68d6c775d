"""LANTERN: speculation that takes a near code for the drafted one.

LANTERN: Accelerating Visual Autoregressive Models with Relaxed Speculative
Decoding (arXiv 2410.03355), and LANTERN++ (arXiv 2502.06352). New in it:
  - an image model spreads its probability over codes that look alike, so a
    draft is judged by the mass of itself and of its nearest codes;
  - that mass is bounded by a budget, which bounds how far the law moves;
  - the drafter is an EAGLE layer, trained here on the features of a frozen
    target.
The rule alone serves any system of discrete units, which then drafts for
itself, as in GSD. A target that follows a picture (ControlAR) lends its drafter
the row of the picture that it adds to the position.

Shapes: B batch, P positions of the prefix, L units, M known units, D width, V
vocabulary, K drafts, S = K + 1.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax import ops
from ar_jax.core.decoding import near_codes
from ar_jax.core.decoding.speculate import Stats
from ar_jax.core.errors import check_choice
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Beside, Generator
from ar_jax.families.drafted import Drafted
from ar_jax.families.token.drafting import (
  eagle_drafts,
  self_speculation,
  speculation,
)
from ar_jax.families.token.drafting.eagle import Eagle
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.system import training_noise
from ar_jax.nn.heads.categorical import cross_entropy

# The published feature noise: (U - 1/2) 0.2 * 512 / length.
_NOISE_LENGTH = 512


@dataclasses.dataclass(frozen=True)
class Lantern(Drafted, Beside):
  """The system. Variables: `params` of the drafter, the frozen `target`, and
  what else the target has, its frozen `tokenizer` among it.

  Attributes:
    target: what is drawn from; its `net` is a `NextToken`.
    eagle: the drafter.
    noise: of the features in training; see `build`.
    label_dropout: how often training hides the condition.
  """

  target: Generator
  eagle: Eagle
  noise: float = 0.2
  label_dropout: float = 0.1

  def own(self, key: Array, variables: Vars) -> Any:
    del variables
    row = jnp.zeros((1, 1, self.eagle.width))
    pos = self.target.net.rotations()[:1]
    return self.eagle.init(key, row, row, None, pos=pos)["params"]

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """Smooth L1 of the features plus a tenth of the cross-entropy of the laws
    that they lead to (EAGLE). `nll` is that of the drafter's law, of the
    target's for the first unit."""
    batch = self.encode(variables, batch)
    target = self.target.on(batch)
    cond, units = target.condition(batch), batch["units"]
    net = target.net.bind(target.net_variables(self.of_target(variables)))
    hidden, keys = None, None
    if train:
      hidden, keys = training_noise(key, batch, self.label_dropout)
    features = jax.lax.stop_gradient(net.features(cond, units, hidden))
    given = features
    if train and self.noise:
      half = 0.5 * self.noise * _NOISE_LENGTH / features.shape[1]
      draw = lambda key: jax.random.uniform(
        key, features.shape[1:], minval=-half, maxval=half
      )
      given = features + jax.vmap(draw)(keys)
    beside = jax.lax.stop_gradient(net.beside(cond, hidden))
    drafted = self.eagle.bind({"params": variables["params"]}).forced(
      net, cond, units, given, beside
    )
    prefix = net.prefix.length
    gap = jnp.abs(drafted - features[:, prefix:])
    smooth = jnp.where(gap < 1, 0.5 * jnp.square(gap), gap - 0.5)
    logits = net.head.logits(features[:, prefix - 1 :])
    drafted = net.head.logits(drafted)
    p = jax.nn.softmax(logits[:, 1:], -1)
    logq = jax.nn.log_softmax(drafted, -1)
    distill = -jnp.sum(p * logq, -1)
    regression, distill = jnp.mean(smooth, (1, 2)), jnp.mean(distill, 1)
    overlap = jnp.sum(jnp.minimum(p, jnp.exp(logq)), -1)
    metrics = {
      "regression": regression,
      "distill": distill,
      # The chance that a draft is accepted, without guidance and filters.
      "overlap": jnp.mean(overlap, 1),
    }
    both = jnp.concatenate([logits[:, :1], drafted], axis=1)
    nll = cross_entropy(both, units)
    return Loss(regression + 0.1 * distill, metrics, nll=nll)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    drafts: int = 4,
    k: int = 1000,
    delta: float = 0.1,
    factor: float | None = None,
    residual: str = "budget",
    metric: str = "used",
    chosen: bool = False,
    tree: tuple[int, int, int] | None = None,
    impl: str | None = None,
    **options,
  ) -> tuple[Array, Stats]:
    """Draws the units of one example per key, i32[B, L], and tells what it
    took.

    Args:
      variables: as `init` makes them.
      cond: what the target needs; also `prompt` i32[B, M] and `known` i32[B]
        where images are known in part, and `bias` f32[B, V].
      keys: Key[B].
      drafts: K of a chain.
      k: the most neighbours whose mass may count for a draft; all there are
        if that is fewer.
      delta: the budget: the most mass of neighbours that counts. 0 is exact.
      factor: lambda of LANTERN++: counts as much as (factor - 1) times the
        mass of the draft in place of delta.
      residual: "budget" or "official"; see `ops.rules.Neighbours`.
      metric: of the codes: "used", as the decoder reads them (LlamaGen's are
        of unit length), or "stored", the rows of the table as published.
      chosen: the most probable units are drafted, none is drawn.
      tree: (levels, beam, nodes) of an `eagle_drafts.Tree` in place of a
        chain; the published one is (5, 10, 58). The budget is then that of
        all drafts behind one unit together.
      impl: of `ops.verify`.
      **options: the target's guidance, its schedule, and filters.

    Raises:
      UserError: an option is out of range, or one of the target's.
    """
    given, target = self.of_target(variables), self.target.on(cond)
    codes = _codes(target, given, metric)
    rule = _rule(codes, k, delta, factor, residual)
    source = eagle_drafts.source(
      self.eagle,
      {"params": variables["params"]},
      k=drafts,
      chosen=chosen,
      tree=None if tree is None else eagle_drafts.Tree(*tree),
    )
    relax, table = None, None
    if rule is not None and tree is not None:
      if residual != "budget" or factor is not None:
        raise UserError("a tree keeps to a budget: take delta, not factor")
      nearest = near_codes.order(codes)[:, 1 : rule.k + 1]
      relax = functools.partial(
        near_codes.relaxed, nearest=nearest, delta=delta
      )
      rule = None
    elif rule is not None:
      table = near_codes.ranks(codes)
    return speculation.generate(
      target.program(**options),
      target.net_variables(given),
      target.condition(cond),
      keys,
      source,
      mode="exact" if tree is None else "point",
      rule=rule,
      table=table,
      relax=relax,
      prompt=cond.get("prompt"),
      known=cond.get("known"),
      bias=cond.get("bias"),
      impl=impl,
    )


@dataclasses.dataclass(frozen=True)
class SelfDrafted(self_speculation.SelfSpeculative):
  """LANTERN's rule over a target that drafts for itself."""

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    drafts: int = 4,
    k: int = 1000,
    delta: float = 0.1,
    factor: float | None = None,
    residual: str = "budget",
    metric: str = "used",
    impl: str | None = None,
    **options,
  ) -> tuple[Array, Stats]:
    """Draws the units of one example per key, i32[B, L], and tells what it
    took. Arguments are those of `Lantern.generate`, without trees and chosen
    drafts; a target of many units a step reads whole examples, whatever
    `drafts` says.

    Raises:
      UserError: an option is out of range, or one of the target's.
    """
    if options.keys() & {"tree", "chosen"}:
      raise UserError(
        "lantern: a target that drafts for itself drafts chains of what it "
        "draws: leave tree and chosen"
      )
    codes = _codes(self.target, variables, metric)
    rule = _rule(codes, k, delta, factor, residual)
    return self_speculation.generate(
      self.target,
      variables,
      cond,
      keys,
      window=drafts + 1,
      rule=rule,
      table=None if rule is None else near_codes.ranks(codes),
      impl=impl,
      **options,
    )


def _codes(target: Generator, variables: Vars, metric: str) -> Array:
  """f32[V, C], of the target's variables."""
  if metric == "stored":
    frozen = variables["tokenizer"]
    return frozen.get("body", frozen)["quantizer"]["codebook"]
  if metric != "used":
    raise UserError(f"metric={metric!r}: choose 'used' or 'stored'")
  return target.codec(variables).codebook()


def _rule(
  codes: Array, k: int, delta: float, factor: float | None, residual: str
) -> ops.rules.Neighbours | None:
  """The rule with at most as many neighbours as there are; None if exact."""
  try:
    rule = ops.rules.Neighbours(min(k, len(codes) - 1), delta, factor, residual)
  except ValueError as error:
    raise UserError(f"lantern: {error}") from error
  return None if delta == 0 and factor is None else rule


def build(
  *,
  target: Mapping[str, Any],
  drafter: str = "eagle",
  noise: float = 0.2,
  label_dropout: float = 0.1,
  eps: float = 1e-6,
) -> Lantern | SelfDrafted:
  """Builds LANTERN over another system.

  Args:
    target: `{"name": "llamagen", **arguments}`; any system of discrete units
      whose tokenizer has a codebook.
    drafter: "eagle", for targets whose net is a `NextToken`; or "itself": the
      target drafts, nothing but it is trained.
    noise: features get uniform noise of this width times 512 / length.
    label_dropout: see `Lantern`; the target must have a null condition.
    eps: of the drafter's norm; the target's is another.

  Raises:
    UserError: the target does not fit the drafter.
  """
  check_choice("drafter", drafter, ("eagle", "itself"))
  spec, target = target, self_speculation.target(target, "lantern")
  if drafter == "itself":
    return SelfDrafted(target)
  net = target.net
  if not isinstance(net, NextToken):
    raise UserError(
      f"lantern: target {spec['name']!r} does not draw one unit after the "
      "other, as an EAGLE drafter does: take drafter='itself'"
    )
  block = net.backbone.block
  drafter = Eagle(
    net.width,
    block.mixer.clone(),
    block.mlp.clone(),
    eps=eps,
    dtype=net.backbone.dtype,
  )
  return Lantern(target, drafter, noise, label_dropout)
