"""Scores of pairs, and pointers at what there is so far.

Shapes: B batch, N queries, M candidates, D width of both, W width within.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
_AT_ONCE = 16  # candidates whose products are in memory together
FAR = -1e30  # a logit that nothing is drawn at


class PairScore(nn.Module):
  """An MLP of one hidden layer on [query; candidate], one number for each
  pair. What would be the same for all candidates, a bias of the last layer, a
  softmax does not see: there is none.

  Attributes:
    width: W.
    dtype: of the computation.
  """

  width: int
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    dense = lambda bias: nn.Dense(self.width, use_bias=bias, dtype=self.dtype)
    self.query, self.candidate = dense(True), dense(False)
    init = nn.initializers.normal(self.width**-0.5)
    self.out = self.param("out", init, (self.width,))

  def __call__(self, query: Array, candidate: Array) -> Array:
    """f32[B, N, M] of queries [B, N, D] and candidates [B, M, D]. The products
    of a pair, N M W numbers, are never all there, in the backward pass
    neither."""
    left, right = self.query(query), self.candidate(candidate)
    out = self.out
    one = jax.checkpoint(lambda row: _scored(left, row[:, None], out))
    scores = jax.lax.map(one, jnp.moveaxis(right, 1, 0), batch_size=_AT_ONCE)
    return jnp.moveaxis(scores, 0, -1)

  def each(self, query: Array, candidate: Array) -> Array:
    """f32[B, N] of queries and as many candidates [B, N, D], one to one."""
    return _scored(self.query(query), self.candidate(candidate), self.out)


def _scored(left: Array, right: Array, out: Array) -> Array:
  return nn.gelu(left + right).astype(jnp.float32) @ out


def growing(earlier: Array, own: Array, place: Array) -> Array:
  """f32[B, N, M], the logits of pointers at what there is so far and at
  themselves; everything later has the logit FAR.

  Args:
    earlier: f32[B, N, M], scores of the candidates; those below the place of
      a query count.
    own: f32[B, N], the score of pointing at itself.
    place: i32[N], the place of each query among the candidates, below M.
  """
  at = jnp.arange(earlier.shape[-1])[None, None]
  place = place[None, :, None]
  scores = jnp.where(at < place, earlier, FAR)
  return jnp.where(at == place, own[..., None], scores)
