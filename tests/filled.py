"""Variables without a compiled init: random, and large enough to matter."""

import jax
import jax.numpy as jnp
import numpy as np


def variables(system, seed=0, stddev=0.3, batch=None):
  """Those of a system: scales are 1, all else is normal noise."""
  shapes = jax.eval_shape(
    lambda key: system.init(key, batch or {}), jax.random.key(0)
  )
  draw = np.random.default_rng(seed)

  def fill(path, leaf):
    if path[-1].key == "scale":
      return jnp.ones(leaf.shape, leaf.dtype)
    return jnp.asarray(stddev * draw.normal(size=leaf.shape), leaf.dtype)

  return jax.tree_util.tree_map_with_path(fill, shapes)
