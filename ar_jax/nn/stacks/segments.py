"""A transformer that is cut: between its parts one may read and change what
flows, and every part may be exchanged.

Shapes: B batch, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from ar_jax.core.decoding import steps
from ar_jax.core.plans import plan
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class Segments(nn.Module):
  """Backbones in a row.

  Attributes:
    parts: the backbones; all but the last end in `norms.Identity`.
    cached: whether positions see those of earlier calls.
  """

  parts: Sequence[Backbone]
  cached: bool = True

  def condition(self, cond: Array) -> tuple[Any, ...]:
    """What the parts need of cond [B, D]; once for all calls with it."""
    return tuple(part.condition(cond) for part in self.parts)

  def __call__(
    self,
    x: Array,
    mask: Array | plan.Plan | None = None,
    *,
    pos: Array | None = None,
    cond: Sequence[Any] | None = None,
    cache: Sequence[Any] | None = None,
    keys: Array | None = None,
    between: Callable[[int, Array], Array] | None = None,
  ) -> tuple[Array, tuple[Any, ...] | None]:
    """Hidden states of new positions; arguments as those of `Backbone`, and

    Args:
      cond: what `condition` returns.
      cache: what `cache` returns, one for each part.
      between: (i, x [B, T, D]) -> x, called before part i, which may also
        keep what it is shown.

    Returns:
      f32[B, T, D], and the caches.
    """
    caches = []
    for i, part in enumerate(self.parts):
      x = x if between is None else between(i, x)
      x, new = part(
        x,
        mask,
        pos=pos,
        cond=None if cond is None else cond[i],
        cache=None if cache is None else cache[i],
        keys=None if keys is None else steps.fold(keys, i),
      )
      caches.append(new)
    return x, None if cache is None else tuple(caches)

  def cache(self, batch: int, length: int, width: int) -> tuple | None:
    """The empty caches of the parts, see `Backbone.cache`; None without."""
    if not self.cached:
      return None
    return tuple(part.cache(batch, length, width) for part in self.parts)
