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
import jax.numpy as jnp
import numpy as np

from ar_jax.core import system
from ar_jax.core.decoding import pick
from ar_jax.core.plans import makers
from ar_jax.core.system import Array, Batch, UserError, Vars
from ar_jax.families.token import fronts_draw
from ar_jax.families.token.fronts import NextNeighbour
from ar_jax.families.token.system import TeacherForced, prefix
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.layers.norms import Identity
from ar_jax.nn.stacks.llama import llama

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
class NAR(TeacherForced):
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

  net: NextNeighbour
  tokenizer: nn.Module
  frames: int | None = None
  label_dropout: float = 0.1

  takes = ("bias",)

  def forwards(self, **options) -> int:
    """Passes of the transformer for one example, each of two rows if guided."""
    del options
    return self.plan.steps

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    rest = dict(batch)
    name = "image" if self.frames is None else "video"
    if name not in rest:
      return rest
    x = rest.pop(name).astype(jnp.float32) / 127.5 - 1
    frames = x.reshape(-1, *x.shape[-3:])
    units = self.codec(variables).encode(frames).reshape(len(x), -1)
    return {**rest, "units": units[:, self._raster()]}

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
      cond: `label` i32[B] or `text`, and perhaps `bias` f32[B, V]; see
        `pick.biased`.
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
    return fronts_draw.generate(
      self.net,
      self.net_variables(variables),
      self.condition(cond),
      keys,
      scales if guidance != 1.0 else None,
      bias=cond.get("bias"),
      **law,
    )

  def _raster(self) -> np.ndarray:
    """i64[L]: where in the raster the unit of every slot is."""
    rows, cols = self.tokenizer.grid
    cell = self.plan["row"] * cols + self.plan["col"]
    if self.frames is not None:
      cell = self.plan["frame"] * rows * cols + cell
    return cell


@system.passes_on(llama)
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
  prefix_rope: str = "zero",
  label_dropout: float = 0.1,
  token_dropout: float = 0.1,
  **stack,
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
    prefix_rope: see `positions.rope_grid`; images only.
    label_dropout: see `NAR`.
    token_dropout: of the embeddings.
    **stack: multiple_of, dropout, drop_path, remat, dtype, impl; see `llama`.

  Raises:
    UserError: sizes or order do not fit together, or not exactly one of
      num_classes and text is given.
  """
  codes = system.part(tokenizer).tokenizer
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
  layers = lambda depth: llama(depth, width, heads, Identity(), **stack)
  net = NextNeighbour(
    grid,
    codes.vocab,
    width,
    prefix(width, num_classes, text, label_dropout),
    tuple(layers(depth if axis == 0 else 1) for axis in range(axes)),
    tuple(head(axis) for axis in range(axes)),
    None if video else prefix_rope,
    dropout=token_dropout,
  )
  return NAR(net, codes, frames, label_dropout)
