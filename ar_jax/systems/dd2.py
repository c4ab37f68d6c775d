"""Distilled Decoding 2: an image in one pass, by scores of every unit.

Distilled Decoding 2: One-step Sampling of Image Auto-regressive Models with
Conditional Score Distillation (arXiv 2510.21003). New in it:
  - no pairs: the law of a trained teacher is the score of every noisy unit
    behind those before it, in closed form;
  - a guide, the teacher's stack with a small network for its law, learns these
    scores first, then those of what the generator makes;
  - the generator, a copy of the guide that reads noise, is moved by their
    difference: the first unit by itself, each next one behind what is made.
The teacher is a VAR, or a LlamaGen with reader="codes": it takes vectors.

There is no released code. The depth and width of the small network, the law of
the times and the weight of a time are ours, as is that the noise of the maps of
a VAR takes the way of its codes; the rule is that of score identity
distillation (arXiv 2404.04057), whose simpler kin is rule="dmd".

Shapes: B batch, L units, M repeats, C numbers of a code, D width, V codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax import ops
from ar_jax.core import system
from ar_jax.core.decoding.steps import fold
from ar_jax.core.errors import check_choice
from ar_jax.core.flows import distillation, solvers
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families import noise_pairs, vector_net
from ar_jax.families.base import Generator
from ar_jax.families.vector_net import VectorNet

STAGES = ("scores", "generator")

# The published students by their teachers: updates of the guide for one of the
# generator, and the peaks of their rates.
SIZES = {
  "var_d16": dict(guides=5, rates=(2e-4, 2e-4)),
  "var_d20": dict(guides=5, rates=(2e-4, 2e-4)),
  "var_d24": dict(guides=2, rates=(4e-4, 5e-5)),
  "llamagen_l": dict(guides=5, rates=(2e-4, 1e-4)),
}


@dataclasses.dataclass(frozen=True)
class DD2(noise_pairs.NoisePairs):
  """The system; see `NoisePairs`.

  Variables: `params`, of which `guide` is the guide and, in the second stage,
  `generator` the generator; the frozen `target`, its teacher, and `tokenizer`.
  A run of the second stage is given the `params` of one of the first, and
  begins with two copies; or those of another one of the second.

  Attributes:
    target, pairs: as there.
    student: the guide, and the generator.
    stage: of STAGES: the guide learns the scores of the teacher, or the
      generator is made.
    repeats: M, noises of each sequence, which share a pass of a stack.
    rule, alpha: see `distillation.score_error`.
    guides: updates of the guide for one of the generator.
    alone: updates of the guide before the first of the generator, as after the
      average of a run was taken for its weights.
    seed: of the teacher's sequences.
    phase: "guide" or "generator", which of them moves; None for both.
  """

  target: Generator
  student: VectorNet
  pairs: tuple[tuple[str, Any], ...] = ()
  stage: str = "generator"
  repeats: int = 4
  rule: str = "sid"
  alpha: float = 1.0
  guides: int = 5
  alone: int = 0
  seed: int = 0
  phase: str | None = None

  # The phases.

  def at(self, step: int) -> DD2:
    if self.stage == "scores":
      return self
    turn = (step - self.alone) % (self.guides + 1)
    guide = step < self.alone or turn < self.guides
    return dataclasses.replace(self, phase="guide" if guide else "generator")

  @property
  def trains(self) -> tuple[str, ...] | None:
    return None if self.phase is None else (self.phase,)

  # The variables.

  def own(self, key: Array, variables: Vars) -> Any:
    del variables
    x = jnp.zeros((1, len(self.plan), self.channels))
    label, t = jnp.zeros(1, jnp.int32), jnp.zeros(x.shape[:2])
    guide = self.student.init(key, label, x, x, t)["params"]
    return self._both({"guide": guide})

  def ready(self, variables: Vars) -> Vars:
    """The guide begins as its teacher, as far as it has the same parts."""
    guide = variables["params"]["guide"]
    guide = vector_net.from_teacher(guide, variables[self.beside])
    return {**variables, "params": self._both({"guide": guide})}

  def adopt(self, collection: str, given: Any) -> Any:
    """`params` of the first stage are those of the guide and of the generator;
    if only one of them began as it is, training is known to fail."""
    return self._both(given) if collection == "params" else given

  def _both(self, params: Mapping[str, Any]) -> dict[str, Any]:
    if self.stage == "scores" or "generator" in params:
      return dict(params)
    copy = jax.tree.map(jnp.copy, params["guide"])
    return {**params, "generator": copy}

  # Training.

  @property
  def redraws(self) -> bool:
    return self.stage == "scores"

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """In the first stage `codes` i32[B, L] of the teacher for the classes of
    examples, each view with its own; in the second, which makes its own, the
    classes alone."""
    rest = {k: v for k, v in batch.items() if k not in self.target.makes}
    if "codes" in rest or self.stage != "scores":
      return rest
    rest.pop("units", None)
    keys = system.example_keys(jax.random.key(self.seed), batch)
    keys = fold(keys, batch.get("view", jnp.zeros(len(keys), jnp.int32)))
    given = self.of_target(variables)
    codes = self.target.generate(given, rest, keys, **dict(self.pairs))
    codes = codes[0] if isinstance(codes, tuple) else codes
    return {**rest, "codes": codes}

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """Of the first stage the error of the guide's velocities, `gts`; of the
    second those of the guide on what is made, `fcs`, and what moves the
    generator, `csd`, or by the phase one of them. `off` is how far what is made
    is from the nearest codes, the root of a mean of squares."""
    del train
    batch = self.encode(variables, batch)
    label, params = batch["label"], variables["params"]
    own, keys = jax.vmap(jax.random.split, out_axes=1)(
      system.example_keys(key, batch)
    )
    shape = self.repeats, len(self.plan)
    draw = lambda key: distillation.times(key, shape)
    t = jnp.moveaxis(jax.vmap(draw)(fold(keys, 1)), 0, 1)
    noise = solvers.noise(fold(keys, 2), (*shape, self.channels))
    at = jnp.moveaxis(noise, 0, 1), t  # [M, B, L, ...]
    mean = lambda error: jnp.mean(error, (0, 2))
    if self.stage == "scores":
      q = self.codebook(variables)[batch["codes"]]
      velocity = self.guide(params["guide"], variables, label, q)
      points = self.law(variables, label, q)
      error = mean(distillation.analytic_error(velocity, points, q, *at))
      return Loss(error, {"gts": error})
    q = self.made(variables, label, self.noise(own))
    still = jax.lax.stop_gradient(q)
    book = self.codebook(variables)
    gap = jnp.square(still - book[ops.nearest_code(still, book)])
    metrics, value = {"off": jnp.sqrt(jnp.mean(gap, (1, 2)))}, 0.0
    if self.phase != "generator":
      velocity = self.guide(params["guide"], variables, label, still)
      error = mean(distillation.matching_error(velocity, still, *at))
      metrics["fcs"], value = error, value + error
    if self.phase != "guide":
      points = self.law(variables, label, still)
      error = mean(self.moving_error(variables, label, q, points, *at))
      metrics["csd"], value = error, value + error
    return Loss(value, metrics)

  def moving_error(
    self, variables: Vars, label: Array, q: Array, points: Any, *at: Array
  ) -> Array:
    """f32[M, B, L], see `distillation.score_error`: the gradient in unit i of q
    is that of its own error alone, all before it being given.

    Args:
      variables: as `init` makes them.
      label: i32[B].
      q: f32[B, L, C], what the generator makes.
      points: the laws of the teacher behind q.
      *at: noise f32[M, B, L, C] and times f32[M, B, L].
    """
    still = jax.lax.stop_gradient((variables["params"]["guide"], q))
    velocity = self.guide(still[0], variables, label, still[1])
    return distillation.score_error(
      velocity, points, q, *at, rule=self.rule, alpha=self.alpha
    )

  def guide(
    self, params: Any, variables: Vars, label: Array, q: Array
  ) -> distillation.Velocity:
    """(x f32[..., L, C], t f32[..., L]) -> velocities, behind units q
    f32[B, L, C]."""
    net = self.student.bind({"params": params})
    h = net.states(label, vector_net.inputs_of(self.target, variables, q))
    return lambda x, t: net.velocity(h, x, t)

  def law(self, variables: Vars, label: Array, q: Array) -> Any:
    """The laws of the teacher, by which it draws, behind units q f32[B, L,
    C]."""
    given = self.of_target(variables)
    inputs = vector_net.inputs_of(self.target, given, q)
    return vector_net.law_of(
      self.target, given, label, inputs, **dict(self.pairs)
    )

  def made(self, variables: Vars, label: Array, noise: Array) -> Array:
    """What the generator makes of noise, f32[B, L, C] both: in one pass."""
    params = variables["params"]["generator"]
    velocity = self.guide(params, variables, label, noise)
    return noise + velocity(noise, jnp.zeros(noise.shape[:2]))

  # Sampling.

  def forwards(self, *, teacher: int | None = None, **options) -> int:
    """Passes of a network for one image; those of a teacher are of two rows
    where it is guided."""
    del options
    if self.stage == "scores":
      return self.plan.steps
    return 1 if teacher is None else 1 + self.plan.steps - teacher

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    teacher: int | None = None,
    steps: int = 10,
    noise: Array | None = None,
    **law,
  ) -> Array:
    """Draws the vectors of one image per key, f32[B, L, C]; they are no codes.

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B].
      keys: Key[B].
      teacher: the step from which the teacher draws to the end, behind the
        nearest codes of what is made; None for no teacher.
      steps: of the flow of a unit, by Euler's method, in the first stage: the
        guide then draws unit by unit.
      noise: f32[B, L, C] in place of that of the keys.
      **law: of the teacher, in place of that of `pairs`.

    Raises:
      UserError: an option is out of range, or of the other stage.
    """
    if law and teacher is None:
      raise UserError(f"{', '.join(sorted(law))}: of a teacher alone")
    eps = self.noise(keys) if noise is None else noise
    if self.stage == "scores":
      if teacher is not None:
        raise UserError(f"teacher={teacher}: it comes after a generator")
      params = variables["params"]["guide"]
      guide = lambda q: self.guide(params, variables, cond["label"], q)
      book = self.codebook(variables)
      return vector_net.one_by_one(guide, eps, book, self.plan, steps)
    x = self.made(variables, cond["label"], eps)
    if teacher is None:
      return x
    last = self.plan.steps
    if not 0 <= teacher < last:
      raise UserError(f"teacher={teacher}: from a step 0 .. {last - 1}")
    return self.by_teacher(variables, cond, keys, x, teacher, last, **law)


def build(
  *,
  target: Mapping[str, Any],
  stage: str = "generator",
  depth: int = 3,
  width: int | None = None,
  pairs: Mapping[str, Any] | None = None,
  repeats: int = 4,
  rule: str = "sid",
  alpha: float = 1.0,
  guides: int = 5,
  alone: int = 0,
  seed: int = 0,
) -> DD2:
  """Builds DD2 over its teacher; see SIZES for the published students.

  Args:
    target: `{"name": "llamagen" or "var", **arguments}`.
    stage: see `DD2`.
    depth, width: of the small network; the width of the teacher if None.
    pairs: how the teacher draws: guidance, schedule, temperature, top_k, top_p.
    repeats, rule, alpha, guides, alone, seed: see `DD2`.

  Raises:
    UserError: the teacher is neither, or does not read vectors, or there is no
      such stage or rule.
  """
  check_choice("stage", stage, STAGES)
  check_choice("rule", rule, distillation.RULES)
  if min(repeats, guides) < 1 or alone < 0:
    raise UserError(
      f"repeats={repeats}, guides={guides}, alone={alone}: at least 1, 1 and 0"
    )
  given = noise_pairs.teacher(target, "dd2")
  return DD2(
    given,
    vector_net.beside(given, depth, width),
    tuple(sorted((pairs or {}).items())),
    stage,
    repeats,
    rule,
    alpha,
    guides,
    alone,
    seed,
  )
