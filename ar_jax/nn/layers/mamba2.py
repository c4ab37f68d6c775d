"""Mamba-2: a causal mixer whose memory has a fixed size.

Transformers are SSMs: Generalized Models and Efficient Algorithms Through
Structured State Space Duality (arXiv 2405.21060). Every head keeps a matrix S,
which a position t decays and adds to, and then reads:

  S_t = exp(d_t a) S_{t-1} + d_t x_t b_t^T,    y_t = S_t c_t + D x_t

Within a chunk of positions that is a masked product of matrices, as in
attention; only S passes from chunk to chunk. A chunk of one is the recurrence.

Shapes: B batch, T new positions, N layers, D width, I = expand D inner width, H
heads of P features, K numbers of the state for each of them, Q chunk.
"""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.nn.layers.norms import RMSNorm

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class States:
  """What the layers of a stack know of earlier positions; in place of an
  `attention.Cache`, and of one size for any number of them.

  Attributes:
    state: f32[N, B, H, P, K].
    tail: [N, B, W - 1, I + 2 K], the last inputs of the convolution.
  """

  state: Array
  tail: Array

  @property
  def is_unstacked(self) -> bool:
    """The layers share their buffers."""
    return False

  def mask(self, new: int) -> None:
    """Nothing hides one of the new positions from another mixer."""
    del new

  def advance(self, new: int) -> States:
    """Nothing is counted."""
    del new
    return self

  def put(self, layer: Array | int, state: Array, tail: Array) -> States:
    """The same with what one layer knows now."""
    return States(
      self.state.at[layer].set(state), self.tail.at[layer].set(tail)
    )


def scan(
  x: Array,
  delta: Array,
  a: Array,
  b: Array,
  c: Array,
  state: Array | None = None,
  *,
  chunk: int,
) -> tuple[Array, Array]:
  """y_t = S_t c_t of all positions, and the last S; in float32.

  Args:
    x: [B, T, H, P].
    delta: f32[B, T, H], positive.
    a: f32[H], negative.
    b: [B, T, K], the same for all heads.
    c: [B, T, K].
    state: f32[B, H, P, K], S before the first position; None for zeros.
    chunk: Q; any will do.

  Returns:
    f32[B, T, H, P] and f32[B, H, P, K].
  """
  length, chunk = x.shape[1], min(chunk, x.shape[1])
  extra = -length % chunk

  def cut(y):
    # What fills the last chunk up neither decays the state nor adds to it.
    y = jnp.pad(y, ((0, 0), (0, extra)) + ((0, 0),) * (y.ndim - 2))
    return y.reshape(len(y), -1, chunk, *y.shape[2:])

  x, b, c = (y.astype(jnp.float32) for y in (x, b, c))
  x, b, c = cut(x * delta[..., None]), cut(b), cut(c)  # [B, n, Q, ...]
  decay = jnp.cumsum(cut(delta * a[None, None]), axis=2)  # [B, n, Q, H]
  across = jnp.moveaxis(decay, 2, 3)
  gap = across[..., :, None] - across[..., None, :]  # [B, n, H, Q, Q]
  causal = jnp.tril(jnp.ones((chunk, chunk), bool))
  weight = jnp.exp(jnp.where(causal, gap, -jnp.inf))
  weight = weight * jnp.einsum("bnik,bnjk->bnij", c, b)[:, :, None]
  y = jnp.einsum("bnhij,bnjhp->bnihp", weight, x)

  end = decay[:, :, -1]  # [B, n, H]
  left = jnp.exp(end[:, :, None] - decay)
  added = jnp.einsum("bnjh,bnjhp,bnjk->bnhpk", left, x, b)

  def step(state, new):
    added, end = new
    return jnp.exp(end)[..., None, None] * state + added, state

  swap = lambda y: jnp.swapaxes(y, 0, 1)
  known = jnp.zeros_like(added[:, 0]) if state is None else state
  last, before = jax.lax.scan(step, known, (swap(added), swap(end)))
  flat = lambda y: y.reshape(len(y), -1, *y.shape[3:])[:, :length]
  # One chunk has nothing before it. Beside the work that saves, XLA's fusion of
  # a product with constant zeros reads memory that nobody wrote, on CPUs with
  # jaxlib 0.10.2, and gives NaN.
  if state is None and y.shape[1] == 1:
    return flat(y), last
  read = jnp.einsum("bnik,bnhpk->bnihp", c, swap(before))
  y = y + jnp.exp(decay)[..., None] * read
  return flat(y), last


class Mamba2(nn.Module):
  """The mixer; called and answering as `Attention`, but that it is causal
  whatever the mask, and that its cache is a `States`.

  Attributes:
    expand: I / D.
    features: P.
    states: K.
    window: W of the convolution.
    stddev: initial standard deviation of both matrices.
    chunk: Q.
    dtype: of the products of matrices; the scan is float32 always.
  """

  expand: int = 2
  features: int = 64
  states: int = 64
  window: int = 4
  stddev: float = 0.02
  chunk: int = 64
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Array,
    mask: None = None,
    *,
    pos: None = None,
    cache: States | None = None,
    layer: Array | int = 0,
  ) -> tuple[Array, States | None]:
    """[B, T, D] of x [B, T, D], and the cache behind its last position.

    Args:
      x: the new positions.
      mask: not used.
      pos: not used.
      cache: what is known of earlier positions; None for nothing.
      layer: which layer of the cache is ours.
    """
    del mask, pos
    b, t, width = x.shape
    inner, heads = self.expand * width, self._heads(width)
    dense = lambda n, name: nn.Dense(
      n,
      use_bias=False,
      kernel_init=nn.initializers.normal(self.stddev),
      dtype=self.dtype,
      name=name,
    )
    cuts = (inner, 2 * inner + 2 * self.states)
    total = cuts[1] + heads
    gate, mixed, delta = jnp.split(dense(total, "in")(x), cuts, axis=-1)
    state, tail = None, self._empty(b, width)[1]
    if cache is not None:
      state, tail = cache.state[layer], cache.tail[layer]
    mixed = jnp.concatenate([tail.astype(mixed.dtype), mixed], axis=1)
    tail = mixed[:, -(self.window - 1) :]
    mixed = nn.silu(self._convolve(mixed, t))
    u, keys, queries = jnp.split(mixed, (inner, inner + self.states), axis=-1)
    u = u.reshape(b, t, heads, self.features)
    a = -jnp.exp(self.param("log_a", _log_a, (heads,)))
    bias = self.param("bias", _bias, (heads,))
    delta = nn.softplus(delta.astype(jnp.float32) + bias[None, None])
    y, state = scan(u, delta, a, keys, queries, state, chunk=self.chunk)
    skip = self.param("skip", nn.initializers.ones, (heads,))
    y = (y + skip[None, None, :, None] * u).reshape(b, t, inner)
    y = y * nn.silu(gate.astype(jnp.float32))
    y = RMSNorm(1e-5, name="norm")(y).astype(self.dtype)
    cache = None if cache is None else cache.put(layer, state, tail)
    return dense(width, "out")(y), cache

  def empty(self, depth: int, batch: int, width: int) -> States:
    """The cache of a stack of `depth` layers before the first position."""
    state, tail = self._empty(batch, width)
    every = lambda x: jnp.broadcast_to(x, (depth, *x.shape))
    return States(every(state), every(tail))

  def _convolve(self, x: Array, t: int) -> Array:
    """f32[B, T, C] of x [B, W - 1 + T, C], each channel alone."""
    shape = (self.window, x.shape[-1])
    init = nn.initializers.normal(0.02)
    kernel = self.param("conv_kernel", init, shape)[:, None, None]
    bias = self.param("conv_bias", nn.initializers.zeros, shape[1:])
    x = x.astype(jnp.float32)
    taps = (kernel[i] * x[:, i : i + t] for i in range(self.window))
    return sum(taps) + bias[None, None]

  def _heads(self, width: int) -> int:
    return self.expand * width // self.features

  def _empty(self, batch: int, width: int) -> tuple[Array, Array]:
    shape = (batch, self._heads(width), self.features, self.states)
    channels = self.expand * width + 2 * self.states
    tail = jnp.zeros((batch, self.window - 1, channels), self.dtype)
    return jnp.zeros(shape, jnp.float32), tail


def _log_a(key: Array, shape: tuple[int, ...]) -> Array:
  """log of decays that are uniform in [1, 16]."""
  return jnp.log(jax.random.uniform(key, shape, minval=1.0, maxval=16.0))


def _bias(key: Array, shape: tuple[int, ...]) -> Array:
  """Whose softplus is log-uniform in [0.001, 0.1]."""
  low, high = math.log(1e-3), math.log(0.1)
  start = jnp.exp(jax.random.uniform(key, shape, minval=low, maxval=high))
  return start + jnp.log(-jnp.expm1(-start))
