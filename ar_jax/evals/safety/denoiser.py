"""A small denoising autoencoder: what regenerates an image, as an attack.

It is trained on the data alone and knows nothing of a mark: noise drowns an
image, and what it puts in its place is what images look like. A stand-in for
the diffusion models of the paper.

Shapes: B batch, H W c image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ar_jax.core.forms import to_uint8
from ar_jax.data import Dataset

_BATCH, _RATE, _WIDTH = 32, 3e-3, 24


class Denoiser(nn.Module):
  """f32[B, H, W, c] in [0, 1] with noise -> without, not clipped: halved in
  size, and back."""

  channels: int
  width: int = _WIDTH

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    height, width = x.shape[1:3]
    h = nn.gelu(nn.Conv(self.width, (3, 3), (2, 2))(2 * x - 1))
    for _ in range(2):
      h = h + nn.Conv(self.width, (3, 3))(nn.gelu(h))
    h = nn.Conv(4 * self.channels, (3, 3))(nn.gelu(h))
    # A cell becomes 2 x 2 pixels; the last row of an odd height goes.
    b, rows, columns, _ = h.shape
    h = h.reshape(b, rows, columns, 2, 2, self.channels)
    h = jnp.swapaxes(h, 2, 3).reshape(b, 2 * rows, 2 * columns, self.channels)
    return nn.sigmoid(h[:, :height, :width])


def _noisy(x: jax.Array, key: jax.Array, deviation: float) -> jax.Array:
  return x + deviation * jax.random.normal(key, x.shape)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _update(net, tx, state, x, key, deviation):
  params, opt = state

  def loss(params):
    made = net.apply({"params": params}, _noisy(x, key, deviation))
    return jnp.mean(jnp.square(made - x))

  value, grads = jax.value_and_grad(loss)(params)
  change, opt = tx.update(grads, opt, params)
  return (optax.apply_updates(params, change), opt), value


@functools.partial(jax.jit, static_argnums=0)
def _remade(net, params, x, key, deviation):
  return net.apply({"params": params}, _noisy(x, key, deviation))


def trained(
  data: Dataset, deviation: float, steps: int = 300, seed: int = 0
) -> Callable[[np.ndarray, int], np.ndarray]:
  """The attack: images get noise of this deviation, where white is 1, and the
  denoiser takes it out.

  Args:
    data: its training images are what it is trained on.
    deviation: of the noise, in training and then.
    steps: updates of 32 images.
    seed: of the training.
  """
  rng, key = np.random.default_rng(seed), jax.random.key(seed)
  first = data.train[0]["image"]
  net = Denoiser(first.shape[-1])
  tx = optax.adam(optax.cosine_decay_schedule(_RATE, max(1, steps)))
  params = net.init(key, first[None] / np.float32(255))["params"]
  state = params, tx.init(params)
  for i in range(steps):
    rows = rng.integers(len(data.train), size=_BATCH)
    x = np.stack([data.train[int(r)]["image"] for r in rows])
    x = x.astype(np.float32) / 255
    own = jax.random.fold_in(key, i + 1)
    state, _ = _update(net, tx, state, x, own, deviation)
  params = state[0]

  def attacked(images: np.ndarray, seed: int) -> np.ndarray:
    parts = []
    for start in range(0, len(images), 100):
      x = images[start : start + 100].astype(np.float32) / 255
      own = jax.random.fold_in(jax.random.key(seed), start)
      parts.append(np.asarray(_remade(net, params, x, own, deviation)))
    return to_uint8(np.concatenate(parts))

  return attacked
