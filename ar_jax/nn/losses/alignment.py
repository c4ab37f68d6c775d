"""Hidden states that are to say what a frozen network sees.

A projector maps them to the space of its features, and a cosine pulls them
together: REPA (arXiv 2410.06940), ARRA (arXiv 2503.07334) and their kin. What
is aligned to is never moved.

Shapes: B batch, T positions, D width, C numbers of a feature.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class Projector(nn.Module):
  """Linear maps with GELU between them.

  Attributes:
    features: C.
    hidden: widths before the last; ARRA has one of C.
    dtype: of the products.
    silu: whether SiLU stands in the place of GELU.
  """

  features: int
  hidden: tuple[int, ...]
  dtype: jnp.dtype = jnp.float32
  silu: bool = False

  @nn.compact
  def __call__(self, h: Array) -> Array:
    """[..., C] of h [..., D]."""
    act = nn.silu if self.silu else lambda h: nn.gelu(h, approximate=False)
    for i, width in enumerate((*self.hidden, self.features)):
      h = act(h) if i else h
      h = nn.Dense(width, dtype=self.dtype, name=f"fc{i + 1}")(h)
    return h


def cosine(x: Array, y: Array) -> Array:
  """Of the angle between x and y [..., C], f32[...]; 0 where one is 0."""
  x, y = x.astype(jnp.float32), y.astype(jnp.float32)
  # Of the sum, not of its root: the gradient at 0 is then 0.
  norm = lambda z: jnp.sqrt(jnp.maximum(jnp.sum(z * z, -1), 1e-24))
  return jnp.sum(x * y, -1) / (norm(x) * norm(y))


def pooled(h: Array, mask: Array) -> Array:
  """[B, D]: the mean of h [B, T, D] over the positions mask bool[B | 1, T]."""
  mask = jnp.broadcast_to(mask, h.shape[:2]).astype(jnp.float32)
  share = mask / jnp.maximum(jnp.sum(mask, 1, keepdims=True), 1)
  # Put in, not multiplied: what is not asked for may be anything.
  h = jnp.where(share[..., None] > 0, h.astype(jnp.float32), 0.0)
  return jnp.einsum("bt,btd->bd", share, h)


def alignment(x: Array, target: Array, mask: Array | None = None) -> Array:
  """1 - the mean cosine, f32[B].

  Args:
    x: [B, T, C], what a projector makes of hidden states, or [B, C].
    target: [B, T, C], or [B, C], the same for all positions.
    mask: bool[B | 1, T], the positions that count; None for all.
  """
  target = jax.lax.stop_gradient(target)
  if x.ndim == 2:
    return 1 - cosine(x, target)
  target = target[:, None] if target.ndim == 2 else target
  near = cosine(x, target)
  if mask is None:
    return 1 - jnp.mean(near, 1)
  return 1 - pooled(near[..., None], mask)[:, 0]
