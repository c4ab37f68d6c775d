"""Hi-MAR: masked autoregression in two phases, a small image first and then the
whole one by what the first phase thought of it.

Hierarchical Masked Autoregressive Models with Low-Resolution Token Pivots
(arXiv 2505.20288). New in it:
  - the whole image is drawn by pivots: the hidden states of a small version
    of it, not its units, which would be clean in training and drawn later;
  - one transformer for both phases, with scales and gates of each;
  - the head of the second phase is a DiT over the whole map, units that are
    known written back into it, so that four steps are enough.

Shapes: B batch, Ls and Ld units of the small and of the whole image, C
channels of a unit, D width, K1 and K2 steps of the two phases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core import forms, system
from ar_jax.core.decoding.steps import fold
from ar_jax.core.errors import check_choice
from ar_jax.core.plans import makers
from ar_jax.core.signals.resize import resize
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Generator
from ar_jax.families.masked import phases, shares
from ar_jax.families.masked.pivots import Pivoted
from ar_jax.nn.heads.diffusion import Diffusion
from ar_jax.nn.heads.flow_nets import TokenMLP
from ar_jax.nn.heads.map_diffusion import MapDiffusion, MapDiT
from ar_jax.nn.stacks.dit import dit_zero
from ar_jax.nn.stacks.phased import phased_vit

# The published models: arguments of `build`.
SIZES = {
  "b": dict(
    depth=12, width=768, heads=12, head=(6, 1024), map_head=(6, 512, 8)
  ),
  "l": dict(
    depth=16, width=1024, heads=16, head=(8, 1280), map_head=(8, 512, 8)
  ),
  "h": dict(
    depth=20, width=1280, heads=16, head=(12, 1536), map_head=(12, 768, 12)
  ),
}
PIVOTS = ("hidden", "token")
METHODS = ("bicubic", "area")


@dataclasses.dataclass(frozen=True)
class HiMAR(Generator):
  """The system. Variables: `params`, and the frozen `tokenizer`.

  It has no `plan`: the orders are drawn for every image, and the sampler
  chooses how many steps there are.

  Attributes:
    net: encoder, decoder and both heads.
    tokenizer: of continuous units of the whole image.
    small: the same of the small one.
    label_dropout: how often training hides the label, of each phase by
      itself. 0 builds no null class, and then there is no guidance.
    pivots: "hidden", states of the first phase; or "token", its units, which
      is what it is compared with.
    pivot_rate: how often training shows an image its pivots; else it sees
      blanks, which a place also shows that was known to the first phase.
    pivot_ramp: updates until that rate is reached, from 0; 0 for no ramp.
    weights: of the two losses, times the share of the units that is theirs.
    mask_low, mask_std: of the first phase; see `shares.hidden`.
    method: how images are made small, a name of `signals.resize`.
  """

  net: Pivoted
  tokenizer: nn.Module
  small: nn.Module
  label_dropout: float = 0.1
  pivots: str = "hidden"
  pivot_rate: float = 0.25
  pivot_ramp: int = 0
  weights: tuple[float, float] = (2.0, 0.75)
  mask_low: float = 0.7
  mask_std: float | None = 0.25
  method: str = "bicubic"

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The tokenizer knows all shapes.
    key, frozen = jax.random.split(key)
    label = jnp.zeros((1,), jnp.int32)
    zeros = lambda n: jnp.zeros((1, n, self.net.channels))
    few, all_ = zeros(self.net.small), zeros(self.net.dense)
    order = lambda x: jnp.arange(x.shape[1])[None]

    def every(net):
      h = net.first(label, few, order(few), 0, rows=1)
      small = net.head.loss(h, few, key[None])
      seen = net.hidden_pivots(h) + net.token_pivots(few) + net.blank_pivots()
      h = net.second(label, seen, all_, order(all_), 0, rows=1)
      ones = jnp.ones(all_.shape[:2])
      return small, net.map_head.loss(h, all_, key[None], ones)

    params = self.net.init(key, method=every)["params"]
    return {"params": params, "tokenizer": self.init_tokenizer(frozen)}

  def forwards(
    self, *, small_steps: int | None = None, steps: int = 4, **_
  ) -> int:
    """Passes of the transformer for one image, each of two rows if guided."""
    return (small_steps or self._small_steps) + steps

  def map_forwards(self, *, steps: int = 4, map_denoise: int = 250, **_) -> int:
    """Passes of the head over the map, of two rows if guided."""
    return steps * map_denoise

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """As of any generator; and `small_units` f32[B, Ls, 2 C]."""
    rest, field = dict(batch), self.tokenizer.field
    if field not in rest:
      return rest
    x = forms.raw(rest.pop(field))
    size = tuple(n // 2 for n in x.shape[1:3])
    frozen = jax.lax.stop_gradient(variables["tokenizer"])
    small = self.small.bind({"params": frozen})
    rest["small_units"] = small.moments(resize(x, size, self.method))
    return {**rest, "units": self.codec(variables).moments(x)}

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    if "small_units" not in batch:
      raise UserError("units without small_units: encode the images again")
    keys, label = system.example_keys(key, batch), batch["label"]
    draw, own = self.codec(variables).draw, [fold(keys, i) for i in range(11)]
    few = draw(batch["small_units"], own[0] if train else None)
    whole = draw(batch["units"], own[1] if train else None)
    labels = [self.drop_labels(label, k) if train else label for k in own[2:4]]
    dropping = own[4:6] if train else (None, None)
    net = self.net.bind({"params": variables["params"]})
    n, total = len(few[0]), len(few[0]) + len(whole[0])

    masked = shares.hidden(key, n, self.mask_low, self.mask_std)
    order, known = phases.orders(own[6], n), n - masked
    rows = shares.visible(n, self.mask_low)
    h = net.first(labels[0], few, order, known, rows=rows, keys=dropping[0])
    late = phases.hidden(order, known)
    each = net.head.loss(h, few, own[7])
    small = jnp.sum(each * late, 1) / jnp.sum(late, 1)

    chance = jax.vmap(jax.random.uniform)(own[8]) if train else None
    pivots = self.shown(net, h, few, late, chance, batch.get("step"))
    length = total - n
    turn = jax.random.uniform(jax.random.fold_in(key, 0)) * jnp.pi / 2
    masked = jnp.ceil(length * jnp.cos(turn)).astype(jnp.int32)
    order, known = (
      phases.orders(own[9], length),
      length - jnp.maximum(masked, 1),
    )
    h = net.second(
      labels[1], pivots, whole, order, known, rows=max(1, length - 1),
      keys=dropping[1],
    )  # fmt: skip
    # A mean over all units, though only those that are hidden count.
    dense = jnp.mean(
      net.map_head.loss(h, whole, own[10], phases.hidden(order, known)), 1
    )
    a, b = self.weights
    value = (a * n * small + b * length * dense) / total
    return Loss(value, {"loss/small": small, "loss/whole": dense})

  def shown(
    self, net, h, few, hidden, chance: Array | None, step: Array | None = None
  ) -> Array:
    """f32[B, Ls, D], the pivots that training shows by uniform draws f32[B];
    see `phases.shown`. Without a step i32[B] the ramp is over."""
    rate = None if chance is None else jnp.full(chance.shape, self.pivot_rate)
    if rate is not None and self.pivot_ramp and step is not None:
      rate = rate * jnp.clip(step / self.pivot_ramp, 0.0, 1.0)
    return phases.shown(net, self.pivots, h, few, hidden, chance, rate)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    steps: int = 4,
    small_steps: int | None = None,
    guidance: float | None = 1.0,
    small_guidance: float | None = None,
    schedule: str = "linear",
    denoise: int = 100,
    map_denoise: int = 250,
    temperature: float = 1.0,
    blank: bool = False,
    waste: float = 0.5,
  ) -> Array:
    """Draws the units of one image per key, f32[B, Ld, C] in raster order.

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B]; the null label draws without a class.
      keys: Key[B].
      steps: K2, of a cosine schedule.
      small_steps: K1; four times the side of the small map, if None.
      guidance: scale at the end of the second phase; 1.0 or None is off.
      small_guidance: the same of the first; as `guidance` if None.
      schedule: of guidance, "linear" or "constant"; see `shares.scales`.
      denoise: steps of the head of the first phase.
      map_denoise: steps of the head over the map.
      temperature: multiplies the noise of every step of denoising.
      blank: whether pivots say nothing, to see what they are worth; then there
        is no first phase.
      waste: see `refine.stretches`, of the first phase.

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        that was built without a null class.
    """
    head = dict(temperature=temperature)
    net, params = self.net, variables["params"]
    if blank:
      pivots = net.apply({"params": params}, method="blank_pivots")
      pivots = jnp.broadcast_to(pivots, (len(keys), *pivots.shape[1:]))
    else:
      own = guidance if small_guidance is None else small_guidance
      _, pivots = self.draw_small(
        variables, cond, keys, steps=small_steps, guidance=own,
        schedule=schedule, denoise=denoise, waste=waste, **head,
      )  # fmt: skip
    sizes = makers.cosine(net.dense, steps)
    label, scales = self._guided(cond, guidance, schedule, sizes)
    return phases.whole(
      net, params, label, pivots, keys, sizes, scales, steps=map_denoise, **head
    )

  def draw_small(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    steps: int | None = None,
    guidance: float | None = 1.0,
    schedule: str = "linear",
    denoise: int = 100,
    temperature: float = 1.0,
    waste: float = 0.5,
  ) -> tuple[Array, Array]:
    """The first phase: units of the small image f32[B, Ls, C], and its pivots
    f32[B, Ls, D]; arguments as in `generate`."""
    net, params = self.net, variables["params"]
    sizes = makers.cosine(net.small, steps or self._small_steps)
    label, scales = self._guided(cond, guidance, schedule, sizes)
    head = dict(steps=denoise, temperature=temperature)
    units, h = phases.small(
      net, params, label, keys, sizes, scales, waste=waste, **head
    )
    kind = {"hidden": ("hidden_pivots", h), "token": ("token_pivots", units)}
    method, x = kind[self.pivots]
    return units, net.apply({"params": params}, x, method=method)

  def _guided(self, cond, guidance, schedule, sizes) -> tuple[Array, Array]:
    """The labels, in pairs if guided, and the scale of every step."""
    scale, label = self.scale(guidance), jnp.asarray(cond["label"])
    scales = jnp.asarray(shares.scales(scale, schedule, sizes))
    return self.with_null(label) if scale != 1.0 else label, scales

  @property
  def _small_steps(self) -> int:
    """K1 as published, 32 of 64 units."""
    return min(self.net.small, 4 * self.small.grid[0])


@system.passes_on(phased_vit)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  head: tuple[int, int],
  map_head: tuple[int, int, int],
  num_classes: int,
  prefix: int = 64,
  pivots: str = "hidden",
  pivot_rate: float = 0.25,
  pivot_ramp: int = 0,
  mask_low: float = 0.7,
  label_dropout: float = 0.1,
  method: str = "bicubic",
  levels: int = 1000,
  repeats: int = 4,
  **stack,
) -> HiMAR:
  """Builds Hi-MAR; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "kl_vae" or "patches", **arguments}`, of the whole
      image; the small one has half its side.
    depth: layers of the encoder, and of the decoder.
    width: D.
    heads: of attention.
    head: layers and width of the head of the first phase.
    map_head: layers, width and heads of attention of that of the second.
    num_classes: labels are 0 .. num_classes - 1; the next one is null.
    prefix: copies of the class vector before the units.
    pivots, pivot_rate, pivot_ramp, mask_low, label_dropout, method: see
      `HiMAR`.
    levels: of noise, of both heads.
    repeats: noises that every hidden state is trained with.
    **stack: dropout, eps, remat, dtype, impl, of both stacks; see `vit`. The
      heads are float32.

  Raises:
    UserError: sizes do not fit together, or a name is not one.
  """
  latents = system.part(tokenizer).tokenizer
  known = {"pivots": (pivots, PIVOTS), "method": (method, METHODS)}
  for name, (value, names) in known.items():
    check_choice(name, value, names)
  if not 0 <= mask_low < 1:
    raise UserError(f"mask_low={mask_low}: must be in [0, 1)")
  if not 0 <= pivot_rate <= 1:
    raise UserError(f"pivot_rate={pivot_rate}: must be in [0, 1]")
  few = system.part({**tokenizer, "size": latents.size // 2}).tokenizer
  c, (map_depth, map_width, map_heads) = latents.channels, map_head
  layers = dit_zero(map_depth, map_width, map_heads)
  net = Pivoted(
    few.length,
    latents.length,
    c,
    num_classes + (label_dropout > 0),
    width,
    prefix,
    phased_vit(depth, width, heads, **stack),
    phased_vit(depth, width, heads, **stack),
    Diffusion(TokenMLP(c, head[1], head[0], 2 * c), levels, repeats),
    MapDiffusion(MapDiT(c, map_width, latents.grid, layers), levels, repeats),
  )
  return HiMAR(
    net, latents, few, label_dropout, pivots, pivot_rate, pivot_ramp,
    mask_low=mask_low, method=method,
  )  # fmt: skip
