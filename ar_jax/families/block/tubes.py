"""What training masks of a video (Lumos-1, arXiv 2507.08801).

  tube         the same places in all frames
  random       any places of all frames
  independent  in each frame a share and places of its own

The share is max(cos(pi u / 2), least) of a uniform u.

Shapes: B batch, T frames, C content of a frame, n places.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array
KINDS = ("tube", "random", "independent")


def share(uniform: Array, least: float) -> Array:
  """f32[...]: the share that is masked, of uniform numbers f32[...]."""
  return jnp.maximum(jnp.cos(jnp.pi / 2 * uniform), least)


def places(noise: Array, rate: Array) -> Array:
  """bool[..., n]: which places are masked, round(rate n) of them, by uniform
  noise f32[..., n]; rate f32[...]."""
  count = jnp.round(rate * noise.shape[-1])
  order = jnp.argsort(noise, axis=-1, stable=True)
  return order < count[..., None]


def hidden(
  kind: str, keys: Array, frames: int, content: int, least: float
) -> Array:
  """bool[B, T, C]: what is masked of each example.

  Args:
    kind: one of KINDS.
    keys: Key[B].
    frames: T.
    content: C.
    least: the least share.
  """
  rates, rows = {
    "tube": ((), (content,)),
    "random": ((), (frames * content,)),
    "independent": ((frames,), (frames, content)),
  }[kind]

  def one(key):
    own, other = jax.random.split(key)
    rate = share(jax.random.uniform(own, rates), least)
    hide = places(jax.random.uniform(other, rows), rate)
    if kind == "tube":
      return jnp.tile(hide[None], (frames, 1))
    return hide.reshape(frames, content)

  return jax.vmap(one)(keys)
