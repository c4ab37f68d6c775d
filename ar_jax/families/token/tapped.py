"""A decoder that shows what flows between two of its layers, to a loss or a
probe, and is otherwise as it was.

Shapes: B batch, P positions of the prefix, L units, D width, N layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.families.token.net import NextToken
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.norms import Identity
from ar_jax.nn.stacks.segments import Segments
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array
HIDDEN = "hidden"  # in the collection `tapped`


class Tapped(NextToken):
  """The net, whose backbone is cut in two. What goes from one part to the
  other, [B, P + L - 1, D], is put into the collection `tapped`, where that may
  be changed."""

  def _stack(
    self, x: Array, mask: Any, last: Array | None, **options: Any
  ) -> tuple[Array, Cache | None]:
    def look(i, x):
      if i and not self.is_initializing():
        self.sow("tapped", HIDDEN, x)
      return x

    return self.backbone(x, mask, between=look, **options)


def cut(
  make: Callable[[int, nn.Module | None], Backbone], depth: int, layer: int
) -> Segments:
  """A stack that is cut behind its first layers.

  Args:
    make: (layers, last norm or None) -> a stack of modules of its own.
    depth: N.
    layer: of the first part.

  Raises:
    UserError: one of the parts would be empty.
  """
  if not 0 < layer < depth:
    raise UserError(
      f"align.layer={layer}: a stack of {depth} layers is cut behind layer 1 "
      f"to {depth - 1}"
    )
  first, rest = make(layer, Identity()), make(depth - layer, None)
  # Stochastic depth grows over both as over one.
  rate = lambda i: rest.drop * i / (depth - 1)
  return Segments(
    (first.clone(drop=rate(layer - 1)), rest.clone(drop_from=rate(layer)))
  )


def joined(params: Mapping[str, Any]) -> dict[str, Any]:
  """The parameters of a net that is not cut, of those of one that is."""
  first, rest = (params["backbone"][f"parts_{i}"] for i in range(2))
  # What is on the host stays there: a published model fills a device.
  host = lambda x: isinstance(x, np.ndarray)
  join = lambda a, b: (np if host(a) else jnp).concatenate([a, b])
  block = jax.tree.map(join, first["block"], rest["block"])
  return {**params, "backbone": {**rest, "block": block}}


def parted(params: Mapping[str, Any], layer: int) -> dict[str, Any]:
  """The parameters of a net that is cut behind `layer`, of one that is not."""
  stack = params["backbone"]
  part = lambda at: jax.tree.map(lambda x: x[at], stack["block"])
  first = {"block": part(slice(None, layer))}
  rest = {**stack, "block": part(slice(layer, None))}
  return {**params, "backbone": {"parts_0": first, "parts_1": rest}}
