"""ARFlow: flow matching over a chain of ever cleaner images, each of which sees
those before it.

ARFlow: Autoregressive Flow with Hybrid Linear Attention (arXiv 2501.16085).
New in it:
  - training shows chains of S different images of a class, sorted from the
    noisiest to the cleanest; the velocity of each may look at those before;
  - softmax attention inside an image, and a gated linear memory of fixed size
    across images (`nn.layers.gated_attention`);
  - in a draw the chain is the way of the model itself: every step of the
    sampler is one more image. A step costs what it costs SiT, but for the
    memory.

With chains of one image and attention alone it is SiT (arXiv 2401.08740), the
baseline. The published code draws a class and then images of it; here images
are drawn, and others of the class beside each (`data.peers`).

Shapes: B batch, S images of a chain, L units of an image, p side of a patch, n
= L / p^2 patches of C numbers, D width. Times: 0 is noise, 1 data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import forms, system
from ar_jax.core.decoding import pairs
from ar_jax.core.decoding.steps import fold
from ar_jax.core.flows import flow, solvers
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.flow.images import Images
from ar_jax.families.flow.patched import Patched, shape
from ar_jax.nn.layers.gated_attention import GatedAttention
from ar_jax.nn.stacks.dit import dit_zero

# The published models: arguments of `build`.
SIZES = {
  "s": dict(depth=12, width=384, heads=6),
  "b": dict(depth=12, width=768, heads=12),
  "l": dict(depth=24, width=1024, heads=16),
  "xl": dict(depth=28, width=1152, heads=18),  # SiT's has 16 heads
}


@dataclasses.dataclass(frozen=True)
class ARFlow(Patched):
  """The system. Variables: `params`, and the frozen `tokenizer`.

  Attributes:
    net: the velocity.
    tokenizer: of continuous units on a grid.
    chain: S.
    patch: p; see `Patched`.
    label_dropout: how often training hides the label of a chain. 0 builds no
      null class, and then there is no guidance.
  """

  net: Images
  tokenizer: nn.Module
  chain: int = 5
  patch: int = 1
  label_dropout: float = 0.1

  @property
  def plan(self) -> Plan:
    """One step: every unit of an image is made of all others."""
    n = shape(self.tokenizer, self.patch)[0]
    return makers.blocks(n, n)

  def forwards(self, *, steps: int = 250, **_) -> int:
    """Passes of the network for one image, each of two rows if guided."""
    return steps

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The tokenizer knows all shapes.
    key, frozen = jax.random.split(key)
    n, _, channels = shape(self.tokenizer, self.patch)
    x, label = jnp.zeros((1, 1, n, channels)), jnp.zeros((1,), jnp.int32)
    params = self.net.init(key, x, label, jnp.zeros((1, 1)))["params"]
    return {"params": params, "tokenizer": self.init_tokenizer(frozen)}

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """As of any generator; and `peer_units` f32[B, j, n, 2 C] in the place of
    the images beside an example."""
    rest, field = dict(batch), f"peer_{self.tokenizer.field}"
    if field in rest:
      x = jnp.asarray(rest.pop(field))
      if self.chain > 1:
        units = self.tokenize(variables, forms.raw(x.reshape(-1, *x.shape[2:])))
        rest["peer_units"] = units.reshape(*x.shape[:2], *units.shape[1:])
    return super().encode(variables, rest)

  def chains(self, batch: Batch) -> Array:
    """The moments of chains, f32[B, S, n, 2 C]: the example, then others.

    Raises:
      UserError: there are too few others.
    """
    own = batch["units"][:, None]
    if self.chain == 1:
      return own
    others = batch.get("peer_units", own[:, :0])[:, : self.chain - 1]
    if others.shape[1] < self.chain - 1:
      raise UserError(
        f"chains of {self.chain} images: {others.shape[1]} stand beside an "
        f"example; set data.peers={self.chain - 1}"
      )
    return jnp.concatenate([own, others], 1)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    keys = system.example_keys(key, batch)
    latent, times, noises, hide, drop = (fold(keys, i) for i in range(5))
    moments, label = self.chains(batch), batch["label"]
    b, images, n = moments.shape[:3]
    flat = moments.reshape(b, images * n, -1)
    x = self.codec(variables).draw(flat, latent).reshape(b, images, n, -1)
    t = jax.vmap(lambda key: jnp.sort(jax.random.uniform(key, (images,))))(
      times
    )
    noise = solvers.noise(noises, x.shape[1:])
    if train:
      label = self.drop_labels(label, hide)
    net = self.net.bind({"params": variables["params"]})
    xt = flow.LINEAR.noisy(x, noise, t)
    v, _ = net(xt, label, t, None, drop if train else None)
    square = jnp.square(v - flow.LINEAR.velocity(x, noise, t))
    each = square.mean(-1)  # [B, S, n]
    ends = {} if images == 1 else {"first": each[:, 0], "last": each[:, -1]}
    metrics = {f"error/{name}": e.mean(1) for name, e in ends.items()}
    return Loss(each.mean((1, 2)), metrics, errors=each.mean(1))

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    steps: int = 250,
    guidance: float | None = 1.0,
    guided_channels: int | None = None,
    diffusion: str = "sigma",
    last: float = 0.04,
    trail: bool = False,
  ) -> Array:
    """Draws the units of one image per key, f32[B, n, C].

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B]; the null label draws without a class.
      keys: Key[B].
      steps: of the sampler, the last one included; each is a pass of the
        network, and an image of the chain.
      guidance: scale of the velocity; 1.0 or None is off. The two halves of a
        pair have memories of their own.
      guided_channels: of each unit of the tokenizer, the first so many are
        guided; all if None, 3 in the published samplers of DiT, SiT and
        ARFlow.
      diffusion: a key of `solvers.DIFFUSIONS`; "none" is Euler's solver.
      last: length of the last step, which adds no noise.
      trail: whether to return the image after each step, f32[B, n, steps, C].

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        that was built without a null class.
    """
    scale, label = self.scale(guidance), jnp.asarray(cond["label"])
    if steps < 2 or not 0 < last < 1:
      raise UserError(
        f"steps={steps}, last={last}: at least 2 steps, the last one of a "
        "length between 0 and 1"
      )
    guided, (n, _, channels) = scale != 1.0, shape(self.tokenizer, self.patch)
    own = {"params": variables["params"]}
    label = self.with_null(label) if guided else label
    first = channels // self.patch**2
    chosen = np.arange(channels) % first < (guided_channels or first)

    def velocity(x, t, cache):
      x = pairs.double(x, guided)[:, None]
      times = jnp.broadcast_to(t, (len(x), 1))
      cache = None if cache == () else cache
      v, cache = self.net.apply(own, x, label, times, cache)
      v, cache = v[:, 0], () if cache is None else cache
      if guided:
        with_it, null = pairs.split(v)
        v = jnp.where(chosen, flow.guide(with_it, null, scale), with_it)
      return v, cache

    # A chain of one has never seen another image.
    cache = self.net.cache(len(label)) if self.chain > 1 else None
    found = solvers.euler_maruyama(
      velocity,
      solvers.noise(keys, (n, channels)),
      np.append(np.linspace(0.0, 1 - last, steps), 1.0),
      keys,
      diffusion=diffusion,
      start=1,
      trail=trail,
      carry=() if cache is None else cache,
    )
    return jnp.moveaxis(found[1], 0, 2) if trail else found


@system.passes_on(dit_zero)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  num_classes: int,
  chain: int = 5,
  hybrid: bool = True,
  query_decay: str = "cumsum",
  patch: int = 1,
  time_scale: float = 1.0,
  label_dropout: float = 0.1,
  **stack,
) -> ARFlow:
  """Builds ARFlow; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "kl_vae" or "patches", **arguments}`.
    depth: layers.
    width: D.
    heads: of attention.
    num_classes: labels are 0 .. num_classes - 1; the next one is null.
    chain: S in training; one more than `data.peers`.
    hybrid: whether layers have the memory; without it, of chains of one image
      alone, they are SiT's.
    query_decay: see `gated_attention.across`.
    patch: p; 2 as published.
    time_scale: see `Images`.
    label_dropout: see `ARFlow`.
    **stack: dropout, remat, dtype, impl, shared; see `dit_zero`.

  Raises:
    UserError: sizes do not fit together, or there is no such choice.
  """
  codes = system.part(tokenizer).tokenizer
  _, grid, channels = shape(codes, patch)
  if grid is None:
    raise UserError("tokenizer: ARFlow draws images, units on a grid")
  if chain < 1 or (chain > 1 and not hybrid):
    raise UserError(
      f"chain={chain}, hybrid={hybrid}: at least one image, and no more than "
      "one without a memory"
    )
  mixer = None
  if hybrid:
    mixer = GatedAttention(heads, query_decay, impl=stack.get("impl"))
  labels = num_classes + (label_dropout > 0)
  layers = dit_zero(depth, width, heads, False, mixer, **stack)
  net = Images(grid, channels, width, layers, labels, time_scale)
  return ARFlow(net, codes, chain, patch, label_dropout)
