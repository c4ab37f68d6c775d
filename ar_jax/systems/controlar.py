"""ControlAR: a LlamaGen that follows the edges, depth or regions of a picture.

ControlAR: Controllable Image Generation with Autoregressive Models (arXiv
2410.02705). New in it: a small vision transformer makes of the control picture
one row for each unit, u_i, which is added to the hidden state that predicts
this unit, before three depths of the stack,

  x[P - 1 + i] += s M_j(u_i),  j = 0, 1, 2, before layers 0, N / 3, 2 N / 3,

so the sequence is no longer than without. All maps are without biases: rows of
0 are no control. One draw hides class or text and control together, and
guidance compares with neither. The encoder sees the true layout, so one model
draws images of any sides: those of the control picture.

fusion="prefilled" is what the paper compares with: the same rows before the
sequence, which is then twice as long. It is ours but for the idea.

Shapes: B batch, H W image sides, p pixels of a unit, h w cells, L units, N
layers, D width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import forms, system
from ar_jax.core.errors import check_choice
from ar_jax.core.plans.makers import raster
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.encoders.vit import encoder as make_encoder
from ar_jax.families.token.controlled import (
  STARTS,
  Control,
  Controlled,
  Prefilled,
  cells,
  grid,
)
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.program import TokenProgram
from ar_jax.families.token.readers import Embed
from ar_jax.families.token.system import order, prefix
from ar_jax.families.token.token_wise import TokenWise
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.layers.norms import Identity
from ar_jax.nn.stacks.llama import llama
from ar_jax.nn.stacks.segments import Segments

PARTS = 3  # of the stack, as published
FUSIONS = ("added", "prefilled")
FITS = ("nearest", "bicubic_corners")
# The encoders of the published models: arguments of `encoders.vit.encoder`.
VIT = dict(patch=16, side=14, in_channels=3, eps=1e-12)
DINOV2 = dict(patch=14, side=37, in_channels=3, layer_scale=1.0)
ENCODERS = {
  "vit_s": dict(depth=12, width=384, heads=6, **VIT),
  "dinov2_s": dict(depth=12, width=384, heads=6, **DINOV2),
  "dinov2_b": dict(depth=12, width=768, heads=12, **DINOV2),
}


@dataclasses.dataclass(frozen=True)
class ControlAR(TokenWise):
  """The system. Variables: `params`, the frozen `tokenizer`, and for texts the
  constant `null`. Where its units are added, the sides of the control pictures
  of a batch say what grid they lie on.

  Attributes:
    net: the transformer.
    tokenizer: a module of codes that lie on one grid.
    control: the field of a batch that holds the control pictures, u8[B, H, W,
      c]; maps of one channel are read as grey.
    label_dropout: how often training hides the condition, control and all. 0
      is a model without guidance.
    shapes: (height, width) in pixels, between which training changes from
      step to step, image and control resized alike; () for those of the data.
    shape: that of this program; None for those of the data.
  """

  net: NextToken
  tokenizer: nn.Module
  control: str
  label_dropout: float = 0.1
  shapes: tuple[tuple[int, int], ...] = ()
  shape: tuple[int, int] | None = None

  @property
  def needs(self) -> tuple[str, ...]:
    fields = self.net.prefix.fields
    return fields if self.control in fields else (*fields, self.control)

  @property
  def added(self) -> bool:
    """Whether control is added, and not in front."""
    return isinstance(self.net, Controlled)

  def at(self, step: int) -> ControlAR:
    if not self.shapes:
      return self
    drawn = np.random.default_rng(step).integers(len(self.shapes))
    return dataclasses.replace(self, shape=self.shapes[drawn])

  def on(self, cond: Batch) -> ControlAR:
    """The system of the grid that control pictures have."""
    if not self.added:
      return self
    sides = jnp.shape(cond[self.control])[1:3]
    found = cells(sides, self.tokenizer.stride)
    if found == grid(self.plan):
      return self
    net = self.net.clone(plan=raster(*found))
    return dataclasses.replace(self, net=net)

  def decode(self, variables: Vars, units: Array) -> Array:
    if grid(self.plan) == self.tokenizer.grid:
      return super().decode(variables, units)
    x = self.codec(variables).decode(units, grid(self.plan))
    return forms.shown(forms.named(self.tokenizer.field), x)

  def decode_part(
    self, variables: Vars, units: Array, done: Array | int
  ) -> Array:
    if grid(self.plan) == self.tokenizer.grid:
      return super().decode_part(variables, units, done)
    codec = self.codec(variables)
    return (codec.decode_part(units, done, grid(self.plan)) + 1) / 2

  def logits(
    self,
    variables: Vars,
    cond: Batch,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    own = self.on(cond)
    return super(ControlAR, own).logits(variables, cond, units, hidden, keys)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    if train and self.shape is not None:
      batch = self.resized(batch)
    own = self.on(batch)
    return super(ControlAR, own).loss(variables, batch, key, train=train)

  def resized(self, batch: Batch) -> dict[str, Array]:
    """The batch with images and control pictures of `shape`.

    Raises:
      UserError: it holds units in place of images.
    """
    field = self.tokenizer.field
    if field not in batch:
      raise UserError(
        "model.shapes: images are resized before they are coded, so their "
        "units cannot be stored; set cache.views=0"
      )

    def fit(x):
      shape = (*x.shape[:-3], *self.shape, x.shape[-1])
      y = jax.image.resize(x.astype(jnp.float32), shape, "linear")
      return jnp.clip(jnp.round(y), 0, 255).astype(jnp.uint8)

    return {**batch, **{k: fit(batch[k]) for k in (field, self.control)}}

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    own = self.on(cond)
    return super(ControlAR, own).sample(variables, cond, keys, **options)

  def generate(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    own = self.on(cond)
    return super(ControlAR, own).generate(variables, cond, keys, **options)

  def stream(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Iterator[np.ndarray]:
    own = self.on(cond)
    yield from super(ControlAR, own).stream(variables, cond, keys, **options)

  def program(self, *, strength: float = 1.0, **options: Any) -> TokenProgram:
    """As of every `TokenWise`, and

    Args:
      strength: s, the factor of the control; 0 is a model without.
      **options: as there.

    Raises:
      UserError: as there, or control is in front, where it has no strength.
    """
    program = super().program(**options)
    if strength == 1.0:
      return program
    if not self.added:
      raise UserError(
        f"strength={strength}: of control that is added, not in front"
      )
    net = self.net.clone(strength=strength)
    return dataclasses.replace(program, net=net)


@system.passes_on(llama)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  num_classes: int | None = None,
  text: Mapping[str, Any] | None = None,
  encoder: Mapping[str, Any] | None = None,
  control: str = "edges",
  control_init: str = "zero_last",
  fit: str = "nearest",
  fusion: str = "added",
  rope_side: int | None = None,
  shapes: Sequence[Sequence[int]] = (),
  label_dropout: float = 0.1,
  token_dropout: float = 0.1,
  **stack,
) -> ControlAR:
  """Builds ControlAR; see `llamagen.SIZES` for the sizes of the transformer
  and ENCODERS for those of the published encoders.

  Args:
    tokenizer: `{"name": "vq", **arguments}`; its codes lie on one grid.
    depth: layers, a multiple of 3.
    width: D.
    heads: of attention.
    num_classes: labels are 0 .. num_classes - 1; the next one is null. 0 is a
      model of control alone.
    text: `{"name": "bytes" or "features", **arguments}` of `encoders.text`;
      in place of num_classes.
    encoder: of control pictures, arguments of `encoders.vit.encoder`; of what
      it does not name, those of a small one that sees a patch for each unit.
    control: see `ControlAR`.
    control_init: "zero_last" or "released"; see `controlled.Control`.
    fit: see `controlled.Control`; "nearest" for edges and masks, or
      "bicubic_corners".
    fusion: "added", or "prefilled".
    rope_side: see `controlled.Controlled`; of published weights.
    shapes: see `ControlAR`.
    label_dropout: see `ControlAR`.
    token_dropout: of the embeddings.
    **stack: multiple_of, dropout, remat, dtype, impl; see `llama`.

  Raises:
    UserError: sizes do not fit together, there is no such choice, or not
      exactly one of num_classes and text is given.
  """
  codec = system.part(tokenizer).tokenizer
  if not hasattr(codec, "grid") or codec.vocab is None:
    raise UserError(
      f"tokenizer={tokenizer['name']!r}: control is of codes on one grid"
    )
  for name, value, known in (
    ("control_init", control_init, STARTS),
    ("fit", fit, FITS),
    ("fusion", fusion, FUSIONS),
  ):
    check_choice(name, value, known)
  if depth % PARTS:
    raise UserError(
      f"depth={depth}: control is added before each third of the layers; take "
      f"a multiple of {PARTS}"
    )
  shapes = tuple(tuple(map(int, shape)) for shape in shapes)
  for shape in shapes:
    cells(shape, codec.stride)
  added = fusion == "added"
  if not added and (shapes or rope_side):
    raise UserError("fusion='prefilled': has no shapes and no rope_side")
  small = dict(depth=2, width=64, heads=4, in_channels=1)
  small |= dict(patch=codec.stride, side=codec.grid[0], mean=0.5, std=0.5)
  # Three of them, for modules that are one object share their parameters.
  part = functools.partial(llama, depth // PARTS, width, heads, **stack)
  layers = part()
  of = Control(
    make_encoder(**small | dict(dtype=str(layers.dtype)) | dict(encoder or {})),
    width,
    PARTS if added else 0,
    codec.stride,
    fit,
    control_init,
    layers.dtype,
  )
  front = prefix(width, num_classes, text, label_dropout)
  if not added:
    front = Prefilled(front, of, codec.grid, control)
  parts = *(part(Identity()) for _ in range(PARTS - 1)), layers
  more = dict(control=of, field=control, rope_side=rope_side) if added else {}
  net = (Controlled if added else NextToken)(
    order(codec),
    Embed(codec.vocab, width),
    width,
    front,
    Segments(parts),
    Categorical(codec.vocab, 0.0, bias=False),
    dropout=token_dropout,
    **more,
  )
  return ControlAR(net, codec, control, label_dropout, shapes)
