"""Self-attention with memory (SAN-M, arXiv 2006.01713): beside attention, or in
place of it, a convolution over time of each channel by itself.

Encoder layers have both; decoder layers have the convolution behind their MLP
and then look at a memory. A decoder ends with a layer of the MLP alone.

Shapes: B batch, T positions, F features of a frame, D width.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import ops
from ar_jax.core.errors import UserError
from ar_jax.nn.layers.attention import check_heads
from ar_jax.nn.layers.cross_attention import CrossAttention, Memory
from ar_jax.nn.layers.linear import Linear, initial
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import LayerNorm
from ar_jax.nn.stacks.blocks import PlainBlock, dropout
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array
EPS = 1e-12


def _there(mask: Array | None) -> Array | None:
  """bool[B, T, 1] of a mask of padding [B, 1, 1, T]."""
  return None if mask is None else mask[:, 0, 0, :, None]


class DepthMemory(nn.Module):
  """x plus a convolution over time of every channel by itself, of the places
  that are there.

  Attributes:
    kernel: places that it sees, odd.
  """

  kernel: int = 11

  @nn.compact
  def __call__(self, x: Array, there: Array | None = None) -> Array:
    """[B, T, D] of x [B, T, D] and, where some are none, bool[B, T, 1]."""
    t, width = x.shape[1:]
    init = nn.initializers.normal(self.kernel**-0.5)
    kernel = self.param("kernel", init, (self.kernel, width)).astype(x.dtype)
    x = x if there is None else jnp.where(there, x, 0)
    side = (self.kernel - 1) // 2
    wide = jnp.pad(x, ((0, 0), (side, self.kernel - 1 - side), (0, 0)))
    # A sum of shifts: the gradient of a grouped convolution is slow on a CPU.
    made = sum(
      wide[:, i : i + t] * kernel[i][None, None] for i in range(self.kernel)
    )
    made = made + x
    return made if there is None else jnp.where(there, made, 0)


class SanmAttention(nn.Module):
  """Attention and a memory of its values; called and answering as
  `Attention`, without a cache.

  Attributes:
    width: D of what comes out.
    heads: of attention.
    kernel: of the memory.
    dtype: of the computation.
  """

  width: int
  heads: int
  kernel: int = 11
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Array, mask=None, *, pos=None, cache=None, layer=0
  ) -> tuple[Array, None]:
    """([B, T, D] of x [B, T, F], no cache); the mask is of padding, bool[B, 1,
    1, T]."""
    del pos, cache, layer
    b, t, _ = x.shape
    dense = lambda n, name: Linear(
      n, kernel_init=initial(None), dtype=self.dtype, name=name
    )
    q, k, v = jnp.split(dense(3 * self.width, "qkv")(x), 3, -1)
    memory = DepthMemory(self.kernel, name="memory")(v, _there(mask))
    q, k, v = (y.reshape(b, t, self.heads, -1) for y in (q, k, v))
    out = ops.attention(q, k, v, mask).reshape(b, t, self.width)
    return dense(self.width, "out")(out) + memory, None


class SanmEncoder(nn.Module):
  """Layers over frames, the first of which brings them to the width.

  Attributes:
    width: D.
    depth: layers, 2 at least.
    heads: of attention.
    hidden: width of the MLPs.
    kernel: of the memories.
    drop: share of the features of branches that training drops.
    remat: see `transformer.Backbone`.
    dtype: of the computation.
  """

  width: int
  depth: int
  heads: int
  hidden: int
  kernel: int = 11
  drop: float = 0.1
  remat: bool | str = False
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    mixer = lambda: SanmAttention(
      self.width, self.heads, self.kernel, self.dtype
    )
    mlp = lambda: Mlp(self.hidden, None, None, self.dtype, "relu")
    self.mixer, self.mlp = mixer(), mlp()
    self.norm1, self.norm2 = LayerNorm(EPS), LayerNorm(EPS)
    block = PlainBlock(
      mixer().clone(parent=None), mlp().clone(parent=None), EPS, self.drop,
      False,
    )  # fmt: skip
    self.stack = Backbone(
      block.clone(parent=None),
      self.depth - 1,
      out_norm=LayerNorm(EPS).clone(parent=None),
      remat=self.remat,
      dtype=self.dtype,
    )

  def first(self, frames: Array, mask: Array, keys=None) -> Array:
    """[B, T, D] behind the first layer, which has no shortcut from the frames
    f32[B, T, F]; their places, from 1, are added to them."""
    t, features = frames.shape[1:]
    half = features // 2
    rates = np.exp(-math.log(1e4) * np.arange(half) / max(half - 1, 1))
    angle = np.arange(1, t + 1)[:, None] * rates.astype(np.float32)
    places = np.concatenate([np.sin(angle), np.cos(angle)], -1)
    x = frames * math.sqrt(self.width) + jnp.asarray(places, jnp.float32)[None]
    x = x.astype(self.dtype)
    x = dropout(self.mixer(self.norm1(x), mask)[0], keys, self.drop, 8)
    return x + dropout(self.mlp(self.norm2(x)), keys, self.drop, 9)

  def __call__(
    self, frames: Array, there: Array, keys: Array | None = None
  ) -> Array:
    """f32[B, T, D].

    Args:
      frames: f32[B, T, F], F even.
      there: bool[B, T].
      keys: Key[B] for dropout, or None.
    """
    mask = there.at[:, 0].set(True)[:, None, None]
    return self.stack(self.first(frames, mask, keys), mask, keys=keys)[0]


class NormedMlp(nn.Module):
  """Linear, ReLU, norm, linear without a bias.

  Attributes:
    hidden: width between the two.
    dtype: of the computation.
  """

  hidden: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, T, D] of x [B, T, D]."""
    dense = lambda n, bias, name: Linear(
      n, bias, initial(None), self.dtype, name=name
    )
    h = LayerNorm(EPS, name="norm")(nn.relu(dense(self.hidden, True, "fc1")(x)))
    return dense(x.shape[-1], False, "fc2")(h)


class SanmBlock(nn.Module):
  """A layer of the decoder: x += memory(norm(mlp(norm(x)))), and x +=
  cross(norm(x)).

  Attributes:
    mixer: the memory.
    mlp: see `NormedMlp`.
    cross: looks at what was heard.
    dropout: share of the features of the branches that training drops.
  """

  mixer: DepthMemory
  mlp: NormedMlp
  cross: CrossAttention
  dropout: float = 0.0

  def setup(self):
    self.norm1, self.norm2 = LayerNorm(EPS), LayerNorm(EPS)
    self.norm3 = LayerNorm(EPS)

  def __call__(
    self, x: Array, mod, mask: Array | None, *, pos=None, cache=None, layer=0,
    keys: Array | None = None, memory: Memory | None = None,
  ) -> tuple[Array, None]:  # fmt: skip
    """One layer; see `blocks.PlainBlock`. The mask is of padding."""
    del mod, pos, layer
    h = self.norm2(self.mlp(self.norm1(x)))
    x = x + dropout(self.mixer(h, _there(mask)), keys, self.dropout, 0)
    kv = memory.k, memory.v
    h = self.cross(self.norm3(x), kv, memory.seen)
    return x + dropout(h, keys, self.dropout, 2), cache


class LastMlp(nn.Module):
  """norm(mlp(norm(x))): the last layer of the decoder, without a shortcut.

  Attributes:
    mlp: see `NormedMlp`.
  """

  mlp: NormedMlp

  def setup(self):
    self.norm1, self.norm = LayerNorm(EPS), LayerNorm(EPS)

  def __call__(self, x: Array) -> Array:
    """[B, T, D] of x [B, T, D]."""
    return self.norm(self.mlp(self.norm1(x)))


def sanm_decoder(
  depth: int,
  width: int,
  heads: int,
  *,
  hidden: int,
  kernel: int = 11,
  drop: float = 0.1,
  dtype: str = "float32",
) -> Backbone:
  """The layers of a parallel decoder; arguments as the attributes of
  `SanmEncoder`.

  Raises:
    UserError: sizes do not fit together.
  """
  check_heads(width, heads)
  if kernel % 2 == 0:
    raise UserError(f"kernel={kernel}: must be odd")
  products = jnp.dtype(dtype)
  cross = CrossAttention(
    width, heads, bias="qkv", stddev=None, out_stddev=None, dtype=products
  )
  block = SanmBlock(
    DepthMemory(kernel), NormedMlp(hidden, products), cross, drop
  )
  last = LastMlp(NormedMlp(hidden, products))
  return Backbone(block, depth, out_norm=last, dtype=products)
