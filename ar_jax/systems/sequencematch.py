"""SequenceMatch: text by imitation, with a backspace to take a symbol back.

SequenceMatch: Imitation Learning for Autoregressive Sequence Modelling with
Backtracking (arXiv 2306.05426). New in it:
  - logits are soft values, and a supervised loss on them brings the model's
    occupancy of prefixes near to that of the data: chi^2 of their mixture;
  - the model may take back its last symbol, so that a wrong one need not
    spoil what follows; the data are shown with such detours;
  - half of what the loss looks at are texts that the model wrote itself, from
    a buffer (`replay`) that is filled while it trains.

No code was published. Of what it may have done otherwise: a wrong key of the
data counts as if it had been certain (`match.wrong`); which of alpha and its
reciprocal the paper's 0.01 is nobody knows, here r^2 has alpha / 4. LoRA, by
which the paper trains its 7B model, is left out: all of the model is trained.
A symbol may be the code of an image: `order` says where it lies.

Shapes: B batch, L units of a text, V symbols, A actions, N nodes, M units of a
prompt, R texts of the buffer, D width. Action V is the backspace.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.decoding import backspace
from ar_jax.core.decoding.backspace import Walk
from ar_jax.core.decoding.steps import fold
from ar_jax.core.replay import Replay
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.token.backspace import stack_draw, stack_net
from ar_jax.families.token.backspace.stack_net import StackNet
from ar_jax.families.token.prefix import Start
from ar_jax.families.token.prompts import endings
from ar_jax.families.token.readers import Embed
from ar_jax.families.token.system import TeacherForced, coded, order, scored
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.losses.occupancy import Matching, Steps
from ar_jax.nn.stacks.llama import llama

SIZES = {"llama2_7b": dict(depth=32, width=4096, heads=32, hidden=11008)}
OBJECTIVES = ("sequencematch", "mle")
_DRAWS, _ROWS = 2**20, 2**21  # of the keys of roll-outs, of rows of the buffer


@dataclasses.dataclass(frozen=True)
class SequenceMatch(TeacherForced):
  """The system. Variables: `params`, the empty `tokenizer`, and `replay` where
  the loss looks at roll-outs.

  Attributes:
    net: the transformer over nodes.
    tokenizer: of codes, which ends texts with a `stop` or not.
    objective: "sequencematch"; or "mle", maximum likelihood, to begin with.
    backspace: whether there is such an action.
    noise: how often a wrong key, taken back, is shown before a unit.
    actions: A.
    prompt: units at the beginning of a text that are given: they stay.
    match: see `occupancy`.
    ramp: updates in which the objective comes in place of the likelihood.
    replay: see `Replay`; None where the loss looks at data alone.
  """

  net: StackNet
  tokenizer: nn.Module
  objective: str
  backspace: bool
  noise: float
  actions: int
  prompt: int
  match: Matching
  ramp: int
  replay: Replay | None
  label_dropout: float = 0.0
  takes = ("prompt", "known")

  @property
  def moving(self) -> frozenset[str]:
    return frozenset({"replay"} if self.replay else ())

  @property
  def stop(self) -> int | None:
    """The symbol that ends a text; None where there is none."""
    return getattr(self.tokenizer, "stop", None)

  @property
  def vocab(self) -> int:
    """V."""
    return self.net.vocab

  def init(self, key: Array, batch: Batch) -> Vars:
    made = super().init(key, batch)
    if self.match.learned:
      made["params"] = {**made["params"], "terminal": jnp.zeros(())}
    if self.replay:
      made["replay"] = self.replay.empty(self.actions)
    return made

  def net_variables(self, variables: Vars) -> Vars:
    params = variables["params"]
    return {"params": {k: v for k, v in params.items() if k != "terminal"}}

  def logits(self, variables, cond, units, hidden=None, keys=None) -> Array:
    """f32[B, L, V] of each unit behind those before it: the law of a text
    without a detour, and without the backspace; behind its end there is
    nothing else."""
    every = super().logits(variables, cond, units, hidden, keys)
    return endings.closed(every[..., : self.vocab], units, self.stop)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """Outside of training `nll` is of a text without a detour: above what it
    costs in all of its ways."""
    batch = self.encode(variables, batch)
    if not train:
      return self._straight(variables, batch)
    units = batch["units"]
    keys = system.example_keys(key, batch)
    action, count, wrong = backspace.noised(
      units, keys, rate=self.noise, actions=self.actions, prompt=self.prompt,
      vocab=self.vocab, stop=self.stop,
    )  # fmt: skip
    wrong = wrong[:, self.prompt :]
    if self.objective == "mle":
      data = self._steps(variables, action, count, keys)
      nll, metrics = self._likelihood(data, wrong)
      return Loss(nll, metrics)
    updates, texts = {}, (action, count, keys)
    if self.replay:
      held = self._filled(variables, batch, key)
      updates = {"replay": held}
      others = fold(keys, _ROWS)
      drawn = self.replay.rows(held, others)
      pairs = zip(texts, (*drawn, others), strict=True)
      texts = [jnp.concatenate(pair) for pair in pairs]
    steps = self._steps(variables, *texts)
    # Both kinds in one pass of the network.
    data = jax.tree.map(lambda x: x[: len(units)], steps)
    model = jax.tree.map(lambda x: x[len(units) :], steps)
    nll, metrics = self._likelihood(data, wrong)
    data = self.match.unlearned(data, wrong)
    terms = self.match.terms(data, model if self.replay else None)
    terms = {k: v / len(self.plan) for k, v in terms.items()}
    matched = terms["value"] + terms["penalty"] - terms["linear"]
    metrics |= terms
    if self.replay:
      there = jnp.arange(self.actions)[None] < drawn[1][:, None]
      back = jnp.sum(there & (drawn[0] == self.vocab), 1)
      metrics["backspaces"] = back.astype(jnp.float32)
    share = 1.0
    if self.ramp and "step" in batch:
      share = jnp.clip(batch["step"] / self.ramp, 0.0, 1.0)
    return Loss(share * matched + (1 - share) * nll, metrics, updates)

  def walk(self, action: Array, count: Array) -> Walk:
    """The nodes of actions i32[B, A], of which there are i32[B]."""
    size = backspace.nodes(action.shape[1], len(self.plan))
    return backspace.walk(
      action, count, vocab=self.vocab, stop=self.stop, size=size,
      length=len(self.plan),
    )  # fmt: skip

  def legal(self, logits: Array, depth: Array, prompt: Any = None) -> Array:
    """Logits f32[..., V + 1] behind so many symbols, i32[...]: a backspace is
    impossible where only `prompt` of them are there."""
    prompt = self.prompt if prompt is None else prompt
    never = (depth <= prompt) | (not self.backspace)
    back = jnp.where(never, -1e9, logits[..., self.vocab])
    return logits.at[..., self.vocab].set(back)

  def node_logits(
    self, variables: Vars, walk: Walk, keys: Array | None = None
  ) -> Array:
    """f32[B, N, V + 1]: l(a | s) of every node; keys Key[B] for dropout."""
    own = self.net_variables(variables)
    found = self.net.apply(
      own, walk.token, walk.depth, walk.sees, keys, method="of_nodes"
    )
    return self.legal(found, walk.depth)

  def _steps(
    self, variables: Vars, action: Array, count: Array, keys: Array
  ) -> Steps:
    """What the model says of actions, f32[B, A - M], those of the prompt left
    out; with a learned end of one step more, that of the finished text."""
    walk = self.walk(action, count)
    logits = self.node_logits(variables, walk, keys)
    end = variables["params"]["terminal"] if self.match.learned else None
    return stack_net.steps(logits, walk, self.match.gamma, self.prompt, end)

  def _likelihood(
    self, data: Steps, wrong: Array
  ) -> tuple[Array, dict[str, Array]]:
    """The objective of maximum likelihood, f32[B], by which wrong keys are not
    learned; and nats of an action."""
    rows = slice(wrong.shape[1])
    counts = jnp.where(wrong, 0.0, data.weight[:, rows])
    total = jnp.sum(counts * (data.v - data.q)[:, rows], 1)
    nats = total / jnp.maximum(jnp.sum(counts, 1), 1e-6)
    return total / len(self.plan), {"nats": nats}

  def _straight(self, variables: Vars, batch: Batch) -> Loss:
    units = batch["units"]
    every = super().logits(variables, batch, units)
    place = jnp.broadcast_to(jnp.arange(len(self.plan))[None], units.shape)
    nll, hit = scored(self.legal(every, place), units)
    real = (place >= self.prompt) & endings.real(units, self.stop)
    nll = jnp.where(real, nll, 0.0)
    counted = jnp.maximum(jnp.sum(real, 1), 1).astype(jnp.float32)
    mean = lambda x: jnp.sum(jnp.where(real, x, 0.0), 1) / counted
    return Loss(mean(nll), {"accuracy": mean(hit)}, nll=nll, units=counted)

  def _filled(self, variables: Vars, batch: Batch, key: Array) -> dict:
    """The buffer of this update, with new texts where they are due."""
    own = jax.lax.stop_gradient(self.net_variables(variables))
    held, step = variables["replay"], batch.get("step", jnp.zeros(1, int))[0]
    key = jax.random.fold_in(key, _DRAWS)

    def more(held):
      keys = jax.random.split(key, self.replay.count)
      known = batch["units"][jnp.arange(len(keys)) % len(batch["units"])]
      given = known[:, : self.prompt]
      count = jnp.full(len(keys), self.prompt, jnp.int32)
      drawn = stack_draw.draw(
        self.net, own, given, count, keys, legal=self.legal, stop=self.stop,
        actions=self.actions, errors=self.replay.errors,
      )  # fmt: skip
      return self.replay.add(held, drawn.action, drawn.count)

    return jax.lax.cond(step % self.replay.every == 0, more, lambda x: x, held)

  def generate(self, *inputs, **options) -> Array:
    """The texts of `written`, i32[B, L]."""
    return self.written(*inputs, **options).units

  def written(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    backspace: bool = True,
    actions: int | None = None,
    errors: float = 0.0,
    **law,
  ) -> stack_draw.Written:
    """Writes one text per key.

    Args:
      variables: as `init` makes them.
      cond: perhaps `prompt` i32[B, M] and `known` i32[B], how many of these
        units a text begins with. They are not taken back.
      keys: Key[B].
      backspace: whether the model may use it. At temperature 0 it never may:
        it would come back to where it was, and do the same again.
      actions: after so many of them a text is over as it is; A if None.
      errors: share of the symbols in whose place a random one is put, of which
        the model is not told.
      **law: see `pick.law`.

    Raises:
      UserError: an option is out of range, or a prompt leaves nothing to draw.
    """
    actions = self.actions if actions is None else actions
    if not 0 <= errors <= 1 or actions < 1:
      raise UserError(
        f"errors={errors}, actions={actions}: must be in [0, 1], and at least 1"
      )
    given, known = endings.given(cond, len(keys), len(self.plan))
    own = self
    if not backspace or law.get("temperature", 1.0) == 0:
      own = dataclasses.replace(self, backspace=False)
    return stack_draw.draw(
      self.net, self.net_variables(variables), given, known, keys,
      legal=own.legal, stop=self.stop, actions=actions + given.shape[1],
      errors=errors, law=law,
    )  # fmt: skip


@system.passes_on(llama)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  objective: str = "sequencematch",
  backspace: bool = True,
  noise: float = 0.15,
  actions: int | None = None,
  prompt: int = 0,
  match: Mapping[str, Any] | None = None,
  ramp: int = 0,
  replay: Mapping[str, Any] | None = None,
  **stack,
) -> SequenceMatch:
  """Builds SequenceMatch; see SIZES for the published model.

  Args:
    tokenizer: of codes: `{"name": "given", "form": "tokens", ...}`, or "vq".
    depth: layers.
    width: D.
    heads: of attention.
    objective, noise, actions, prompt, ramp: see `SequenceMatch`; actions are
      2 L if None.
    backspace: whether there is such an action; without, no noise.
    match: arguments of `occupancy.Matching`: gamma, alpha, value, penalty,
      divergence, terminal, wrong.
    replay: arguments of `Replay`: size, every, count, errors.
    **stack: see `llama`.

  Raises:
    UserError: sizes do not fit together, or there is no such choice.
  """
  if objective not in OBJECTIVES or not 0 <= noise < 1:
    raise UserError(
      f"objective={objective!r}, noise={noise}: choose one of "
      f"{', '.join(OBJECTIVES)}, and a number in [0, 1)"
    )
  codes = coded(tokenizer, "what is pushed and taken back are codes")
  plan = order(codes)
  actions = 2 * len(plan) if actions is None else actions
  if actions < len(plan) or not 0 <= prompt < len(plan):
    raise UserError(
      f"actions={actions}, prompt={prompt}: a text has {len(plan)} units, and "
      "must find room in the actions, its prompt in it"
    )
  matching = Matching(**(match or {}))
  looks = matching.looks and objective == "sequencematch"
  net = StackNet(
    plan,
    Embed(codes.vocab, width),
    width,
    Start(width),
    llama(depth, width, heads, **stack),
    Categorical(codes.vocab + 1, bias=False),
    "zero" if hasattr(codes, "grid") else "line",
  )
  return SequenceMatch(
    net, codes, objective, backspace, noise if backspace else 0.0, actions,
    prompt, matching, ramp, Replay(**(replay or {})) if looks else None,
  )  # fmt: skip
