"""EAR: a concept is taken out of a model that draws from prompts.

EAR: Erasing Concepts from Unified Autoregressive Models (arXiv 2506.20151).
New in it: queries, keys, values and outputs of the first k layers are trained
so that on a prompt of the concept, c+, the last hidden state before each unit
moves to where it is on a safe prompt c0, and beyond,

  l_i = mean | h_i - [ht_i - eta (h+_i - h0_i)] |^2,

with and without guidance; h of the trained model, all others of the frozen
one, h+ on what that draws of c+, h0 and ht on two draws of c0.
  - windows: l_i is summed over w units in a row, then one update is made;
  - threshold: none where the sum is not above mu, of the optimiser neither;
  - ECGVF: pairs count if a judge sees the concept in what is drawn of c+ and
    does not in what is drawn of c0.

The three draws are made once (`encode`), and a pair comes in as many turns as
there are windows (`data.turns`, `data.order="given"`). Two contexts: "cached",
each state sees its prompt and all units before it, as in sampling; "released",
the published loop, where a state behind the first unit sees that unit alone.

Gradients go through all positions before a window; the published loop, which
could not keep them, cuts them at its start.

Shapes: B batch, P positions of the prompt, L units, w of a window, R = P + L -
1 rows, D width, k layers, N all layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.decoding import pairs
from ar_jax.core.decoding.steps import fold
from ar_jax.core.system import Array, Batch, Loss, System, UserError, Vars
from ar_jax.families.base import Beside
from ar_jax.families.token import alone, first_layers
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.prompts.prompt import Prompt
from ar_jax.families.token.token_wise import TokenWise
from ar_jax.nn.heads.categorical import cross_entropy
from ar_jax.nn.stacks.transformer import Backbone

CONTEXTS = ("cached", "released")
OBJECTIVES = ("states", "tokens")


@dataclasses.dataclass(frozen=True)
class Ear(Beside):
  """The system. Variables: `params`, the matrices of attention of the first k
  layers, [k, ...]; the frozen `target`, whose they were; perhaps a `judge`; and
  what else the target has.

  Attributes:
    target: what is trained; its `net` is a `NextToken` behind a prompt.
    layers: k.
    window: w; units behind the last whole window are left out.
    threshold: mu, of the sum of a window; it goes with w.
    strength: eta.
    guidance: of the draws that are learned from.
    context: of CONTEXTS.
    objective: "states", or "tokens": plain fine-tuning, the cross-entropy of
      a draw of c0 behind c+.
    judge: a classifier of images; None keeps every pair.
    seed: of the draws.
  """

  target: TokenWise
  layers: int
  window: int
  threshold: float
  strength: float = 1.0
  guidance: float = 5.0
  context: str = "cached"
  objective: str = "states"
  judge: System | None = None
  seed: int = 0

  redraws = True

  @property
  def field(self) -> str:
    """The field of a batch that is a prompt; the safe one is `safe_<field>`."""
    return self.needs[0]

  @property
  def windows(self) -> int:
    """Of an image."""
    return len(self.plan) // self.window

  # The variables.

  def init(self, key: Array, batch: Batch) -> Vars:
    variables = super().init(key, batch)
    if self.judge is not None:
      image = self.target.tokenizer.example().astype(jnp.uint8)
      found = self.judge.init(key, {"image": image})
      variables["judge"] = found["params"]
    return variables

  def own(self, key: Array, variables: Vars) -> Any:
    del key  # copies
    return first_layers.taken(variables[self.beside], self.layers)

  def ready(self, variables: Vars) -> Vars:
    return {**variables, "params": self.own(None, variables)}

  def frozen(self, variables: Vars) -> Vars:
    """The variables of the target as it was."""
    found = super().of_target(variables)
    return {k: v for k, v in found.items() if k != "judge"}

  def of_target(self, variables: Vars) -> Vars:
    """The variables of the target, the trained matrices in their places: what
    is drawn from."""
    found = self.frozen(variables)
    params = first_layers.put(found["params"], variables["params"])
    return {**found, "params": params}

  def _trained(self, variables: Vars) -> tuple[NextToken, Vars]:
    """The net that is trained, and its variables."""
    given = self.target.net_variables(self.frozen(variables))
    net, params = first_layers.cut(
      self.target.net, given["params"], variables["params"]
    )
    return net, {**given, "params": params}

  # What is learned from.

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """A batch with what its pairs are learned from.

    Args:
      variables: as `init` makes them.
      batch: prompts `text` and `safe_text`, i32[B, n] both; `concept` i32[B],
        the class of the concept, where there is a judge; `index` and `view`
        tell one draw from another.

    Returns:
      In place of these `units` i32[B, L], what c+ drew, `goal` f32[B, 2, R, D],
      where the hidden states are to be, and `seen` bool[B, P], which positions
      of the prompt count; for plain fine-tuning only `units`, what c0 drew.
      And `kept` bool[B], which pairs count.

    Raises:
      UserError: the safe prompts are missing.
    """
    rest, field = dict(batch), self.field
    if "kept" in rest:
      return rest
    other = f"safe_{field}"
    if other not in rest:
      raise UserError(
        f"there is no {other}: EAR learns from pairs of prompts; set "
        "data.name=prompt_pairs"
      )
    safe, unsafe = rest.pop(other), rest[field]
    if self.context == "released":
      safe = alone.fitted(self.target.net.prefix, safe, unsafe)
    which = jnp.asarray(rest.pop("view", jnp.zeros(len(unsafe), jnp.int32)))
    keys = system.example_keys(jax.random.key(self.seed), batch)
    keys = jax.vmap(jax.random.fold_in)(keys, which)
    keys = jnp.concatenate([fold(keys, i) for i in range(3)])
    three = {field: jnp.concatenate([unsafe, safe, safe])}
    frozen = self.frozen(variables)
    if self.context == "cached":
      law = dict(guidance=self.guidance, temperature=1.0)
      units = self.target.generate(frozen, three, keys, **law)
    else:
      own = self.target.net_variables(frozen)
      units = alone.draw(self.target.net, own, three, keys, self.guidance)
    drawn, _, wanted = jnp.split(units, 3)
    rest["kept"] = self._kept(variables, rest, drawn, wanted)
    rest.pop("concept", None)
    if self.objective == "tokens":
      return {**rest, "units": wanted}
    goal = self.goal(variables, unsafe, safe, units)
    seen = self._seen(unsafe) & self._seen(safe)
    return {**rest, "units": drawn, "goal": goal, "seen": seen}

  def goal(
    self, variables: Vars, unsafe: Array, safe: Array, units: Array
  ) -> Array:
    """f32[B, 2, R, D]: ht - eta (h+ - h0), the first of both rows with the
    prompt; of units i32[3 B, L], what c+ drew, and c0 twice."""
    own = self.target.net_variables(self.frozen(variables))
    cond = {self.field: jnp.concatenate([unsafe, safe, safe])}
    h = self._states(self.target.net, own, cond, units)
    plus, neutral, target = jnp.split(h, 3)
    return target - self.strength * (plus - neutral)

  def _seen(self, text: Array) -> Array:
    """bool[B, P]: the positions of a prompt that are no padding."""
    prefix = self.target.net.prefix
    valid, shape = prefix.valid({self.field: text}), (len(text), prefix.length)
    return jnp.ones(shape, bool) if valid is None else valid

  def _kept(
    self, variables: Vars, batch: Batch, drawn: Array, wanted: Array
  ) -> Array:
    """bool[B]: the pairs whose draws show the concept and do not."""
    if self.judge is None:
      return jnp.ones(len(drawn), bool)
    if "concept" not in batch:
      raise UserError(
        "there is no field concept: a judge must know the class; set "
        "data.concept, or leave model.judge"
      )
    frozen = self.frozen(variables)
    images = self.target.decode(frozen, jnp.concatenate([drawn, wanted]))
    images = jnp.floor(255 * jnp.clip(images, 0, 1) + 0.5).astype(jnp.uint8)
    given = {"params": variables["judge"]}
    said = jnp.argmax(self.judge.logits(given, {"image": images}), -1)
    first, second = jnp.split(said, 2)
    return (first == batch["concept"]) & (second != batch["concept"])

  def _states(
    self, net: NextToken, own: Vars, cond: Batch, units: Array
  ) -> Array:
    """f32[B, 2, R, D]: the hidden states with the prompt and without."""
    hidden, mask = pairs.without(len(units)), None
    if self.context == "released":
      mask = alone.mask(net)
    given = pairs.double((self.target.condition(cond), units))
    h = net.apply(own, *given, hidden, mask=mask, method="features")
    return jnp.stack(pairs.split(h.astype(jnp.float32)), 1)

  # The objective.

  def errors(self, variables: Vars, batch: Batch) -> Array:
    """f32[B, L]: l_i of each unit, of a batch that `encode` has made."""
    net, own = self._trained(variables)
    count, units = net.prefix.length, batch["units"]
    if self.objective == "tokens":
      cond = self.target.condition(batch)
      logits = net.apply(own, cond, units, method="logits")
      return cross_entropy(logits, units)
    h = self._states(net, own, batch, units)
    goal = jax.lax.stop_gradient(batch["goal"])
    apart = jnp.mean(jnp.square(h - goal), (1, 3))
    # All of the prompt belongs to the first unit.
    seen = batch["seen"].astype(jnp.float32)
    total = jnp.sum(apart[:, :count] * seen, 1, keepdims=True)
    first = total / jnp.maximum(jnp.sum(seen, 1, keepdims=True), 1.0)
    return jnp.concatenate([first, apart[:, count:]], 1)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """In training, the sum over the window that `turn` i32[B] names, where it
    is above the threshold; without, the mean over all units.

    Raises:
      UserError: there are several windows and no `turn`.
    """
    del key  # nothing is random that `encode` has not drawn
    batch = self.encode(variables, batch)
    each = self.errors(variables, batch)
    if not train:
      return Loss(jnp.mean(each, 1), errors=each)
    if "turn" not in batch and self.windows > 1:
      raise UserError(
        f"EAR learns {self.windows} windows of {self.window} of each pair, one "
        f"after the other: set data.turns={self.windows} and data.order=given"
      )
    turn = batch.get("turn", jnp.zeros(len(each), jnp.int32)) % self.windows
    inside = jnp.arange(each.shape[1])[None] // self.window == turn[:, None]
    total = jnp.sum(jnp.where(inside, each, 0.0), 1)
    passes = (total > self.threshold) & batch["kept"]
    metrics = {"window": total, "passed": passes, "kept": batch["kept"]}
    metrics = {k: v.astype(jnp.float32) for k, v in metrics.items()}
    value = jnp.where(passes, total, 0.0)
    return Loss(value, metrics, errors=each, skip=~jnp.any(passes))


def build(
  *,
  target: Mapping[str, Any],
  layers: int = 5,
  window: int | None = 48,
  threshold: float = 0.05,
  strength: float = 1.0,
  guidance: float = 5.0,
  context: str = "cached",
  objective: str = "states",
  judge: Mapping[str, Any] | None = None,
  seed: int = 0,
) -> Ear:
  """Builds EAR over a model that draws from prompts.

  Args:
    target: `{"name": "janus", **arguments}`.
    layers: k.
    window: w; None for all units of an image.
    threshold: mu; 0 for none.
    strength, guidance, context, objective, seed: see `Ear`.
    judge: `{"name": "classifier", "num_classes": K}`, or None.

  Raises:
    UserError: the target is of another kind, or a number is out of range.
  """
  name, target = target.get("name"), system.part(target)
  net = getattr(target, "net", None)
  plain = isinstance(net, NextToken) and isinstance(net.backbone, Backbone)
  if not plain or len(target.needs) != 1 or "label" in target.needs:
    raise UserError(
      f"ear: target {name!r} does not draw unit by unit from a prompt; take "
      "janus"
    )
  units, depth = len(target.plan), net.backbone.depth
  window = units if window is None else window
  if not 1 <= layers < depth or not 1 <= window <= units or threshold < 0:
    raise UserError(
      f"ear: layers={layers} must be 1 to {depth - 1}, window={window} 1 to "
      f"{units}, threshold={threshold} at least 0"
    )
  if context not in CONTEXTS or objective not in OBJECTIVES:
    raise UserError(
      f"ear: context={context!r}, objective={objective!r}: choose "
      f"{' or '.join(CONTEXTS)}, and {' or '.join(OBJECTIVES)}"
    )
  if context == "released" and not isinstance(net.prefix, Prompt):
    raise UserError("ear: context='released' is of prompts as janus reads them")
  target.scale(guidance)
  given = None if judge is None else system.part(judge)
  sizes = layers, window, threshold, strength, guidance
  return Ear(target, *sizes, context, objective, given, seed)
