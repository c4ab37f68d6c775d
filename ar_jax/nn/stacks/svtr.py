"""SVTR: an encoder of word images that keeps their width and gives up their
height (arXiv 2205.00159), as CPPD has it.

Two strided convolutions, then three stages of blocks of the first transformer's
order, x = norm(x + branch(x)); the first mix neighbours by a grouped
convolution, the others all tokens by attention. Between the stages a
convolution halves the height.

Shapes: B batch, H x W pixels, h x w tokens, N = h w, D width of a stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError, check_choice
from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import LayerNorm
from ar_jax.nn.stacks.blocks import PlainBlock, drop_path

Array = jax.Array

STEMS = ("batch", "image")
_KERNEL = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_PAD = ((1, 1), (1, 1))


class ConvMixer(nn.Module):
  """A convolution over a map of tokens, in groups of channels; called and
  answering as `Attention`.

  Attributes:
    shape: (h, w) of the map.
    groups: of channels; a group sees itself alone.
    kernel: (rows, columns), both odd.
    dtype: of the computation.
  """

  shape: tuple[int, int]
  groups: int
  kernel: tuple[int, int] = (5, 5)
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Array, mask=None, *, pos=None, cache=None, layer=0
  ) -> tuple[Array, None]:
    """([B, N, D] of x [B, N, D], no cache)."""
    del mask, pos, cache, layer
    b, n, width = x.shape
    shape = (*self.kernel, width // self.groups, width)
    kernel = self.param("kernel", _KERNEL, shape)
    bias = self.param("bias", nn.initializers.zeros, (width,))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    # One convolution a group: the gradient of a grouped one takes a CPU 25
    # times as long.
    own = jnp.split(x.reshape(b, *self.shape, width), self.groups, -1)
    kernels = jnp.split(kernel, self.groups, -1)
    made = [
      jax.lax.conv_general_dilated(
        part, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
      )
      for part, k in zip(own, kernels, strict=True)
    ]
    x = jnp.concatenate(made, -1).reshape(b, n, width)
    return x + bias[None, None], None


class Svtr(nn.Module):
  """Tokens of a word image.

  Attributes:
    size: (H, W) of an image.
    widths: D of each stage.
    depths: blocks of each.
    heads: of attention, or groups of channels, in each.
    convolutions: so many of the first blocks mix by convolution.
    stem: the norm of the two strided convolutions: "batch", with the
      collection `batch_stats`, as published; or "image", over all of an image.
    drop: rate of stochastic depth in the last block, linear from 0.
    stddev: initial standard deviation of linear maps and places.
    dtype: of the blocks.
  """

  size: tuple[int, int] = (32, 100)
  widths: tuple[int, ...] = (128, 256, 384)
  depths: tuple[int, ...] = (6, 6, 4)
  heads: tuple[int, ...] = (4, 8, 12)
  convolutions: int = 8
  stem: str = "batch"
  drop: float = 0.1
  stddev: float = 0.02
  dtype: jnp.dtype = jnp.float32

  def map(self, stage: int) -> tuple[int, int]:
    """(h, w) of the tokens of a stage."""
    h, w = (math.ceil(math.ceil(side / 2) / 2) for side in self.size)
    for _ in range(stage):
      h = math.ceil(h / 2)
    return h, w

  @property
  def tokens(self) -> int:
    """N behind the last stage."""
    return math.prod(self.map(len(self.depths) - 1))

  @property
  def width(self) -> int:
    """D behind the last stage."""
    return self.widths[-1]

  @nn.compact
  def __call__(
    self, image: Array, keys: Array | None = None, *, train: bool = False
  ) -> Array:
    """[B, N, D] of images f32[B, H, W, c] in [-1, 1].

    Args:
      image: see above.
      keys: Key[B] of stochastic depth; None for none.
      train: whether norms over the batch take it as it is, and note it.
    """
    x = image.astype(self.dtype)
    for i, width in enumerate((self.widths[0] // 2, self.widths[0])):
      x = nn.Conv(
        width, (3, 3), (2, 2), _PAD, use_bias=False, kernel_init=_KERNEL,
        dtype=self.dtype, name=f"stem{i}",
      )(x)  # fmt: skip
      x = nn.gelu(self._stem_norm(i, train)(x), approximate=False)
    places = (1, math.prod(self.map(0)), self.widths[0])
    init = nn.initializers.truncated_normal(self.stddev)
    x = x.reshape(len(x), -1, self.widths[0]) + self.param("pos", init, places)
    count = sum(self.depths)
    stays = None
    if keys is not None and self.drop:
      stays = drop_path(keys, self.drop, count)[..., None]
    n = 0
    for s, depth in enumerate(self.depths):
      if s:
        x = self._merged(x, s)
      for i in range(depth):
        own = None if stays is None else stays[n].astype(x.dtype)
        x = self._block(s, i, n)(x, own, None)[0]
        n += 1
    return x

  def _stem_norm(self, i: int, train: bool) -> nn.Module:
    if self.stem == "image":
      return nn.GroupNorm(1, use_fast_variance=False, name=f"stem_norm{i}")
    return nn.BatchNorm(
      use_running_average=not train, momentum=0.9, name=f"stem_norm{i}"
    )

  def _merged(self, x: Array, stage: int) -> Array:
    """[B, N / 2, D] of the tokens of the stage before."""
    x = x.reshape(len(x), *self.map(stage - 1), -1)
    x = nn.Conv(
      self.widths[stage], (3, 3), (2, 1), _PAD, kernel_init=_KERNEL,
      dtype=self.dtype, name=f"merge{stage}",
    )(x)  # fmt: skip
    x = x.reshape(len(x), -1, self.widths[stage])
    return LayerNorm(1e-5, name=f"merge_norm{stage}")(x)

  def _block(self, stage: int, i: int, n: int) -> PlainBlock:
    width, heads = self.widths[stage], self.heads[stage]
    if n < self.convolutions:
      mixer = ConvMixer(self.map(stage), heads, dtype=self.dtype)
    else:
      std = self.stddev
      mixer = Attention(
        heads, bias="qkv", stddev=std, out_stddev=std, dtype=self.dtype
      )
    mlp = Mlp(4 * width, self.stddev, self.stddev, self.dtype, "gelu")
    return PlainBlock(
      mixer.clone(parent=None), mlp.clone(parent=None), 1e-6, rms=False,
      order="post", name=f"stage{stage + 1}_{i}",
    )  # fmt: skip


def svtr(
  *,
  size: Sequence[int] = (32, 100),
  widths: Sequence[int] = (128, 256, 384),
  depths: Sequence[int] = (6, 6, 4),
  heads: Sequence[int] = (4, 8, 12),
  convolutions: int = 8,
  stem: str = "batch",
  drop: float = 0.1,
  stddev: float = 0.02,
  dtype: str = "float32",
) -> Svtr:
  """The encoder; arguments as the attributes of `Svtr`.

  Raises:
    UserError: sizes do not fit together.
  """
  if not len(widths) == len(depths) == len(heads) or not widths:
    raise UserError(
      f"widths={tuple(widths)}, depths={tuple(depths)}, heads={tuple(heads)}: "
      "give one of each for every stage"
    )
  for width, count in zip(widths, heads, strict=True):
    if width % count or width % 2:
      raise UserError(
        f"widths={tuple(widths)}, heads={tuple(heads)}: {width} is not an even "
        f"multiple of {count}"
      )
  if len(size) != 2 or min(size) < 4:
    raise UserError(f"size={tuple(size)}: (height, width), both at least 4")
  check_choice("stem", stem, STEMS)
  made = [tuple(map(int, x)) for x in (size, widths, depths, heads)]
  return Svtr(*made, convolutions, stem, drop, stddev, jnp.dtype(dtype))
