"""CSpD: speculative decoding of units that are vectors.

Continuous Speculative Decoding for Autoregressive Image Generation (arXiv
2411.11925). New in it, against speculation over codes:
  - a draft is judged by a ratio of densities. Those of a diffusion head are
    not known; drafter and target share the noise of all steps, so that what is
    left of the two is their last step and their scales;
  - after a rejection the residual is drawn by rejection, with what the target
    says as the proposal, so no integral is needed;
  - the first units are the target's.

Modes, of which the first alone draws from the target's law:

  exact      densities: of a mixture; of a diffusion head those of the whole
             way, which the paper found to accept nothing of large models
  surrogate  the paper's rule
  official   that of the released code: the product of the scales is inverted,
             and the deviations are 42 times as large where a draft is judged

A causal target (`families.token.vectors`) verifies drafts left to right. MAR
sees all units that are known, so that one forward judges the units of a block
by what was verified before it, each by itself. By `exact` these follow the law
of a MAR that draws the whole block at once, which it could do without a
drafter: of what the drafter knows of the units of a block together, just the
biased modes keep something.

Shapes: B batch, L units, C channels of a unit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.decoding import densities
from ar_jax.core.decoding.speculate_vectors import Stats
from ar_jax.core.decoding.steps import fold
from ar_jax.core.errors import check_choice
from ar_jax.core.plans import makers
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Beside, Generator
from ar_jax.families.drafted import Drafted
from ar_jax.families.masked import speculation as masked
from ar_jax.families.masked.net import Masked, states_at
from ar_jax.families.token.drafting import vector_speculation as causal
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.vectors import VectorWise, vector_wise
from ar_jax.nn.heads.density import Mixture
from ar_jax.nn.heads.diffusion import Diffusion


@dataclasses.dataclass(frozen=True)
class CSpD(Drafted, Beside):
  """The system. Variables: `params` of the drafter, which it trains as the
  drafter's system does; the frozen `target`; and the frozen `tokenizer`.

  Attributes:
    target: what is drawn from, a `VectorWise` or a MAR.
    drafter: another one of its kind, of the same units.
  """

  target: Generator
  drafter: Generator

  takes = ()  # drafts know of no prompt

  def own(self, key: Array, variables: Vars) -> Any:
    del variables
    return self.drafter.init(key, {})["params"]

  def of_drafter(self, variables: Vars) -> Vars:
    """The variables of the drafter."""
    return {k: v for k, v in variables.items() if k != self.beside}

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    return self.drafter.loss(
      self.of_drafter(variables), batch, key, train=train
    )

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    drafts: int = 4,
    mode: str = "exact",
    prefill: float = 0.05,
    most: int | None = None,
    inner: float | None = None,
    shared: bool = True,
    **options,
  ) -> tuple[Array, Stats]:
    """Draws the units of one example per key, f32[B, L, C], and tells what it
    took.

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B].
      keys: Key[B].
      drafts: units that the drafter proposes for a forward of the target; 0 is
        the target alone, by the law that `exact` draws from. Of a MAR the
        steps of a block.
      mode: see above.
      prefill: share of the units that the target draws first, one at least; of
        a MAR of the steps.
      most: proposals of the residual at most, 64; 100 in mode "official".
      inner: how many times as large the deviations are by which the biased
        modes judge a draft; 1, and 42 in mode "official".
      shared: whether target and drafter share their noise, which modes other
        than "exact" are made for.
      **options: guidance, its schedule and temperature; `denoise`, steps of a
        diffusion head; of a MAR also `steps` and `waste`.

    Raises:
      UserError: an option is out of range, or does not fit the target.
    """
    check_choice("mode", mode, densities.RULES)
    rule, official = densities.RULES[mode], mode == "official"
    if inner is not None:
      if mode == "exact" or not inner > 0:
        raise UserError(f"inner={inner}: of the biased modes, above 0")
      rule = dataclasses.replace(rule, inner=float(inner))
    diffused = isinstance(self.target.net.head, Diffusion)
    if mode != "exact" and not diffused:
      raise UserError(
        f"mode={mode!r}: the density of this head is known: take 'exact'"
      )
    if not 0 <= prefill <= 1:
      raise UserError(f"prefill={prefill}: a share, in 0..1")
    most = (100 if official else 64) if most is None else most
    if "denoise" in options and diffused:
      options["steps" if self.causal else "denoise"] = options.pop("denoise")
    run = self._causal if self.causal else self._masked
    return run(
      variables, cond, keys, drafts, prefill, options,
      rule=rule, most=most, shared=shared,
    )  # fmt: skip

  @property
  def causal(self) -> bool:
    """Whether units come one after the other."""
    return isinstance(self.target.net, NextToken)

  def _causal(
    self, variables, cond, keys, drafts, prefill, options, **given
  ) -> tuple[Array, Stats]:
    def model(of: Generator, own: Vars) -> causal.Model:
      net, own = of.net, of.net_variables(own)
      rows = len(keys) * (1 + (of.scale(options.get("guidance")) != 1.0))
      return causal.Model(of.program(**options), net.ready(own, rows))

    count = max(1, math.ceil(prefill * len(self.plan)))
    return causal.generate(
      model(self.target, self.of_target(variables)),
      model(self.drafter, self.of_drafter(variables)),
      self.target.condition(cond),
      keys,
      k=drafts,
      prefill=count,
      **given,
    )

  def _masked(
    self, variables, cond, keys, drafts, prefill, options, **given
  ) -> tuple[Array, Stats]:
    net = self.target.net
    steps = options.pop("steps", None) or net.length
    waste = options.pop("waste", 0.5)
    schedule = options.pop("schedule", "linear")
    guidance = self.target.scale(options.pop("guidance", 1.0))
    head = {
      {"denoise": "steps"}.get(name, name): value
      for name, value in options.items()
    }
    if unknown := sorted(head.keys() - {"steps", "temperature"}):
      raise UserError(f"cspd over a MAR takes no {', '.join(unknown)}")
    densities.check_temperature(head.get("temperature", 1.0))
    if drafts < 0:
      raise UserError(f"drafts={drafts}: must be at least 0")
    sizes = makers.cosine(net.length, steps)
    label = cond["label"]
    label = label if guidance == 1.0 else self.target.with_null(label)
    order = self.target.orders(fold(keys, net.length))

    def model(of: Generator, params: Any) -> masked.Model:
      def states(canvas, known, at, rows):
        h, null = states_at(
          of.net, params, label, canvas, order, known, at, rows
        )
        return jnp.stack([h] if null is None else [h, null], 2)

      def law(h, scale):
        null = h[:, 1] if h.shape[1] > 1 else None
        bound = of.net.bind({"params": params})
        return bound.head.law(
          h[:, 0], h_null=null, scale=scale[:, None], **head
        )

      return masked.Model(states, law)

    # The published loop: steps 0 .. K prefill are the target's.
    first = steps if not drafts else min(steps, math.floor(steps * prefill) + 1)
    return masked.generate(
      model(self.target, variables[self.beside]),
      model(self.drafter, variables["params"]),
      order,
      self.target.tokenizer.channels,
      sizes,
      self.target.scales(guidance, schedule, sizes),
      keys,
      first=first,
      every=max(1, drafts),
      waste=waste,
      **given,
    )


@system.passes_on(vector_wise)
def build(
  *,
  target: Mapping[str, Any] | None = None,
  drafter: Mapping[str, Any] | None = None,
  **model,
) -> CSpD | VectorWise:
  """Builds CSpD, or a causal target for it.

  Args:
    target: `{"name": "cspd", **model}` or `{"name": "mar", **arguments}`. None
      builds the causal target itself, which is trained and drawn from by
      itself.
    drafter: arguments of the drafter where they differ from the target's, such
      as depth and width.
    **model: of a causal target: tokenizer, depth, width, heads, head, ...; see
      `vector_wise`.

  Raises:
    UserError: the systems are none of vectors, or do not fit each other.
  """
  if target is None:
    if drafter is not None:
      raise UserError("cspd: a drafter needs a target to draft for")
    return vector_wise(**model)
  if model:
    raise UserError(
      f"cspd: {', '.join(sorted(model))}: of the target; put it into `target`"
    )
  spec = dict(target)
  large = system.part(spec)
  small = system.part({**spec, **dict(drafter or {})})
  for one in (large, small):
    net = getattr(one, "net", None)
    head = getattr(net, "head", None)
    if not isinstance(net, NextToken | Masked) or not isinstance(
      head, Mixture | Diffusion
    ):
      raise UserError(
        f"cspd: {spec['name']!r} has no law of vectors that can be judged: "
        "take 'cspd', a causal model, or 'mar' with a diffusion head"
      )
  if type(large.net) is not type(small.net) or type(large.net.head) is not type(
    small.net.head
  ):
    raise UserError("cspd: target and drafter must be of one kind")
  if large.tokenizer != small.tokenizer or large.classes != small.classes:
    raise UserError(
      "cspd: target and drafter must have the same tokenizer and classes"
    )
  return CSpD(large, small)
