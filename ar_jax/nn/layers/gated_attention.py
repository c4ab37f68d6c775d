"""Attention inside a chunk of positions, and a gated linear memory across
chunks: the mixer of ARFlow (arXiv 2501.16085), whose chunk is an image.

Every head keeps a matrix S. All positions of chunk k see each other by softmax
attention, and the chunks before by what S holds of them:

  o_n = softmax(q_n K^T) V + exp(sum_(m <= n) l_m) q_n S_k,
  S_(k+1) = exp(mean_n l_n) S_k + K^T V,   l_n = log sigmoid(gate_n) / 16,

the sum over the positions of the chunk in their order. Queries, keys and values
are RMS-normalised over all D; there are no places and no mask.

Shapes: B batch, E chunks, n positions of a chunk, N layers, D width, H heads of
K features.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax import ops
from ar_jax.core.errors import check_choice
from ar_jax.nn.layers.norms import rms_norm

Array = jax.Array

QUERY_DECAYS = ("cumsum", "none")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class States:
  """What the layers of a stack know of earlier chunks; in place of an
  `attention.Cache`, and of one size for any number of them.

  Attributes:
    state: f32[N, B, H, K, K], key by value.
  """

  state: Array

  @property
  def is_unstacked(self) -> bool:
    """The layers share their buffers."""
    return False

  def mask(self, new: int) -> None:
    """Nothing is hidden."""
    del new

  def advance(self, new: int) -> States:
    """Nothing is counted."""
    del new
    return self

  def put(self, layer: Array | int, state: Array) -> States:
    """The same with what one layer knows now."""
    return States(self.state.at[layer].set(state))


def across(
  q: Array,
  k: Array,
  v: Array,
  decay: Array,
  state: Array | None = None,
  *,
  query_decay: str = "cumsum",
) -> tuple[Array, Array]:
  """What chunks read of those before them, and the last S; in float32.

  Args:
    q, k, v: f32[B, E, n, H, K].
    decay: f32[B, E, n, H], l of every position, at most 0.
    state: f32[B, H, K, K], S before the first chunk; None for zeros.
    query_decay: "cumsum", as published: position n reads S decayed by all up
      to it in its own chunk, so that late ones read little; or "none".

  Returns:
    f32[B, E, n, H, K] and f32[B, H, K, K].
  """
  added = jnp.einsum("benhk,benhv->behkv", k, v)
  kept = jnp.exp(decay.mean(2))[..., None, None]  # [B, E, H, 1, 1]

  def step(state, new):
    added, kept = new
    return kept * state + added, state

  swap = lambda x: jnp.swapaxes(x, 0, 1)
  known = jnp.zeros_like(added[:, 0]) if state is None else state
  last, before = jax.lax.scan(step, known, (swap(added), swap(kept)))
  read = jnp.einsum("benhk,behkv->benhv", q, swap(before))
  if query_decay == "cumsum":
    read = jnp.exp(jnp.cumsum(decay, 2))[..., None] * read
  return read, last


class GatedAttention(nn.Module):
  """The mixer; called and answering as `Attention`, but that its cache is a
  `States`, and that the positions are whole chunks, each with a condition.

  Attributes:
    heads: H.
    query_decay: see `across`.
    stddev: initial standard deviation; None is Xavier-uniform.
    impl: of `ops.attention`.
  """

  heads: int
  query_decay: str = "cumsum"
  stddev: float | None = None
  impl: str | None = None

  @nn.compact
  def __call__(
    self,
    x: Array,
    mask: None = None,
    *,
    pos: Array,
    cache: States | None = None,
    layer: Array | int = 0,
  ) -> tuple[Array, States | None]:
    """[B, E n, D] of x [B, E n, D], and the cache behind the last chunk; in
    float32.

    Args:
      x: the new positions.
      mask: not used.
      pos: f32[B, E, D], the condition of each chunk, added to what the gates
        read; or f32[B, E, n, D]. It says how many chunks there are.
      cache: what is known of earlier chunks; None for nothing.
      layer: which layer of the cache is ours.

    Raises:
      UserError: no such `query_decay`.
    """
    del mask
    check_choice("query_decay", self.query_decay, QUERY_DECAYS)
    x = x.astype(jnp.float32)
    (b, _, width), chunks = x.shape, pos.shape[1]
    init = nn.initializers.xavier_uniform()
    if self.stddev is not None:
      init = nn.initializers.normal(self.stddev)
    dense = lambda n, name: nn.Dense(
      n, use_bias=False, kernel_init=init, name=name
    )
    cut = lambda y: y.reshape(b, chunks, -1, self.heads, width // self.heads)
    q, k, v = (cut(rms_norm(dense(width, name)(x))) for name in "qkv")
    k = k / jnp.sqrt(k.shape[-1])
    placed = pos if pos.ndim == 4 else pos[:, :, None]
    placed = x.reshape(b, chunks, -1, width) + placed
    decay = nn.log_sigmoid(dense(self.heads, "decay")(placed)) / 16
    alone = lambda y: y.reshape(-1, *y.shape[2:])
    o = ops.attention(*map(alone, (q, k, v)), None, scale=1.0, impl=self.impl)
    o = o.reshape(q.shape)
    state = None if cache is None else cache.state[layer]
    if chunks > 1 or cache is not None:
      read, state = across(q, k, v, decay, state, query_decay=self.query_decay)
      o = o + read
    o = rms_norm(o).reshape(x.shape)
    o = nn.silu(dense(width, "gate")(x)) * o
    cache = None if cache is None else cache.put(layer, state)
    return dense(width, "out")(o), cache

  def head_width(self, width: int) -> int:
    """K of a layer of D = `width`."""
    return width // self.heads

  def empty(
    self, depth: int, batch: int, length: int, width: int, dtype: jnp.dtype
  ) -> States:
    """The cache of a stack of `depth` layers before the first chunk; of one
    size for any length."""
    del length, dtype
    features = self.head_width(width)
    return States(jnp.zeros((depth, batch, self.heads, features, features)))
