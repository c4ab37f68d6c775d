"""Attention to a source that is shown to every map at the map's own size.

Scale-aligned reference of VAREdit (arXiv 2508.15772), section 3.3: in place of
the keys and values of a fine source, map k of a target reads their means over
the areas of its cells.

Shapes: B batch, T new rows, S rows that are read, H heads, K features of a
head, h w sides of the source.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ar_jax import ops
from ar_jax.core.plans.plan import Plan
from ar_jax.core.signals.resize import resize
from ar_jax.nn.layers.attention import Attention

Array = jax.Array
Shape = tuple[int, int]


class AlignedAttention(Attention):
  """Self-attention over a source and the maps behind it.

  The rows are those of the source, then those of each map. The source sees
  itself; map k its means at the size of map k, and the maps up to itself. Keys
  are pooled as they are read, normalised and turned, and not once more.

  A cache has the source as it is, so that no mean is kept. Its index is
  static.

  Attributes:
    source: (h, w).
    shapes: of the maps.
  """

  source: Shape = (1, 1)
  shapes: tuple[Shape, ...] = ()

  def attend(
    self, q: Array, k: Array, v: Array, mask: Array | Plan | None
  ) -> Array:
    """As `Attention.attend`; the rows decide what is seen, and no mask."""
    del mask
    first, done = k.shape[1] - q.shape[1], 0
    count = self.source[0] * self.source[1]
    stops = [count]
    for h, w in self.shapes:
      stops.append(stops[-1] + h * w)
    own = lambda x: x[:, :count]
    found = []
    for block, stop in enumerate(stops):
      if first < stop <= k.shape[1]:
        here = q[:, done : stop - first]
        done = stop - first
        if block:
          shape = self.shapes[block - 1]
          every = [
            jnp.concatenate([self.pooled(own(x), shape), x[:, count:stop]], 1)
            for x in (k, v)
          ]
        else:
          every = [own(k), own(v)]
        found.append(
          ops.attention(here, *every, None, scale=self.scale, impl=self.impl)
        )
    return jnp.concatenate(found, 1)

  def pooled(self, x: Array, shape: Shape) -> Array:
    """[B, h' w', Hkv, K], the means of a source [B, h w, Hkv, K] over the areas
    of the cells of a map."""
    if shape == self.source:
      return x
    b, _, heads, features = x.shape
    grid = x.astype(jnp.float32).reshape(b, *self.source, heads * features)
    return (
      resize(grid, shape, "area")
      .astype(x.dtype)
      .reshape(b, -1, heads, features)
    )
