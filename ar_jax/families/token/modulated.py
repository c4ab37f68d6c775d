"""A `NextToken` whose layers the condition modulates as well (AdaLN, arXiv
2212.09748), as an option of ELM (arXiv 2410.16257): the last position of the
prefix says scale, shift and gate of every branch.

Shapes: B batch, P positions of the prefix, T positions, N layers, D width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from ar_jax.families.token.net import NextToken
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.norms import AdaLN
from ar_jax.nn.stacks.blocks import modulate

Array = jax.Array


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Conditioned(Cache):
  """A cache whose rows also know their condition.

  Attributes:
    mods: of the layers, [N, B, 6, D], and of the last norm, [1, B, 2, D].
  """

  mods: Any = None

  @classmethod
  def of(cls, cache: Cache, mods: Any) -> Conditioned:
    """A cache and what its rows know beside it."""
    return cls(cache.k, cache.v, cache.index, mods)

  def plain(self) -> Cache:
    """The cache alone."""
    return Cache(self.k, self.v, self.index)

  def unstacked(self) -> Conditioned:
    """See `Cache.unstacked`."""
    return self.of(super().unstacked(), self.mods)

  def rows(self, rows: slice) -> Conditioned:
    """See `Cache.rows`."""
    mods = jax.tree.map(lambda x: x[:, rows], self.mods)
    return self.of(super().rows(rows), mods)

  def tree_flatten(self):
    return (self.k, self.v, self.index, self.mods), None

  @classmethod
  def tree_unflatten(cls, _, children):
    return cls(*children)


class Modulated(NextToken):
  """See above.

  Attributes: as `NextToken`, whose `backbone` has modulations `ada` and a last
    norm of its own, and
    out_ada: shift and scale behind that norm, of two parts.
  """

  out_ada: AdaLN = AdaLN(1, (0.0, 0.0))

  def _stack(
    self, x: Array, mask: Any, first: Array | None, **options
  ) -> tuple[Array, Cache | None]:
    cache = options.pop("cache", None)
    if first is None:
      mods, cache = cache.mods, cache.plain()
    else:
      mods = self.backbone.condition(first)[0], self.out_ada(first)
    h, cache = self.backbone(
      x, mask, cond=(mods[0], None), cache=cache, **options
    )
    shift, scale = mods[1][0, :, :1], mods[1][0, :, 1:]
    h = modulate(h, scale, shift)
    return h, None if cache is None else Conditioned.of(cache, mods)
