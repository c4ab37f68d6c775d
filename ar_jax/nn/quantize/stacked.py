"""Residual vector quantisation of vectors: a code, then a code of what it
leaves, and so on (Juang and Gray, 1982; RQ-VAE, arXiv 2203.01941). Each depth
has a codebook of its own; they are fitted, not trained.

Shapes: D depths, V codes of each, C numbers of a vector.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import ops

Array = jax.Array


class Stacked(nn.Module):
  """The codebooks.

  Attributes:
    depth: D.
    vocab: V.
    channels: C.
  """

  depth: int
  vocab: int
  channels: int

  def setup(self):
    shape = self.depth, self.vocab, self.channels
    self.codebooks = self.param("codebooks", nn.initializers.normal(0.5), shape)

  def __call__(self, z: Array) -> tuple[Array, Array]:
    """Codes i32[..., D] of vectors f32[..., C], the first depth first, and what
    is left of them, f32[..., C]."""
    rest, codes = z.astype(jnp.float32), []
    for book in self.codebooks:
      ids = ops.nearest_code(rest, book)
      rest = rest - book[ids]
      codes.append(ids)
    return jnp.stack(codes, -1), rest

  def sums(self, codes: Array) -> Array:
    """f32[..., D, C]: the vectors of codes i32[..., D], added up to each
    depth."""
    each = [book[codes[..., d]] for d, book in enumerate(self.codebooks)]
    return jnp.cumsum(jnp.stack(each, -2), -2)


def residuals(z: np.ndarray, book: np.ndarray) -> np.ndarray:
  """f32[n, C]: what the nearest rows of a codebook f32[V, C] leave of vectors
  f32[n, C]; on the host."""
  apart = np.square(book).sum(-1)[None] - 2 * z @ book.T  # and |z|^2
  return z - book[apart.argmin(1)]
