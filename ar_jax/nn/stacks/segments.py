"""A transformer that is cut: between its parts one may read and change what
flows, and every part may be exchanged.

Shapes: B batch, T positions, D width, S rows of a memory, C features of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import steps
from ar_jax.core.plans import plan
from ar_jax.nn.layers.cache import Joint
from ar_jax.nn.layers.cross_attention import Memory
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class Segments(nn.Module):
  """Backbones in a row; to be used where a `Backbone` is.

  Attributes:
    parts: the backbones; all but the last end in `norms.Identity`.
    cached: whether positions see those of earlier calls.
  """

  parts: Sequence[Backbone]
  cached: bool = True

  @property
  def depth(self) -> int:
    """Layers of all parts."""
    return sum(part.depth for part in self.parts)

  @property
  def block(self) -> nn.Module:
    """The layer of the first part."""
    return self.parts[0].block

  @property
  def dtype(self) -> jnp.dtype:
    """Of the computation of the first part."""
    return self.parts[0].dtype

  def head_width(self, width: int) -> int:
    """As `Backbone.head_width`; the same in all parts."""
    return self.parts[0].head_width(width)

  def condition(self, cond: Array) -> tuple[Any, ...]:
    """What the parts need of cond [B, D]; once for all calls with it."""
    return tuple(part.condition(cond) for part in self.parts)

  @property
  def needs_memory(self) -> bool:
    """Whether some layers look at a memory."""
    return any(part.needs_memory for part in self.parts)

  def remember(
    self, features: Array, seen: Array | None = None
  ) -> tuple[Memory | None, ...]:
    """As `Backbone.remember`, for each part that looks at a memory."""
    return tuple(
      part.remember(features, seen) if part.needs_memory else None
      for part in self.parts
    )

  def __call__(
    self,
    x: Array,
    mask: Array | plan.Plan | None = None,
    *,
    pos: Array | None = None,
    cond: Sequence[Any] | None = None,
    cache: Joint | None = None,
    memory: Sequence[Memory | None] | None = None,
    keys: Array | None = None,
    between: Callable[[int, Array], Array] | None = None,
  ) -> tuple[Array, Joint | None]:
    """Hidden states of new positions; arguments as those of `Backbone`, and

    Args:
      cond: what `condition` returns.
      cache: what `cache` returns.
      memory: what `remember` returns, or a memory or None for each part.
      between: (i, x [B, T, D]) -> x, called before part i, which may also
        keep what it is shown.

    Returns:
      f32[B, T, D], and the cache.
    """
    caches = []
    for i, part in enumerate(self.parts):
      x = x if between is None else between(i, x)
      x, new = part(
        x,
        mask,
        pos=pos,
        cond=None if cond is None else cond[i],
        cache=None if cache is None else cache.part(i),
        memory=None if memory is None else memory[i],
        keys=None if keys is None else steps.fold(keys, i),
      )
      caches.append(new)
    return x, None if cache is None else Joint.of(caches)

  def cache(self, batch: int, length: int, width: int) -> Joint | None:
    """The empty caches of the parts, see `Backbone.cache`; None without."""
    if not self.cached:
      return None
    make = lambda part: part.cache(batch, length, width)
    return Joint.of([make(part) for part in self.parts])

  def ready(self, params: Any, rows: int) -> dict[str, Any]:
    """As `Backbone.ready`."""
    names = [f"parts_{i}" for i in range(len(self.parts))]
    return {
      name: part.ready(params[name], rows)
      for name, part in zip(names, self.parts, strict=True)
    }
