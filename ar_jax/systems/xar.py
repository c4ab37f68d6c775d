"""xAR: images by next-X prediction, with flow matching inside each X.

Beyond Next-Token: Next-X Prediction for Autoregressive Visual Generation
(arXiv 2502.20388). New in it:
  - the unit of a step, X, is any part of the latent map: a token, a cell of
    k x k, a subsample, a scale or the whole image;
  - X is drawn by flow matching through the whole transformer, without a head;
  - noisy context learning: in training every entity has a noise level of its
    own, also where others see it, so one pass trains all of them and the
    context of sampling, with its errors, is no surprise.

Shapes: B batch, L slots in the order of the plan, E entities, C latent
channels, h side of the latent. Times as in `core.flows.flow`: 0 is noise, 1
data; the published code counts the other way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import system
from ar_jax.core.decoding import pick
from ar_jax.core.decoding.steps import fold
from ar_jax.core.errors import check_choice
from ar_jax.core.flows import flow, solvers
from ar_jax.core.plans import plan
from ar_jax.core.plans.entities import entities
from ar_jax.core.signals.resize import resize
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Generator
from ar_jax.families.entity import draw
from ar_jax.families.entity.net import NextEntity
from ar_jax.nn.stacks.dit import dit

# The published models: arguments of `build`.
SIZES = {
  "b": dict(depth=16, width=768, heads=12),
  "l": dict(depth=32, width=1024, heads=16),
  "h": dict(depth=40, width=1280, heads=16),
}
CONTEXTS = ("noisy", "clean")


@dataclasses.dataclass(frozen=True)
class XAR(Generator):
  """The system. Variables: `params`, and the frozen `tokenizer`.

  Units, as `encode` gives them, are the moments of the latents, f32[B, L, 2
  C], in the order of the plan; of scales, in raster order, since a scale is
  made of the latents drawn.

  Attributes:
    net: the transformer.
    tokenizer: a `KLVAE`, or `Patches`.
    times: the law of the time of an entity in training.
    context: what an entity sees in training: "noisy", the others as they are,
      or "clean", a copy of them without noise, the baseline of the paper.
    sides: of the scales; None for parts of one map.
    label_dropout: how often training hides the label. 0 builds no null class,
      and then there is no guidance.
  """

  net: NextEntity
  tokenizer: nn.Module
  times: flow.Times = flow.Times("logit_normal")
  context: str = "noisy"
  sides: tuple[int, ...] | None = None
  label_dropout: float = 0.1

  @property
  def plan(self) -> plan.Plan:
    return self.net.plan

  def forwards(self, *, steps: int = 50, method: str = "sde", **_) -> int:
    """Passes of the transformer for one image, each of two rows if guided:
    those that follow the velocity, and one that reads each entity but the
    last when it is done."""
    each = 2 if method == "heun" else 1
    return each * steps * self.plan.steps + self.plan.steps - 1

  def slots_read(self, *, steps: int = 50, method: str = "sde", **_) -> int:
    """Slots that these passes feed to the transformer: E S T + (E - 1) T for
    E entities of T slots in S steps."""
    each = 2 if method == "heun" else 1
    slots = len(self.plan)
    return each * steps * slots + slots - self.plan.sizes[-1]

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The plan and the tokenizer know all shapes.
    key, frozen = jax.random.split(key)
    x = jnp.zeros((1, len(self.plan), self.tokenizer.channels))
    t = jnp.zeros((1, self.plan.steps))
    label = jnp.zeros((1,), jnp.int32)
    params = self.net.init(key, x, label, t)["params"]
    return {"params": params, "tokenizer": self.init_tokenizer(frozen)}

  def tokenize(self, variables: Vars, x: Array) -> Array:
    return self.codec(variables).moments(x)[:, self.raster()]

  def raster(self) -> np.ndarray:
    """i64[h^2]: where in the raster each latent of `encode` is."""
    rows, cols = self.tokenizer.grid
    if self.sides:
      return np.arange(rows * cols)
    return self.plan["row"] * cols + self.plan["col"]

  def parts(self, latents: Array) -> Array:
    """f32[B, L, C] of scaled latents, f32[B, h^2, C], that are in the order
    of `encode`."""
    if self.sides is None:
      return latents
    grid = latents.reshape(len(latents), *self.tokenizer.grid, -1)
    maps = [resize(grid, (side, side), "area") for side in self.sides]
    flat = [m.reshape(len(m), -1, m.shape[-1]) for m in maps]
    return jnp.concatenate(flat, axis=1)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    keys = system.example_keys(key, batch)
    draws, times, noises, hide, drop = (fold(keys, i) for i in range(5))
    latents = self.codec(variables).draw(batch["units"], draws)
    x, label, p = self.parts(latents), batch["label"], self.plan
    t = jax.vmap(lambda key: self.times.draw(key, (p.steps,)))(times)
    noise = solvers.noise(noises, x.shape[1:])
    slots = t[:, p.step_of()]
    xt = flow.LINEAR.noisy(x, noise, slots)
    if train:
      label = self.drop_labels(label, hide)
    v = self.net.apply(
      {"params": variables["params"]},
      xt,
      label,
      t,
      drop if train else None,
      context=x if self.context == "clean" else None,
    )
    target = flow.LINEAR.velocity(x, noise, slots)
    errors = jnp.mean(jnp.square(v - target), -1)
    ends = {"first": errors[:, p.span(0)], "last": errors[:, p.span(-1)]}
    metrics = {f"error/{name}": e.mean(1) for name, e in ends.items()}
    return Loss(jnp.mean(errors, 1), metrics, errors=errors)

  def decode(self, variables: Vars, x: Array) -> Array:
    """Images in [0, 1] of entities f32[B, L, C], finished or not."""
    last = x[:, self.plan.span(-1)] if self.sides else x
    latents = last[:, np.argsort(self.raster())]
    return (self.codec(variables).decode(latents) + 1) / 2

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    guidance: float | None = 1.0,
    schedule: str = "ramp",
    steps: int = 50,
    method: str = "sde",
    last: float = 0.04,
    trail: bool = False,
  ) -> Array:
    """Draws the entities of one image per key, f32[B, L, C].

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B]; the null label draws without a class.
      keys: Key[B].
      guidance: scale at the last entity; 1.0 or None is off.
      schedule: "ramp" rises from 1.0 at the first entity, as published, and
        so leaves a single entity unguided; "constant".
      steps: evaluations for each entity; twice as many with "heun".
      method: "sde", as published, or a key of `solvers.SOLVERS`.
      last: length of the last step of the SDE, which adds no noise; the
        others are equal.
      trail: whether to return every entity after each of its steps, f32[B, L,
        steps, C]; see `frames`.

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        that was built without a null class.
    """
    guidance = self.scale(guidance)
    scales = pick.schedule(schedule, guidance, self.plan.steps)
    times = _times(steps, method, last)
    if method == "sde":
      follow = lambda velocity, x, keys: solvers.euler_maruyama(
        velocity, x, times, keys, trail=trail
      )
    else:
      follow = lambda velocity, x, _: solvers.integrate(
        velocity, x, times, method, trail
      )
    return draw.generate(
      self.net,
      {"params": variables["params"]},
      cond["label"],
      keys,
      follow,
      null=self.null if guidance != 1.0 else None,
      scales=scales,
      trail=trail,
    )

  def frames(self, trail: Array) -> Array:
    """The latents of a map while it is drawn, f32[F, B, L, C], of what
    `generate` returns with `trail`: a frame for each step of each entity, in
    which later entities are still 0."""
    step = self.plan.step_of()
    at, i = (
      x.reshape(-1, 1, 1, 1)
      for x in np.indices((self.plan.steps, trail.shape[2]))
    )
    now = jnp.moveaxis(trail, 2, 0)[i.ravel()]
    mine = step.reshape(1, 1, -1, 1)
    done = jnp.where(mine < at, trail[None, :, :, -1], 0)
    return jnp.where(mine == at, now, done)


def _times(steps: int, method: str, last: float) -> np.ndarray:
  """The times of a sampler, `steps` + 1 from 0 to 1."""
  if steps < (2 if method == "sde" else 1):
    raise UserError(f"steps={steps}: too few for method={method!r}")
  if method != "sde":
    return solvers.uniform_grid(steps)
  if not 0 < last < 1:
    raise UserError(f"last={last}: must lie between 0 and 1")
  return np.append(np.linspace(0.0, 1 - last, steps), 1.0)


@system.passes_on(dit)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  num_classes: int,
  entity: str = "cell",
  part: int | Sequence[int] = 8,
  context: str = "noisy",
  time_mean: float = 0.0,
  time_std: float = 1.0,
  label_dropout: float = 0.1,
  **stack,
) -> XAR:
  """Builds xAR; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "kl_vae" or "patches", **arguments}`.
    depth: layers of both stacks together, an even number.
    width: D.
    heads: of attention.
    num_classes: labels are 0 .. num_classes - 1; the next one is null.
    entity: what X is; one of `entities.ENTITIES`.
    part: see `entities.entities`.
    context: see `XAR`.
    time_mean, time_std: of the logit-normal law of times.
    label_dropout: see `XAR`.
    **stack: dropout, remat, dtype, impl; see `dit`. The published models drop
      entries of the attention as well; the residual stream and the
      modulations stay float32 in any dtype, or training diverges.

  Raises:
    UserError: sizes do not fit together, or there is no such choice.
  """
  codes = system.part(tokenizer).tokenizer
  if depth % 2:
    raise UserError(f"depth={depth}: two equal stacks need an even number")
  check_choice("context", context, CONTEXTS)
  # Nothing is shared by the two.
  layers = lambda: dit(depth // 2, width, heads, "float32", **stack)
  stacks = layers(), layers()
  p = entities(entity, codes.grid, part)
  labels = num_classes + (label_dropout > 0)
  net = NextEntity(p, labels, codes.channels, width, *stacks)
  sides = None
  if entity == "scale":
    sides = (part,) if isinstance(part, int) else tuple(part)
  times = flow.Times("logit_normal", time_mean, time_std)
  return XAR(net, codes, times, context, sides, label_dropout)
