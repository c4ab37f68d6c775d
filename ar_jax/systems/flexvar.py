"""FlexVAR: next-scale prediction without residuals.

FlexVAR: Flexible Visual Autoregressive Modeling without Residual Prediction
(arXiv 2502.20313). New in it, against VAR:
  - a step predicts the whole latent at its own resolution, not what is left
    over by coarser ones; its input is the map before, resized;
  - positions are one table, resized to every map, and there are no levels;
  - training draws another list of maps at every step, so sampling takes any:
    other numbers of steps, sizes and aspect ratios.

Shapes: B batch, L units, K maps of sides h_k w_k, C latent channels, V codes,
U units of all maps that may be in a list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ar_jax.core import system
from ar_jax.core.plans import makers, scale_list
from ar_jax.core.plans.makers import pair
from ar_jax.core.plans.scale_list import Lists
from ar_jax.core.system import Array, Batch, UserError, Vars
from ar_jax.families.scale.net import NextScale, Slots, next_scale
from ar_jax.families.scale.system import ScaleWise, Targets
from ar_jax.tokenizers.flex_vq import FlexVQ

# The published models: arguments of `build`.
SIZES = {
  "d16": dict(depth=16, gate_init=1e-3),
  "d20": dict(depth=20, gate_init=1e-3),
  "d24": dict(depth=24, gate_init=1e-4),
}


def ramp(guidance: float, sides: Sequence[Any], largest: int) -> tuple:
  """The scale of guidance at each map, as in the published sampler.

  It rises from 1.0 and has reached `guidance` at the last map, or at the tenth
  if there are more: then it rises on. Maps larger than any that was trained
  are guided in full.
  """
  rise = np.arange(len(sides)) / max(1, min(len(sides) - 1, 9))
  over = np.array([max(pair(side)) > largest for side in sides])
  scales = 1 + (guidance - 1) * np.where(over, 1, rise)
  return tuple(scales.tolist())


@dataclasses.dataclass(frozen=True)
class FlexVAR(ScaleWise):
  """The system. Variables: `params`, and the frozen `tokenizer`.

  Attributes:
    net: the transformer; its plan is of the list on which it is evaluated.
    tokenizer: a `FlexVQ` of the same list.
    label_dropout: how often training hides the label. 0 builds no null class,
      and then there is no guidance.
    lists: how training draws its lists; None always takes that of the plan.
  """

  net: NextScale
  tokenizer: FlexVQ
  label_dropout: float = 0.1
  lists: Lists | None = None

  @property
  def sizes(self) -> tuple[int, ...]:
    """Sides of the maps that training may see."""
    return self.tokenizer.scales + (self.lists.others if self.lists else ())

  @property
  def widest(self) -> int:
    return max(side * side for side in self.sizes)

  def over(self, scales: Sequence[int | tuple[int, int]]) -> FlexVAR:
    """The same model with another list of maps, to sample or to evaluate it.

    Args:
      scales: sides, or (height, width); the first map has one cell.

    Raises:
      UserError: it does not begin so, or a map is smaller than the one before.
    """
    scales = tuple(p if np.ndim(p) == 0 else tuple(p) for p in scales)
    shapes = np.array(list(map(pair, scales)))
    if (
      not len(shapes)
      or shapes[0].max() > 1
      or (np.diff(shapes, axis=0) < 0).any()
    ):
      raise UserError(
        f"scales={scales}: must begin with 1, and no map may be lower or "
        "narrower than the one before"
      )
    return dataclasses.replace(
      self,
      net=self.net.clone(plan=makers.scales(scales)),
      tokenizer=self.tokenizer.clone(scales=scales),
      lists=None,
    )

  def tokenize(self, variables: Vars, x: Array) -> Array:
    every = dataclasses.replace(
      self, tokenizer=self.tokenizer.clone(scales=self.sizes)
    )
    return every.codec(variables).encode(x)

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """The batch with `units` i32[B, L] of the plan's maps and, where lists are
    drawn, `others` i32[B, U - L] of all others."""
    if "image" not in batch or not self.lists:
      return super().encode(variables, batch)
    batch = super().encode(variables, batch)
    units, others = jnp.split(batch["units"], [len(self.plan)], axis=1)
    return {**batch, "units": units, "others": others}

  def targets(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Targets:
    """In training the targets of a list that the key draws, the same for the
    whole batch, padded to `lists.limit`; else that of the plan."""
    if not (train and self.lists):
      return super().targets(variables, batch, key, train=train)
    sides = self.lists.draw(key)
    return self.targets_of(variables, batch, key, sides, train=train)

  def targets_of(
    self,
    variables: Vars,
    batch: Batch,
    key: Array,
    sides: Array,
    *,
    train: bool,
  ) -> Targets:
    """The targets of a list that is data: sides i32[K], zeros behind them, all
    of them in `sizes`, of at most `lists.limit` units."""
    batch = self.encode(variables, batch)
    if "others" not in batch:
      raise UserError(
        "a batch of units must hold `others` as well; encode anew"
      )
    label, keys = self.label_and_keys(batch, key, train=train)
    where = scale_list.layout(sides, self.lists.limit)
    units = jnp.concatenate([batch["units"], batch["others"]], axis=1)
    ends = np.cumsum(np.square(self.sizes))
    begin = np.zeros(max(self.sizes) + 1, np.int32)
    begin[list(self.sizes)] = ends - np.square(self.sizes)
    unit = jnp.asarray(begin)[where.side] + where.row * where.side + where.col
    live = where.level >= 0
    return Targets(
      label,
      jnp.where(live, units[:, unit], 0),
      where.level,
      live / jnp.sum(live),
      keys,
      Slots(
        where.level, scale_list.grid_weights(where, self.sizes, self.net.grid)
      ),
      where,
    )

  def teacher_inputs(self, variables: Vars, targets: Targets) -> Array:
    return self.student_inputs(variables, targets, targets.units)

  def student_inputs(
    self, variables: Vars, targets: Targets, units: Array
  ) -> Array:
    """The input of a slot is the map before its own and no other, so this is
    what `teacher_inputs` does."""
    codec = self.codec(variables)
    if targets.layout is None:
      return codec.embed(units)
    codes = codec.codebook()[units]
    return scale_list.previous_map(codes, targets.layout, self.sizes)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    scales: Sequence[int | tuple[int, int]] = (),
    guidance: float | None = 1.0,
    schedule: str = "ramp",
    greedy_unseen: bool = True,
    force_first_scales: int | None = None,
    coarse: str = "bilinear",
    redraw: Callable[..., Array] | None = None,
    **law: float,
  ) -> tuple[Array, Array]:
    """Draws the units of one image per key.

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B]; the null label draws without a class. To edit an
        image, `given` u8[B, H, W, c] and perhaps `keep`; see
        `ScaleWise.edit`. A `given` smaller than what is drawn is refined.
        Perhaps `bias` f32[B, V], or f32[B, K, V] for each map; see
        `pick.biased`.
      keys: Key[B].
      scales: the maps, sides or (height, width), from one cell to the latent
        of the image; empty means those of the model.
      guidance: scale at the last map, or at the tenth if there are more; 1.0
        or None is off. The paper's cfg is guidance - 1.
      schedule: "ramp" as the paper's, see `ramp`; "constant".
      greedy_unseen: takes the likeliest units on maps with a side that is not
        in the model's own list, as the published sampler does.
      force_first_scales: so many maps are those of the given image; None
        means the 1 x 1 map, if a part is kept.
      coarse: see `editing.kept`.
      redraw: see `draw.generate`.
      **law: temperature, top_k, top_p, min_p; see `pick.law`.

    Returns:
      Units i32[B, L] of all maps; and the codes of the last, f32[B, h, w, C],
      which alone are decoded.

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        that was built without a null class.
    """
    own = self.tokenizer.scales
    here = self.over(scales) if scales else self
    sides = here.tokenizer.scales
    guidance = self.scale(guidance)
    rates = here.rates(schedule, guidance, max(own))
    seen = [set(pair(side)) <= set(own) for side in sides]
    greedy = law | {"temperature": 0.0}
    return here.drawn(
      variables,
      cond["label"],
      keys,
      guided=guidance != 1.0,
      scales=rates,
      laws=[law if s or not greedy_unseen else greedy for s in seen],
      edit=here.edit(variables, cond, force_first_scales, coarse),
      redraw=redraw,
      bias=cond.get("bias"),
    )

  def rates(
    self, schedule: str, guidance: float, largest: Any = None
  ) -> tuple[float, ...]:
    """As of `ScaleWise`; "ramp" as the paper's. `largest` is the last map of
    the model's own list, if this is another."""
    sides = self.tokenizer.scales
    if schedule == "ramp":
      return ramp(guidance, sides, largest or max(sides))
    return super().rates(schedule, guidance)


@system.passes_on(next_scale)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  num_classes: int,
  label_dropout: float = 0.1,
  lists: Mapping[str, Any] | None = None,
  grid: int = 32,
  **net,
) -> FlexVAR:
  """Builds FlexVAR; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "flex_vq", **arguments}`; its scales are the list on
      which the model is evaluated, squares.
    depth: layers.
    num_classes: labels are 0 .. num_classes - 1; the next one is null.
    label_dropout: see `FlexVAR`.
    lists: arguments of `scale_list.Lists` but `base`: an empty mapping is the
      published law; None trains on the one list of the tokenizer.
    grid: side of the table of positions.
    **net: width, heads, mlp_ratio, qk_norm, shared_ada, drop_path, gate_init,
      remat, dtype, impl; see `next_scale`. Lists that are drawn are data,
      which `impl` kernels do not take.

  Raises:
    UserError: sizes do not fit together.
  """
  codes = system.part(tokenizer).tokenizer
  scales = codes.scales
  if any(np.ndim(side) for side in scales):
    raise UserError(f"scales={scales}: the model's own maps must be squares")
  if lists is not None:
    frozen = lambda x: tuple(map(frozen, x)) if np.iterable(x) else x
    law = {name: frozen(value) for name, value in lists.items()}
    lists = Lists(base=tuple(scales), **law)
  labels = num_classes + (label_dropout > 0)
  net = next_scale(
    makers.scales(scales), codes.vocab, labels, depth=depth, grid=grid, **net
  )
  return FlexVAR(net, codes, label_dropout, lists)
