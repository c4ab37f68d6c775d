"""Transition Matching: a Markov chain from noise to data, whose every step is
drawn from a flow, not moved along its mean.

Transition Matching: Scalable and Flexible Generative Modeling (arXiv
2506.23589; no code is published). New in it: a large network reads the state
once per transition, and a small flow head with a time of its own draws each
unit of what comes next, given the hidden state of that unit.

  - dtm: the head draws Y = X_T - X_0, the whole difference in the noise that
    the chain began with, all units at once; X moves by (tau' - tau) Y;
  - artm: the next state, unit by unit, behind the present one;
  - fhtm: as artm, but behind all states so far: fully causal, trained in one
    pass. Over modulated layers behind the noise, or over Llama's behind a
    condition;
  - fm: flow matching, the baseline: dtm with the mean in place of a draw.

For artm and fhtm the states must have noise of their own each (the process
"independent"): with one noise for all, a state follows from two before it.

Not documented in the paper, and our choice: a learned row for each state beside
the places of its units; classes, which modulate as the time does; no time for
the layers of fhtm, which are modulated by the class or a learned vector.

Shapes: B batch, n units, C channels, T transitions, D width, K steps of the
head. Times: 0 is noise, 1 data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.decoding.steps import fold
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.encoders import text as encoders
from ar_jax.families.base import hidden_conditions
from ar_jax.families.flow.chain import KINDS, Chain, Net
from ar_jax.families.flow.patched import Patched, shape
from ar_jax.families.flow.states import Mean, States, Whole
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.readers import Latents
from ar_jax.families.token.system import prefix
from ar_jax.nn.heads.flow import Flow
from ar_jax.nn.heads.flow_nets import TokenMLP
from ar_jax.nn.stacks.dit import dit_zero
from ar_jax.nn.stacks.llama import llama

# The published models, 1.7B each: arguments of `build`. The count is that of
# layers that share their modulations.
SIZES = {
  "dit": dict(
    stack="dit", depth=24, width=2048, heads=16, shared=True,
    head_width=1024, head_depth=6,
  ),
  "llm": dict(
    stack="llama", depth=34, width=2048, heads=16, head_width=1024,
    head_depth=6,
  ),
}  # fmt: skip
STACKS = {
  "dit": KINDS,
  "llama": ("fhtm",),
  "mlp": ("dtm", "fm"),
}


@dataclasses.dataclass(frozen=True)
class TransitionMatching(Patched):
  """The system. Variables: `params`, the frozen `tokenizer`, and for texts of
  Llama's layers the constant `null`.

  Attributes:
    net: the network and its head.
    tokenizer: of continuous units.
    chain: what a transition is.
    patch: see `Patched`.
    label_dropout: how often training hides the condition.
  """

  net: Net
  tokenizer: nn.Module
  chain: Chain
  patch: int = 1
  label_dropout: float = 0.15

  @property
  def _reads(self) -> Any:
    """What reads the condition."""
    return getattr(self.net, "prefix", self.net)

  @property
  def needs(self) -> tuple[str, ...]:
    return self._reads.fields

  @property
  def classes(self) -> int | None:
    labels = self._reads.labels
    return labels and labels - (self.label_dropout > 0)

  @property
  def plan(self) -> Plan:
    """One step: through the noise, every unit is made of all others."""
    return makers.blocks(self.chain.length, self.chain.length)

  def forwards(self, *, steps: int | None = None, **_) -> int:
    """Passes of the large network for one example, each of two rows if
    guided."""
    each = self.chain.length if self.chain.by_unit else 1
    return each * (len(self.chain.taus(steps)) - 1)

  def condition(self, cond: Batch) -> dict[str, Array]:
    """The fields that the network reads."""
    return {name: jnp.asarray(cond[name]) for name in self.needs}

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The tokenizer and the network know all shapes.
    key, frozen = jax.random.split(key)
    x = jnp.zeros((1, self.chain.length, self.chain.channels))
    cond, hidden = self._reads.example(), jnp.zeros(1, bool)

    def every(net):
      return self.chain.errors(net, cond, x, hidden, key[None], None)

    variables = self.net.init(key, method=every)
    return {**variables, "tokenizer": self.init_tokenizer(frozen)}

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    keys = system.example_keys(key, batch)
    latent, hide, drop, own = (fold(keys, i) for i in range(4))
    x = self.codec(variables).draw(batch["units"], latent if train else None)
    hidden = hidden_conditions(hide, self.label_dropout) if train else None
    errors = self.chain.errors(
      self.net.bind(self.net_variables(variables)),
      self.condition(batch),
      x,
      hidden,
      own,
      drop if train else None,
    )
    metrics = {}
    if self.chain.kind == "fhtm":
      errors = errors.reshape(len(x), self.chain.steps, -1)
      ends = {"first": errors[:, 0], "last": errors[:, -1]}
      metrics = {f"error/{name}": e.mean(1) for name, e in ends.items()}
      errors = errors.mean(1)
    return Loss(jnp.mean(errors, 1), metrics, errors=errors)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    steps: int | None = None,
    head_steps: int = 16,
    guidance: float | None = 1.0,
  ) -> Array:
    """Draws the units of one example per key, f32[B, n, C].

    Args:
      variables: as `init` makes them.
      cond: what the system needs.
      keys: Key[B].
      steps: T; by default that of training.
      head_steps: K.
      guidance: scale of the velocity of the head (of fm, of the network), at
        every step; 1.0 or None is off.

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        that was built without a null class.
    """
    return self.chain.draw(
      self.net,
      self.net_variables(variables),
      self.condition(cond),
      keys,
      steps=steps,
      head_steps=head_steps,
      scale=self.scale(guidance),
    )


@system.passes_on(dit_zero)
def build(
  *,
  tokenizer: Mapping[str, Any],
  width: int,
  depth: int,
  heads: int = 1,
  num_classes: int | None = None,
  text: Mapping[str, Any] | None = None,
  kind: str = "dtm",
  stack: str = "dit",
  steps: int | None = None,
  grid: str = "uniform",
  process: str | None = None,
  patch: int = 1,
  head_width: int = 64,
  head_depth: int = 3,
  repeats: int = 1,
  label_dropout: float = 0.15,
  **layers,
) -> TransitionMatching:
  """Builds Transition Matching; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "kl_vae", "patches" or "given", **arguments}`.
    width: D.
    depth: layers.
    heads: of attention.
    num_classes: labels are 0 .. num_classes - 1; the next one is null. None or
      0 for no class.
    text: `{"name": "bytes" or "features", **arguments}`: what the layers look
      at, or what stands before the units of Llama's.
    kind: dtm, artm, fhtm or fm.
    stack: "dit"; "llama", of fhtm; or "mlp", of dtm and fm: the whole state as
      one vector.
    steps: T; None for dtm and fm of any number of transitions.
    grid: see `transitions.times`.
    process: of artm and fhtm, "independent" by default, or "linear".
    patch: side of a patch of units.
    head_width, head_depth: W and N of the head; see `TokenMLP`.
    repeats: noises with which a hidden state is trained.
    label_dropout: see `TransitionMatching`.
    **layers: dropout, remat, dtype, impl, ...; see `dit_zero`, and `llama`,
      which takes others.

  Raises:
    UserError: sizes do not fit together, or there is no such choice.
  """
  if kind not in KINDS or kind not in STACKS.get(stack, ()):
    allowed = "; ".join(f"{k}: {', '.join(v)}" for k, v in STACKS.items())
    raise UserError(f"kind={kind!r}, stack={stack!r}: choose one of {allowed}")
  codes = system.part(tokenizer).tokenizer
  n, cells, channels = shape(codes, patch)
  labels = num_classes + (label_dropout > 0) if num_classes else None
  process = process or ("independent" if kind in ("artm", "fhtm") else "linear")
  chain = Chain(kind, n, channels, steps, grid, process)
  mean = kind == "fm"
  inner = TokenMLP(
    channels, head_width, head_depth, channels, outer=kind != "fhtm"
  )
  head = Mean(channels) if mean else Flow(inner, repeats=repeats)
  if stack == "mlp":
    if text or layers:
      given = ", ".join(["text"] * bool(text) + sorted(layers))
      raise UserError(f"{given}: residual MLPs (stack='mlp') have none")
    out = channels if mean else width
    net = TokenMLP(n * channels, width, depth, n * out)
    head = Mean(channels, linear=False) if mean else head
    net = Whole(n, channels, out, net, head, labels)
  elif stack == "llama":
    front = prefix(
      width, None if text else num_classes or 0, text, label_dropout
    )
    net = NextToken(
      makers.blocks(steps * n, 1),
      Latents(channels, width),
      width,
      front,
      llama(depth, width, heads, **layers),
      head,
      "line",
    )
  else:
    net = States(
      n,
      cells,
      channels,
      width,
      dit_zero(depth, width, heads, bool(text), **layers),
      head,
      timed=kind != "fhtm",
      count={"artm": 2, "fhtm": (steps or 0) + 1}.get(kind, 1),
      labels=labels,
      text=encoders.make(**text) if text else None,
    )
  if not (labels or text):
    label_dropout = 0.0  # there is nothing to hide
  return TransitionMatching(net, codes, chain, patch, label_dropout)
