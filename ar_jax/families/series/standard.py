"""Numbers of mean 0 and deviation 1, by what a training part says of them.

Shapes: B batch, n numbers at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
SOME = 200  # examples that are looked at


def fit(source: Any, names: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
  """Field -> mean and deviation (`scale`) of each of its numbers, f32[n], over
  some examples of a source."""
  some = np.unique(np.linspace(0, len(source) - 1, SOME).astype(int))
  rows, found = [source[int(i)] for i in some], {}
  for name in names:
    x = np.concatenate([np.float64(row[name]) for row in rows])
    made = {"mean": x.mean(0), "scale": np.maximum(x.std(0), 1e-6)}
    found[name] = {k: v.astype(np.float32) for k, v in made.items()}
  return found


def unit(sizes: Mapping[str, int]) -> dict[str, dict[str, Array]]:
  """What `fit` returns, of numbers that are left as they are."""
  return {
    k: {"mean": jnp.zeros(n), "scale": jnp.ones(n)} for k, n in sizes.items()
  }


def _beside(x: Array, own: Mapping[str, Array]) -> list[Array]:
  shape = (1,) * (x.ndim - 1) + (-1,)
  return [jnp.asarray(own[k]).reshape(shape) for k in ("mean", "scale")]


def standard(x: Array, own: Mapping[str, Array]) -> Array:
  """x [..., n] as a net reads it; own is an entry of `fit`. Nothing is
  trained in it."""
  mean, scale = _beside(jnp.asarray(x), jax.lax.stop_gradient(own))
  return (x - mean) / scale


def original(x: Array, own: Mapping[str, Array]) -> Array:
  """Back from `standard`."""
  mean, scale = _beside(x, own)
  return x * scale + mean
