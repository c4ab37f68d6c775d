"""NAR: images and videos by fronts, from one corner to the other.

Neighboring Autoregressive Modeling for Efficient Visual Generation (arXiv
2503.10696). New in it:
  - all units at the same Manhattan distance from the first one appear in one
    step: 2 n - 1 steps for n x n units, T + H + W - 2 for videos;
  - each axis has a head of its own, behind a block of its own;
  - a unit with several parents follows the mean of their logits.
Otherwise it is LlamaGen.

Shapes: B batch, P positions of the prefix, L units in the order of the plan,
D width, V codes, T frames.
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
from ar_jax.core.decoding import pick
from ar_jax.core.plans import makers
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.encoders import text as encoders
from ar_jax.families.base import Prefixed
from ar_jax.families.token import fronts
from ar_jax.families.token.prefix import ClassPrefix, TextPrefix
from ar_jax.nn.heads.categorical import Categorical, cross_entropy
from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.mlp import SwiGLU
from ar_jax.nn.layers.norms import Bare
from ar_jax.nn.stacks.transformer import Backbone, PlainBlock

# The published models for images and for videos: arguments of `build`.
SIZES = {
  "b": dict(depth=12, width=768, heads=12),
  "m": dict(depth=18, width=1024, heads=16),
  "l": dict(depth=24, width=1024, heads=16),
  "xl": dict(depth=36, width=1280, heads=20),
  "xxl": dict(depth=48, width=1536, heads=24),
  "video_l": dict(depth=24, width=1024, heads=16),
  "video_lp": dict(depth=30, width=1280, heads=20),
}


@dataclasses.dataclass(frozen=True)
class NAR(Prefixed):
  """The system. Variables: `params`, the frozen `tokenizer`, and for texts
  the constant `null`. A video is `video` u8[B, T, H, W, c] in place of
  `image`, and its frames are coded one by one.

  Attributes:
    net: the transformer.
    tokenizer: a module whose units lie on one grid, as `VQ`.
    frames: T; None for images.
    label_dropout: how often training hides the condition. 0 is a model
      without guidance.
  """

  net: fronts.NextNeighbour
  tokenizer: nn.Module
  frames: int | None = None
  label_dropout: float = 0.1

  def forwards(self, **options) -> int:
    """Passes of the transformer for one example, each of two rows if guided."""
    del options
    return self.plan.steps

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The plan, the encoder and the tokenizer know all shapes.
    key, frozen = jax.random.split(key)
    cond = self.net.prefix.example()
    units = jnp.zeros((1, len(self.plan)), jnp.int32)
    variables = self.net.init(key, cond, units)
    return {**variables, "tokenizer": self.frozen(frozen)}

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    rest = dict(batch)
    name = "image" if self.frames is None else "video"
    if name not in rest:
      return rest
    x = rest.pop(name).astype(jnp.float32) / 127.5 - 1
    frames = x.reshape(-1, *x.shape[-3:])
    units = self.codec(variables).encode(frames).reshape(len(x), -1)
    return {**rest, "units": units[:, self._raster()]}

  def logits(
    self,
    variables: Vars,
    cond: Array,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, L, V] of every unit, given the fronts before its own; arguments
    as those of `NextNeighbour`."""
    return self.net.bind(self.own(variables))(cond, units, hidden, keys)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    cond, units = batch[self.needs[0]], batch["units"]
    hidden, keys = None, None
    if train:
      keys = system.example_keys(key, batch)
      keys, hide = jax.vmap(jax.random.split, out_axes=1)(keys)
      hidden = self.hiding(hide)
    logits = self.logits(variables, cond, units, hidden, keys)
    nll = cross_entropy(logits, units)
    hits = jnp.argmax(logits, -1) == units
    metrics = {"accuracy": jnp.mean(hits.astype(jnp.float32), 1)}
    return Loss(jnp.mean(nll, 1), metrics, nll=nll)

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    """Draws one example per key, f32[B, H, W, c] or, of a video, f32[B, T, H,
    W, c], in [0, 1]; options as in `generate`."""
    return self.decode(
      variables, self.generate(variables, cond, keys, **options)
    )

  def decode(self, variables: Vars, units: Array) -> Array:
    """Images or videos in [0, 1] of units i32[B, L]."""
    frames = self.frames or 1
    units = units[:, np.argsort(self._raster())]
    units = units.reshape(len(units) * frames, -1)
    image = (self.codec(variables).decode(units) + 1) / 2
    if self.frames is None:
      return image
    return image.reshape(-1, frames, *image.shape[1:])

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    guidance: float | None = 1.0,
    schedule: str = "constant",
    stop: int | None = None,
    **law: float,
  ) -> Array:
    """Draws the units of one example per key, i32[B, L].

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B] or `text`.
      keys: Key[B].
      guidance: scale; 1.0 or None is off.
      schedule: a key of `pick.SCHEDULES`, over fronts.
      stop: guidance is off in fronts before which so many units are drawn.
      **law: temperature, top_k, top_p, min_p; see `pick.law`.

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        built without a null class.
    """
    guidance = self.scale(guidance)
    sizes = np.array(self.plan.sizes)
    if stop is not None:
      stop = int(np.sum(np.cumsum(sizes) - sizes < stop))
    scales = pick.schedule(schedule, guidance, self.plan.steps, stop=stop)
    return fronts.generate(
      self.net,
      self.own(variables),
      cond[self.needs[0]],
      keys,
      scales if guidance != 1.0 else None,
      **law,
    )

  def _raster(self) -> np.ndarray:
    """i64[L]: where in the raster the unit of every slot is."""
    rows, cols = self.tokenizer.grid
    cell = self.plan["row"] * cols + self.plan["col"]
    if self.frames is not None:
      cell = self.plan["frame"] * rows * cols + cell
    return cell


def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  num_classes: int | None = None,
  text: Mapping[str, Any] | None = None,
  frames: int | None = None,
  order: str = "diagonals",
  multiple_of: int = 256,
  prefix_rope: str = "zero",
  label_dropout: float = 0.1,
  dropout: float = 0.1,
  token_dropout: float = 0.1,
  remat: bool | str = False,
  dtype: str = "float32",
  impl: str | None = None,
) -> NAR:
  """Builds NAR; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "vq", **arguments}`.
    depth: layers before the first head; every further axis adds one.
    width: D.
    heads: of attention.
    num_classes: labels are 0 .. num_classes - 1; the next one is null.
    text: `{"name": "bytes" or "features", **arguments}` of `encoders.text`;
      in place of num_classes.
    frames: T, for videos, whose positions are learned.
    order: "diagonals"; or "regions", four units a step, one in each quarter
      of an image, behind one head: the order of PAR (arXiv 2412.15119), which
      the paper compares itself with, but without its sequential start.
    multiple_of: the hidden width of the MLP is 8 D / 3 rounded up to it.
    prefix_rope: see `positions.rope_grid`; images only.
    label_dropout: see `NAR`.
    dropout: of the branches of the layers.
    token_dropout: of the embeddings.
    remat: saves memory in training for time; see `transformer.Backbone`.
    dtype: of the computation of the blocks.
    impl: of `ops.attention`.

  Raises:
    UserError: sizes or order do not fit together, or not exactly one of
      num_classes and text is given.
  """
  tokenizer = dict(tokenizer)
  codes = system.build(tokenizer.pop("name"), **tokenizer).tokenizer
  if width % heads:
    raise UserError(f"width={width} is not a multiple of heads={heads}")
  if (num_classes is None) == (text is None):
    raise UserError("give either num_classes or text, the condition")
  if text is None:
    prefix = ClassPrefix(num_classes + (label_dropout > 0), width)
  else:
    prefix = TextPrefix(encoders.build(**text), width)
  dtype = jnp.dtype(dtype)
  hidden = -(-int(8 * width / 3) // multiple_of) * multiple_of

  def stack(depth):
    mixer = Attention(heads, out_bias=False, dtype=dtype, impl=impl)
    block = PlainBlock(mixer, SwiGLU(hidden, dtype=dtype), dropout=dropout)
    return Backbone(block, depth, out_norm=Bare(), remat=remat, dtype=dtype)

  video = frames is not None
  if order not in ("diagonals", "regions") or (video and order == "regions"):
    raise UserError(
      f"order={order!r}: is diagonals, or regions of images without frames"
    )
  if video:
    grid, axes = makers.fronts(frames, *codes.grid), 3
  elif order == "diagonals":
    grid, axes = makers.diagonals(*codes.grid), 2
  else:
    grid, axes = makers.regions(*codes.grid, 2), 1
  # As published: with images, only the head of the trunk begins with zeros.
  head = lambda axis: Categorical(
    codes.vocab, 0.02 if axis and not video else 0.0, bias=False
  )
  net = fronts.NextNeighbour(
    grid,
    codes.vocab,
    width,
    prefix,
    tuple(stack(depth if axis == 0 else 1) for axis in range(axes)),
    tuple(head(axis) for axis in range(axes)),
    None if video else prefix_rope,
    dropout=token_dropout,
  )
  return NAR(net, codes, frames, label_dropout)
