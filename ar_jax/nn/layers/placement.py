"""Where activations lie on a mesh."""

from __future__ import annotations

import flax.linen as nn
import jax


def by_example(x: jax.Array, axis: int = 0) -> jax.Array:
  """x, split over devices by example where a mesh is set, so that XLA gathers
  the weights of a layer and leaves its activations in place. `axis` is that of
  the examples."""
  names = [None] * x.ndim
  names[axis] = "batch"
  return nn.with_logical_constraint(x, tuple(names))
