"""A vision transformer: what an image shows, at each patch and as a whole.

An Image is Worth 16x16 Words (ViT, arXiv 2010.11929); also as DINOv2 (arXiv
2304.07193: factors behind the branches, registers of arXiv 2309.16588) and as
CLIP (arXiv 2103.00020: a norm before the layers, a map to the space of texts)
publish it. Their files are read by `vit_files`; `python -m ar_jax.convert FILE
DIR --family=vit` makes a run of one, for `config.weights` to refer to. It is
trained here as a classifier.

Shapes: B batch, H W image sides, c channels, p side of a patch, h w patches, G
side of the table of places, R registers, D width, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core import forms, system
from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.signals.patches import cut
from ar_jax.core.signals.resize import resize
from ar_jax.core.system import Array, Batch, Loss, Vars, example_keys
from ar_jax.encoders.base import Recognition, classified
from ar_jax.nn.layers.norms import Identity, LayerNorm
from ar_jax.nn.stacks.transformer import Backbone
from ar_jax.nn.stacks.vit import vit

# Published sizes: arguments of `build`.
SIZES = {
  "s": dict(depth=12, width=384, heads=6),
  "b": dict(depth=12, width=768, heads=12),
  "l": dict(depth=24, width=1024, heads=16),
}
STYLES = ("vit", "clip")


class Seen(NamedTuple):
  """What the network makes of images.

  Attributes:
    grid: f32[B, h, w, D], of each patch.
    whole: f32[B, D], of the class token, or the mean of the grid without one.
    pooled: f32[B, P], `whole` in the space of texts; `whole` where there is no
      map to it.
  """

  grid: Array
  whole: Array
  pooled: Array


class Encoder(nn.Module):
  """f32[B, H, W, c] in [-1, 1] -> `Seen`, of any sides that are multiples of
  the patch: the table of places is brought to their grid.

  Attributes:
    stack: the layers, whose last norm is none.
    width: D.
    patch: p.
    side: G.
    in_channels: c; images of one channel are repeated to it.
    class_token: whether there is one.
    registers: R further tokens, which have no place and are dropped.
    style: "vit", or "clip": a norm before the layers, no bias of the patches,
      and a last norm of the class token alone.
    projection: numbers of the space of texts; None for no map to it.
    mean, std: of pixels in [0, 1], that the network was trained to see as 0
      and 1; one number, or one for each channel.
    table: how the table of places is resized; see `core.signals.resize`.
    eps: of the norms.
  """

  stack: Backbone
  width: int
  patch: int
  side: int
  in_channels: int = 3
  class_token: bool = True
  registers: int = 0
  style: str = "vit"
  projection: int | None = None
  mean: float | tuple[float, ...] = 0.5
  std: float | tuple[float, ...] = 0.5
  table: str = "bicubic"
  eps: float = 1e-6

  def setup(self):
    normal, clip = nn.initializers.normal(0.02), self.style == "clip"
    rows = lambda name, n: self.param(name, normal, (n, self.width))
    self.embed = nn.Dense(self.width, use_bias=not clip)
    self.places = rows("places", self.class_token + self.side**2)
    if self.class_token:
      self.token = rows("token", 1)
    if self.registers:
      self.others = rows("others", self.registers)
    if clip:
      self.before = LayerNorm(self.eps)
    self.norm = LayerNorm(self.eps)
    if self.projection:
      self.project = nn.Dense(self.projection, use_bias=False)

  def __call__(self, x: Array, keys: Array | None = None) -> Seen:
    """What images show; `keys` Key[B] are for dropout, None for none.

    Raises:
      UserError: the sides are no multiples of the patch, or the channels are
        others.
    """
    first = self.class_token + self.registers
    x, grid = self._begun(x)
    h, _ = self.stack(x, None, keys=keys)
    normed = self.norm(h)
    patches = (h if self.style == "clip" else normed)[:, first:]
    whole = normed[:, 0] if self.class_token else jnp.mean(normed, 1)
    pooled = self.project(whole) if self.projection else whole
    return Seen(patches.reshape(len(x), *grid, -1), whole, pooled)

  def _begun(self, x: Array) -> tuple[Array, tuple[int, int]]:
    """What the layers read, [B, T, D], and h and w."""
    x = self.tokens(self.normal(x))
    grid, x = x.shape[1:3], x.reshape(len(x), -1, self.width)
    x = x + self.positions(grid)[None]
    every = lambda y: jnp.broadcast_to(y[None], (len(x), *y.shape))
    before = []
    if self.class_token:
      before.append(every(self.token + self.places[:1]))
    if self.registers:
      before.append(every(self.others))
    x = jnp.concatenate([*before, x], axis=1)
    return (self.before(x) if self.style == "clip" else x), grid

  def levels(self, x: Array, behind: Sequence[int]) -> list[Array]:
    """f32[B, h w, D] each: what the layers read, and their states behind some
    layers, from 1 on; that of the class token is added to all places. Not for
    an init."""
    h, _ = self._begun(x)
    block = self.stack.block.clone(
      parent=None, _deep_clone=True, _reset_names=True
    )
    params = self.stack.variables["params"]["block"]

    def layer(h, own):
      after, _ = block.apply({"params": own}, h, None, None)
      return after, after

    _, states = jax.lax.scan(layer, h, params)
    first = 1 + self.registers
    every = [h, *(states[n - 1] for n in behind)]
    return [(y[:, first:] + y[:, :1]).astype(jnp.float32) for y in every]

  def normal(self, x: Array) -> Array:
    """Pixels as the network was trained to see them."""
    height, width, channels = x.shape[1:]
    if height % self.patch or width % self.patch:
      raise UserError(
        f"images of {height}x{width}: this encoder cuts patches of "
        f"{self.patch}x{self.patch}"
      )
    if channels not in (1, self.in_channels):
      raise UserError(
        f"images of {channels} channels: this encoder reads {self.in_channels}"
      )
    if channels != self.in_channels:
      x = jnp.repeat(x, self.in_channels, axis=-1)
    numbers = lambda y: jnp.asarray(y, jnp.float32).reshape(1, 1, 1, -1)
    return ((x + 1) / 2 - numbers(self.mean)) / numbers(self.std)

  def tokens(self, x: Array) -> Array:
    """f32[B, h, w, D] of normal pixels."""
    return self.embed(cut(x, self.patch))

  def positions(self, grid: tuple[int, int]) -> Array:
    """f32[h w, D]: the table of places, resized to a grid."""
    table = self.places[self.class_token :]
    table = table.reshape(self.side, self.side, self.width)
    return resize(table, grid, self.table).reshape(-1, self.width)


class Labelled(nn.Module):
  """An encoder and a linear map to classes.

  Attributes:
    encoder: the network.
    classes: K; 0 for no such map.
    side: to which images are brought before they are read; None as they are.
  """

  encoder: Encoder
  classes: int = 0
  side: int | None = None

  def setup(self):
    if self.classes:
      self.head = nn.Dense(self.classes)

  def __call__(
    self, images: Array, keys: Array | None = None
  ) -> tuple[Seen, Array | None]:
    """`Seen` of images u8[B, H, W, c], and logits f32[B, K]."""
    x = forms.raw(jnp.asarray(images))
    if self.side is not None:
      x = jnp.clip(resize(x, (self.side, self.side), "bicubic"), -1, 1)
    seen = self.encoder(x, keys)
    return seen, self.head(seen.whole) if self.classes else None


@dataclasses.dataclass(frozen=True)
class ViT(Recognition):
  """The encoder as a system: trained as a classifier; `sample` says the class
  of given images. A teacher beside another system is called as a `classifier`
  is.

  Attributes:
    net: the network.
  """

  net: Labelled

  @property
  def classes(self) -> int | None:
    return self.net.classes or None

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    self._needs_classes()
    keys = example_keys(key, batch) if train else None
    logits = self.net.apply(variables, batch["image"], keys)[1]
    return classified(logits, batch["label"])

  def logits(self, variables: Vars, batch: Batch) -> Array:
    """f32[B, K] of the images of a batch."""
    self._needs_classes()
    return self.net.apply(variables, batch["image"])[1]

  def seen(self, variables: Vars, batch: Batch) -> Seen:
    """Of the images of a batch, u8[B, H, W, c]."""
    return self.net.apply(variables, batch["image"])[0]

  def pooled(self, variables: Vars, batch: Batch) -> Array:
    """f32[B, P]; see `Seen`."""
    return self.seen(variables, batch).pooled

  def grid(self, variables: Vars, batch: Batch) -> Array:
    """f32[B, h, w, D]; see `Seen`."""
    return self.seen(variables, batch).grid

  def _needs_classes(self) -> None:
    if not self.net.classes:
      raise UserError(
        "this encoder knows no classes: it reads images for other systems; "
        "build it with num_classes to train it"
      )


@system.passes_on(vit)
def encoder(
  *,
  patch: int = 16,
  depth: int = 12,
  width: int = 384,
  heads: int = 6,
  side: int = 14,
  in_channels: int = 3,
  class_token: bool = True,
  registers: int = 0,
  style: str = "vit",
  projection: int | None = None,
  mean: float | Sequence[float] = 0.5,
  std: float | Sequence[float] = 0.5,
  table: str = "bicubic",
  eps: float = 1e-6,
  **stack,
) -> Encoder:
  """The network alone; see SIZES for published ones.

  Args:
    patch, width, side, in_channels, class_token, registers, style, projection,
      mean, std, table, eps: see `Encoder`.
    depth: layers.
    heads: of attention.
    **stack: hidden, act, layer_scale, dropout, remat, dtype, impl; see
      `nn.stacks.vit`.

  Raises:
    UserError: there is no such style, or sizes do not fit together.
  """
  check_choice("style", style, STYLES)
  if style == "clip" and not class_token:
    raise UserError("style='clip' with class_token=False: it reads this token")
  one = lambda x: x if isinstance(x, int | float) else tuple(x)
  layers = vit(depth, width, heads, **{"dropout": 0.0, "eps": eps, **stack})
  return Encoder(
    layers.clone(out_norm=Identity()),
    width,
    patch,
    side,
    in_channels,
    class_token,
    registers,
    style,
    projection,
    one(mean),
    one(std),
    table,
    eps,
  )


@system.passes_on(encoder)
def build(*, num_classes: int = 0, size: int | None = None, **arguments) -> ViT:
  """The encoder as a system.

  Args:
    num_classes: K, to train it; 0 for an encoder of a published file.
    size: side to which images are brought before they are read, as published
      encoders are used; None reads them as they are.
    **arguments: of `encoder`.

  Raises:
    UserError: as `encoder`.
  """
  return ViT(Labelled(encoder(**arguments), num_classes, size))
