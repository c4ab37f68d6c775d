"""MAR: images without a codebook, by masked autoregression in random order.

Autoregressive Image Generation without Vector Quantization (arXiv
2406.11838). New in it:
  - a unit is a vector of numbers; a small diffusion model, conditioned by the
  hidden
    state, is its law, in place of a softmax over codes;
  - units appear in random order, several a step, and those known see each
    other both ways;
  - every step draws all units that are due from the same hidden states.

Shapes: B batch, L units, C channels of a unit, S units gathered for the
encoder, D width, K steps.
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
from ar_jax.core.decoding import refine
from ar_jax.core.decoding.steps import fold
from ar_jax.core.errors import check_choice
from ar_jax.core.plans import makers
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Generator
from ar_jax.families.masked import shares
from ar_jax.families.masked.net import Masked, states_at
from ar_jax.nn.heads.diffusion import Diffusion
from ar_jax.nn.heads.flow import Flow
from ar_jax.nn.heads.flow_nets import TokenMLP
from ar_jax.nn.stacks.vit import vit

# The published models: arguments of `build`.
SIZES = {
  "b": dict(depth=12, width=768, heads=12, head_depth=6, head_width=1024),
  "l": dict(depth=16, width=1024, heads=16, head_depth=8, head_width=1280),
  "h": dict(depth=20, width=1280, heads=16, head_depth=12, head_width=1536),
}
ORDERS = ("random", "raster")
HEADS = ("diffusion", "flow")


@dataclasses.dataclass(frozen=True)
class MAR(Generator):
  """The system. Variables: `params`, and the frozen `tokenizer`.

  It has no `plan`: the order is drawn for every image, and the sampler
  chooses how many steps there are.

  Attributes:
    net: the encoder, the decoder and the head.
    tokenizer: of continuous units; see `tokenizers.kl_vae`.
    order: "random", or "raster": the same order for all, row by row.
    label_dropout: how often training hides the label. 0 builds no null class,
      and then there is no guidance.
    mask_low: at least this share of the units is hidden in training.
    mask_std: the share hidden is normal about 1 with this deviation, between
      mask_low and 1; None is uniform between the two.
  """

  net: Masked
  tokenizer: nn.Module
  order: str = "random"
  label_dropout: float = 0.1
  mask_low: float = 0.7
  mask_std: float | None = 0.25

  @property
  def rows(self) -> int:
    """S in training: units that are visible at most."""
    return shares.visible(self.net.length, self.mask_low)

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The tokenizer knows all shapes.
    t = self.tokenizer
    key, frozen = jax.random.split(key)
    label = jnp.zeros((1,), jnp.int32)
    units = jnp.zeros((1, t.length, t.channels))
    order = jnp.arange(t.length)[None]

    def every(net, *args):
      h = net(*args, rows=self.rows)
      return net.head.loss(h, units, key[None])

    params = self.net.init(key, label, units, order, 0, method=every)["params"]
    return {"params": params, "tokenizer": self.init_tokenizer(frozen)}

  def tokenize(self, variables: Vars, x: Array) -> Array:
    return self.codec(variables).moments(x)

  def orders(self, keys: Array) -> Array:
    """i32[B, L]: which unit comes when."""
    length = self.net.length
    if self.order == "raster":
      return jnp.broadcast_to(jnp.arange(length)[None], (len(keys), length))
    return jax.vmap(lambda key: jax.random.permutation(key, length))(keys)

  def hidden(self, key: Array) -> Array:
    """i32[]: how many units a batch hides, one number for all examples."""
    own = self.net.length, self.mask_low, self.mask_std
    return shares.hidden(key, *own)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    label, moments = batch["label"], batch["units"]
    keys = system.example_keys(key, batch)
    split = jax.vmap(lambda key: jax.random.split(key, 5), out_axes=1)
    dropping, hide, ordering, latent, noise = split(keys)
    tokenizer = self.codec(variables)
    units = tokenizer.draw(moments, latent if train else None)
    if train:
      label = self.drop_labels(label, hide)
    order = self.orders(ordering)
    known = self.net.length - self.hidden(key)
    net = self.net.bind({"params": variables["params"]})
    keys = dropping if train else None
    h = net(label, units, order, known, rows=self.rows, keys=keys)
    head = net.head
    if isinstance(head, Diffusion):
      error, bits = head.terms(h, units, noise)
      each, parts = error + bits, {"mse": error, "bits": bits}
    else:
      each, parts = head.loss(h, units, noise), {}
    # A unit is hidden if it comes late.
    late = (jnp.argsort(order, axis=1) >= known).astype(jnp.float32)
    mean = lambda x: jnp.sum(x * late, 1) / jnp.sum(late, 1)
    return Loss(mean(each), {k: mean(v) for k, v in parts.items()})

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    steps: int | None = None,
    guidance: float | None = 1.0,
    schedule: str = "linear",
    waste: float = 0.5,
    **head: Any,
  ) -> Array:
    """Draws the units of one image per key, f32[B, L, C] in raster order.

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B]; the null label draws without a class.
      keys: Key[B].
      steps: K, of a cosine schedule; L, one unit a step, if None.
      guidance: scale at the end; 1.0 or None is off.
      schedule: of guidance, "linear" or "constant"; see `shares.scales`.
      waste: see `refine.stretches`.
      **head: options of the head's `draw`: `steps` of denoising under the
        name `denoise`, temperature, and those of `Flow`.

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        that was built without a null class.
    """
    length, b = self.net.length, len(keys)
    sizes = makers.cosine(length, length if steps is None else steps)
    guidance = self.scale(guidance)
    guided = guidance != 1.0
    scales = self.scales(guidance, schedule, sizes)
    if "denoise" in head:
      head["steps"] = head.pop("denoise")
    params = variables["params"]
    order = self.orders(fold(keys, length))
    label = self.with_null(cond["label"]) if guided else cond["label"]

    def predict(canvas, known, at, s, keys, *, rows):
      h, h_null = states_at(
        self.net, params, label, canvas, order, known, at, rows
      )
      draw = lambda net, *args, **options: net.head.draw(*args, **options)
      return self.net.apply(
        {"params": params},
        h,
        keys,
        h_null=h_null,
        scale=jnp.asarray(scales)[s],
        method=draw,
        **head,
      )

    canvas = jnp.zeros((b, length, self.tokenizer.channels))
    return refine.refine(predict, canvas, order, sizes, keys, waste=waste)

  def scales(self, guidance, schedule, sizes) -> np.ndarray:
    """f32[K], of guidance."""
    return shares.scales(guidance, schedule, sizes)


@system.passes_on(vit)
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
  head: str = "diffusion",
  prefix: int = 64,
  order: str = "random",
  mask_low: float = 0.7,
  mask_std: float | None = 0.25,
  label_dropout: float = 0.1,
  levels: int = 1000,
  repeats: int = 4,
  **stack,
) -> MAR:
  """Builds MAR; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "kl_vae" or "patches", **arguments}`.
    depth: layers of the encoder, and of the decoder unless `decoder_depth`.
    width: D.
    heads: of attention.
    head_depth: layers of the head.
    head_width: its width.
    num_classes: labels are 0 .. num_classes - 1; the next one is null.
    decoder_depth: layers of the decoder; `depth` if None.
    head: "diffusion", or "flow" in its place.
    prefix: copies of the class vector before the units.
    order: see `MAR`.
    mask_low: see `MAR`.
    mask_std: see `MAR`.
    label_dropout: see `MAR`.
    levels: of noise, of a diffusion head.
    repeats: noises that every hidden state is trained with.
    **stack: dropout, eps, remat, dtype, impl, of both stacks; see `vit`. The
      head is float32.

  Raises:
    UserError: sizes do not fit together, or a name is not one.
  """
  latents = system.part(tokenizer).tokenizer
  for name, value, names in (("order", order, ORDERS), ("head", head, HEADS)):
    check_choice(name, value, names)
  if not 0 <= mask_low < 1:
    raise UserError(f"mask_low={mask_low}: must be in [0, 1)")
  c = latents.channels
  law = (
    Diffusion(TokenMLP(c, head_width, head_depth, 2 * c), levels, repeats)
    if head == "diffusion"
    else Flow(TokenMLP(c, head_width, head_depth, c), repeats=repeats)
  )
  net = Masked(
    latents.length,
    num_classes + (label_dropout > 0),
    width,
    prefix,
    vit(depth, width, heads, **stack),
    vit(decoder_depth or depth, width, heads, **stack),
    law,
  )
  return MAR(net, latents, order, label_dropout, mask_low, mask_std)
