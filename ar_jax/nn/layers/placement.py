"""Where activations lie on a mesh."""

from __future__ import annotations

import flax.linen as nn
import jax


def by_example(x: jax.Array) -> jax.Array:
  """x [B, ...], split over devices by example where a mesh is set, so that XLA
  gathers the weights of a layer and leaves its activations in place."""
  return nn.with_logical_constraint(x, ("batch", *[None] * (x.ndim - 1)))
