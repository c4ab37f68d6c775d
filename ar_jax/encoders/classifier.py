"""A small convolutional classifier, trained here on the data itself.

It judges samples (`evals.images.judge` trains this network) and teaches: what
it sees of an image, at each place and as a whole, is there to be frozen beside
another system.

B batch, H W sides, C image channels, h w sides of the grid, K classes.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError
from ar_jax.core.system import Array, Batch, Loss, Vars, example_keys
from ar_jax.encoders.base import Recognition, classified


class Seen(NamedTuple):
  """What the network makes of images.

  Attributes:
    grid: f32[B, h, w, 64], of each place, coarse: a 32 x 32 image has 8 x 8.
    pooled: f32[B, 64], of the whole.
    logits: f32[B, K].
  """

  grid: Array
  pooled: Array
  logits: Array


class Network(nn.Module):
  """Two 3x3 convolutions and two layers; u8[B, H, W, C] -> `Seen`. Who changes
  it changes `evals.images.judge`, and what that has kept.

  Attributes:
    classes: K.
  """

  classes: int

  @nn.compact
  def __call__(self, images: Array) -> Seen:
    x = jnp.asarray(images, jnp.float32) / 255 - 0.5
    x = _patches(x, -(-max(x.shape[1:3]) // 16))
    x = nn.relu(nn.Dense(32)(_neighbours(x)))
    x = _patches(x, 2, together=False).max(-2)
    grid = nn.relu(nn.Dense(64)(_neighbours(x)))
    x = nn.relu(nn.Dense(64)(grid.reshape(len(x), -1)))
    return Seen(grid, x, nn.Dense(self.classes)(x))


def _patches(x: Array, side: int, together: bool = True) -> Array:
  """[N, H, W, C] -> [N, H / side, W / side, side^2 * C], padded with zeros.

  With `together` false the pixels of a patch keep an axis of their own.
  """
  n, h, w, c = x.shape
  x = jnp.pad(x, ((0, 0), (0, -h % side), (0, -w % side), (0, 0)))
  h, w = x.shape[1] // side, x.shape[2] // side
  x = x.reshape(n, h, side, w, side, c).swapaxes(2, 3)
  shape = (side * side * c,) if together else (side * side, c)
  return x.reshape(n, h, w, *shape)


def _neighbours(x: Array) -> Array:
  """The 3x3 surroundings of every place: a convolution without the matrix.

  A Dense layer behind it is a convolution whose gradients are plain matrix
  products, several times as fast on a CPU as those of `nn.Conv`.
  """
  h, w = x.shape[1:3]
  wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  around = [wide[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
  return jnp.concatenate(around, -1)


def shifted(images: Array, keys: Array) -> Array:
  """Each of the images [B, H, W, C] moved by a few whole pixels, at most a
  sixteenth of its side, by keys Key[B]; what enters repeats the edge."""
  h, w = images.shape[1:3]
  reach = min(h, w) // 16

  def move(image, key):
    dy, dx = jax.random.randint(key, (2,), -reach, reach + 1)
    rows = jnp.clip(jnp.arange(h) + dy, 0, h - 1)
    columns = jnp.clip(jnp.arange(w) + dx, 0, w - 1)
    return image[rows][:, columns]

  return jax.vmap(move)(images, keys) if reach else images


@dataclasses.dataclass(frozen=True)
class Classifier(Recognition):
  """The classifier in training; `sample` says the class of given images.

  Attributes:
    net: the network.
    shifts: whether training moves the images by a few pixels.
  """

  net: Network
  shifts: bool = True

  @property
  def classes(self) -> int:
    return self.net.classes

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    images, label = batch["image"], batch["label"]
    if train and self.shifts:
      images = shifted(images, example_keys(key, batch))
    logits = self.net.apply(variables, images).logits
    return classified(logits, label)

  def logits(self, variables: Vars, batch: Batch) -> Array:
    """f32[B, K] of the images of a batch."""
    return self.net.apply(variables, batch["image"]).logits

  def pooled(self, variables: Vars, batch: Batch) -> Array:
    """f32[B, 64] of the images of a batch."""
    return self.net.apply(variables, batch["image"]).pooled

  def grid(self, variables: Vars, batch: Batch) -> Array:
    """f32[B, h, w, 64] of the images of a batch."""
    return self.net.apply(variables, batch["image"]).grid


def build(*, num_classes: int = 10, shifts: bool = True) -> Classifier:
  """The classifier.

  Args:
    num_classes: K.
    shifts: whether training moves the images by at most a sixteenth of their
      side.

  Raises:
    UserError: there are fewer than two classes.
  """
  if num_classes < 2:
    raise UserError(f"model.num_classes={num_classes}: must be at least 2")
  return Classifier(Network(num_classes), shifts)
