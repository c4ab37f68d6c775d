"""What a discriminator sees of images, real and drawn alike: they are changed
at random, by what gradients pass through (DiffAugment, arXiv 2006.10738).

Shapes: B batch, H W image sides, c image channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ar_jax.core.signals.resize import resize

Array = jax.Array


def augmented(x: Array, keys: Array, cutout: float = 0.2) -> Array:
  """Images f32[B, H, W, c] in [-1, 1] of other brightness, saturation and
  contrast, moved by up to an eighth of their sides, and without a square of
  this share of them; each by its key of Key[B]."""

  def one(image, key):
    h, w, _ = image.shape
    draws = jax.random.split(key, 7)
    uniform = [jax.random.uniform(k) for k in draws[:3]]
    image = image + uniform[0] - 0.5
    grey = image.mean(-1, keepdims=True)
    image = (image - grey) * (2 * uniform[1]) + grey
    mean = image.mean()
    image = (image - mean) * (uniform[2] + 0.5) + mean
    rows, cols = jnp.arange(h), jnp.arange(w)
    shift = lambda k, n: jax.random.randint(k, (), -(n // 8), n // 8 + 1)
    at = rows + shift(draws[3], h), cols + shift(draws[4], w)
    inside = [(p >= 0) & (p < n) for p, n in zip(at, (h, w), strict=True)]
    image = image[jnp.clip(at[0], 0, h - 1)][:, jnp.clip(at[1], 0, w - 1)]
    seen = inside[0][:, None] & inside[1][None]
    sizes = int(h * cutout + 0.5), int(w * cutout + 0.5)
    gone = []
    for k, n, size, p in zip(
      draws[5:], (h, w), sizes, (rows, cols), strict=True
    ):
      middle = jax.random.randint(k, (), 0, n + 1 - size % 2)
      gone.append((p >= middle - size // 2) & (p < middle - size // 2 + size))
    seen &= ~(gone[0][:, None] & gone[1][None])
    return jnp.where(seen[..., None], image, 0.0)

  return jax.vmap(one)(x, keys)


def cropped(x: Array, keys: Array | None, side: int) -> Array:
  """Images [B, side, side, c]: a random square of each, or half of the time,
  and always without keys, all of it made smaller; smaller ones are enlarged."""
  h, w = x.shape[1:3]
  if (h, w) == (side, side):
    return x
  if min(h, w) < side:
    return resize(x, (side, side), "bicubic")
  small = resize(x, (side, side), "area")
  if keys is None:
    return small

  def one(image, less, key):
    coin, *places = jax.random.split(key, 3)
    start = [
      jax.random.randint(k, (), 0, n - side + 1)
      for k, n in zip(places, (h, w), strict=True)
    ]
    shape = side, side, image.shape[-1]
    part = jax.lax.dynamic_slice(image, (*start, 0), shape)
    return jnp.where(jax.random.bernoulli(coin), part, less)

  return jax.vmap(one)(x, small, keys)
