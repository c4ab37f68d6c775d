"""FlowAR: next-scale prediction of continuous latents by flow matching.

FlowAR: Scale-wise Autoregressive Image Generation Meets Flow Matching (arXiv
2412.15205). New in it:
  - no multi-scale tokenizer: the latent of any VAE, pooled to sides 1, 2, 4,
    ..., each map a target by itself and not a residual;
  - the transformer gives every position of a map a hidden state;
  - a small transformer, modulated by these position by position, carries the
    whole map from noise to data.

Shapes: B batch, K maps of side p_k, L = sum p_k^2 slots, T slots of one map,
C latent channels, D width, h side of the latent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import system
from ar_jax.core.decoding import pairs, pick, steps
from ar_jax.core.plans import makers, plan
from ar_jax.core.signals.resize import resize
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Generator
from ar_jax.families.scale.flow import ScaleFlow
from ar_jax.nn.heads.flow import Flow
from ar_jax.nn.heads.flow_nets import GroupTransformer
from ar_jax.nn.stacks.dit import dit

# The published models: arguments of `build`.
SIZES = {
  "s": dict(depth=6, width=768, heads=12, head_depth=2, head_width=1024),
  "l": dict(
    depth=8, width=1024, heads=16, head_depth=12, head_width=1024, cross=True
  ),
  "h": dict(
    depth=15, width=1536, heads=16, head_depth=12, head_width=1536, cross=True
  ),
}


def grid(points: int) -> np.ndarray:
  """The published times of the sampler, 0 (noise) to 1, f64.

  50 is 50 equal steps. Any other number falls into two halves: 0 to 0.7, and
  0.75 to 1, which is finer; 8 are 8 steps, but an odd number loses one: 25 are
  24 steps.

  Raises:
    UserError: fewer than 4.
  """
  if points == 50:
    return np.linspace(0, 1, 51)
  if points < 4:
    raise UserError(f"times={points}: the two halves need at least 4 steps")
  half = points // 2
  return np.concatenate(
    [np.linspace(0, 0.7, half), np.linspace(0.75, 1, half + 1)]
  )


@dataclasses.dataclass(frozen=True)
class FlowAR(Generator):
  """The system. Variables: `params`, and the frozen `tokenizer`.

  Attributes:
    net: the transformer and its head.
    tokenizer: of continuous units; see `tokenizers.kl_vae`.
    label_dropout: how often training hides the label. 0 builds no null class,
      and then there is no guidance.
  """

  net: ScaleFlow
  tokenizer: nn.Module
  label_dropout: float = 0.1

  @property
  def plan(self) -> plan.Plan:
    return self.net.plan

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The plan and the tokenizer know all shapes.
    t, net = self.tokenizer, self.net
    key, frozen = jax.random.split(key)
    targets = jnp.zeros((1, len(self.plan), t.channels))
    label = jnp.zeros((1,), jnp.int32)

    def every(net, *args):
      h = net(*args)
      return net.head.loss(h, targets, key[None], plan=net.plan)

    params = net.init(key, label, targets[:, 1:], method=every)["params"]
    return {"params": params, "tokenizer": self.init_tokenizer(frozen)}

  def tokenize(self, variables: Vars, x: Array) -> Array:
    return self.codec(variables).moments(x)

  def targets(self, units: Array) -> Array:
    """All maps f32[B, L, C], coarse first, of units f32[B, h h, C]: means over
    the cells of the latent."""
    side, b = self.net.sides[-1], len(units)
    latent = units.reshape(b, side, side, -1)
    maps = [
      resize(latent, (p, p), "area").reshape(b, p * p, -1)
      for p in self.net.sides
    ]
    return jnp.concatenate(maps, axis=1)

  def following(self, s: int, units: Array) -> Array:
    """The input of the map after s, f32[B, p_{s+1}^2, C], of its units
    f32[B, p_s^2, C]: interpolated to the finest side, then pooled."""
    sides = self.net.sides
    p, q, side = sides[s], sides[s + 1], sides[-1]
    x = units.reshape(len(units), p, p, -1)
    x = resize(resize(x, (side, side), "bicubic"), (q, q), "area")
    return x.reshape(len(units), q * q, -1)

  def states(
    self,
    variables: Vars,
    label: Array,
    targets: Array,
    keys: Array | None = None,
  ) -> Array:
    """Hidden states f32[B, L, D] of all slots by the maps f32[B, L, C] before
    them, which may be of any law."""
    p = self.plan
    inputs = [
      self.following(s, targets[:, p.span(s)]) for s in range(p.steps - 1)
    ]
    return self._net(variables)(label, jnp.concatenate(inputs, 1), keys)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    label, p = batch["label"], self.plan
    keys = system.example_keys(key, batch)
    split = jax.vmap(lambda key: jax.random.split(key, 4), out_axes=1)
    dropping, hide, latent, noise = split(keys)
    tokenizer = self.codec(variables)
    units = tokenizer.draw(batch["units"], latent if train else None)
    if train:
      label = self.drop_labels(label, hide)
    targets = self.targets(units)
    h = self.states(variables, label, targets, dropping if train else None)
    net = self._net(variables)
    error = net.head.loss(h, targets, noise, plan=p, pos=net.places(head=True))
    means = [error[:, p.span(s)].mean(1) for s in range(p.steps)]
    weights = np.divide(p.sizes, p.sizes[-1])
    value = sum(w * m for w, m in zip(weights, means, strict=True))
    return Loss(value, {f"mse/scale_{s + 1}": m for s, m in enumerate(means)})

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    """Draws one image per key, f32[B, H, W, c] in [0, 1]; options as in
    `generate`."""
    maps = self.generate(variables, cond, keys, **options)
    return self.decode(variables, maps[:, self.plan.span(-1)])

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    guidance: float | None = 1.0,
    schedule: str = "ramp",
    guide_until: float = 0.9,
    times: int = 25,
    **head: Any,
  ) -> Array:
    """Draws the maps of one image per key, f32[B, L, C].

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B]; the null label draws without a class.
      keys: Key[B].
      guidance: scale at the last map; 1.0 or None is off.
      schedule: "ramp" rises from 1.0 at the first map, as the paper does;
        "constant".
      guide_until: guidance acts where the share of noise is at most this.
      times: of the solver; see `grid`.
      **head: further options of `Flow.draw`: solver, temperature.

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        that was built without a null class.
    """
    p = self.plan
    guidance = self.scale(guidance)
    scales = pick.schedule(schedule, guidance, p.steps)
    guided = guidance != 1.0
    net, label = self._net(variables), cond["label"]
    if guided:
      label = self.with_null(label)
    first, ada = net.begin(label)
    head = dict(
      head, times=tuple(grid(times).tolist()), interval=(1 - guide_until, 1.0)
    )

    def step(carry, s, keys):
      x, cache = carry
      h, cache = net.step(s, x, ada, cache)
      h, h_null = pairs.split(h) if guided else (h, None)
      units = net.head.draw(
        h,
        keys,
        h_null=h_null if scales[s] != 1.0 else None,
        scale=scales[s],
        pos=net.places(p.span(s), head=True),
        **head,
      )
      if s + 1 < p.steps:
        x = pairs.double(net.latent(self.following(s, units)), guided)
      return (x, cache), units

    carry = first, net.cache(len(label))
    return steps.unroll_steps(step, carry, p, keys)[1]

  def _net(self, variables: Vars) -> ScaleFlow:
    return self.net.bind({"params": variables["params"]})


@system.passes_on(dit)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  head_depth: int,
  head_width: int,
  num_classes: int,
  decoder_depth: int | None = None,
  head_heads: int | None = None,
  cross: bool = False,
  pooled: bool = False,
  label_dropout: float = 0.1,
  dropout: float = 0.0,
  **stack,
) -> FlowAR:
  """Builds FlowAR; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "kl_vae" or "patches", **arguments}`; the side of its
      grid is a power of two.
    depth: layers of each of the two stacks, or of the first.
    width: D.
    heads: of attention.
    head_depth: layers of the head.
    head_width: its width.
    num_classes: labels are 0 .. num_classes - 1; the next one is null.
    decoder_depth: layers of the second stack; `depth` if None.
    head_heads: of the head's attention; head_width / 64 if None.
    cross: the head's larger form; see `GroupTransformer`.
    pooled: the ablation of the head; see `Flow`.
    label_dropout: see `FlowAR`.
    dropout: of both branches of the layers of the stacks.
    **stack: remat, dtype, impl, of the stacks; see `dit`. The head is float32.

  Raises:
    UserError: sizes do not fit together.
  """
  latents = system.part(tokenizer).tokenizer
  side = latents.grid[0]
  if side & (side - 1):
    raise UserError(f"a latent of {side}x{side}: its side must be a power of 2")
  head_heads = head_heads or head_width // 64
  for name, w, n in (("", width, heads), ("head_", head_width, head_heads)):
    if not n or w % n or (w // n) % 4:
      raise UserError(
        f"{name}width={w}: must be {name}heads={n} times a multiple of 4"
      )
  sides = tuple(2**k for k in range(side.bit_length()))
  layers = lambda n: dit(n, width, heads, dropout=dropout, **stack)
  net = ScaleFlow(
    makers.scales(sides),
    sides,
    num_classes + (label_dropout > 0),
    width,
    layers(depth),
    layers(decoder_depth or depth),
    Flow(
      GroupTransformer(
        latents.channels, head_width, head_depth, head_heads, cross
      ),
      pooled=pooled,
    ),
  )
  return FlowAR(net, latents, label_dropout)
