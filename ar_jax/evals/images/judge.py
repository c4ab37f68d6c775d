"""A judge: a small classifier that is trained here on the data itself.

It measures in the terms of the data where ImageNet features would not, on
digits for example, and says whether a sample shows the class asked for. Its
own accuracy on the test split stands beside every number that it gives.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from flax import linen as nn
from flax import traverse_util

from ar_jax.conditions import some
from ar_jax.core.system import UserError
from ar_jax.data import Dataset, kept
from ar_jax.evals import cache
from ar_jax.evals.images.features import Features, batched

# Whoever changes the network or its training changes this line.
_RECIPE = "3x3 convolutions 32-64, 64 features, shifts, adam 2e-3 cosine"
_BATCH = 128
_MOST = 60_000  # training images that are held in memory


class Judge(nn.Module):
  """u8[N, H, W, C] -> features f32[N, 64], logits f32[N, classes]."""

  classes: int

  @nn.compact
  def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    x = jnp.asarray(images, jnp.float32) / 255 - 0.5
    x = _patches(x, -(-max(x.shape[1:3]) // 16))
    x = nn.relu(nn.Dense(32)(_neighbours(x)))
    x = _patches(x, 2, together=False).max(-2)
    x = nn.relu(nn.Dense(64)(_neighbours(x)))
    x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
    return x, nn.Dense(self.classes)(x)


def _patches(x: jax.Array, side: int, together: bool = True) -> jax.Array:
  """[N, H, W, C] -> [N, H / side, W / side, side^2 * C], padded with zeros.

  With `together` false the pixels of a patch keep an axis of their own.
  """
  n, h, w, c = x.shape
  x = jnp.pad(x, ((0, 0), (0, -h % side), (0, -w % side), (0, 0)))
  h, w = x.shape[1] // side, x.shape[2] // side
  x = x.reshape(n, h, side, w, side, c).swapaxes(2, 3)
  shape = (side * side * c,) if together else (side * side, c)
  return x.reshape(n, h, w, *shape)


def _neighbours(x: jax.Array) -> jax.Array:
  """The 3x3 surroundings of every place: a convolution without the matrix.

  A Dense layer behind it is a convolution whose gradients are plain matrix
  products, several times as fast on a CPU as those of `nn.Conv`.
  """
  h, w = x.shape[1:3]
  wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  around = [wide[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
  return jnp.concatenate(around, -1)


def _arrays(source, most: int) -> tuple[np.ndarray, np.ndarray]:
  """Images and labels of at most `most` random examples."""
  rows = np.sort(some(len(source), min(most, len(source))))
  examples = [source[int(i)] for i in rows]
  label = np.array([e["label"] for e in examples], np.int32)
  return np.stack([e["image"] for e in examples]), label


def _train(net: Judge, image: np.ndarray, label: np.ndarray, steps: int):
  """Parameters after `steps` batches; the same ones every time."""
  params = net.init(jax.random.key(0), image[:1])
  tx = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

  @functools.partial(jax.jit, donate_argnums=0)
  def update(state, x, y):
    params, opt = state

    def loss(params):
      logits = net.apply(params, x)[1]
      return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    grads = jax.grad(loss)(params)
    moves, opt = tx.update(grads, opt, params)
    return optax.apply_updates(params, moves), opt

  state = params, tx.init(params)
  rng = np.random.default_rng(0)
  reach = min(image.shape[1:3]) // 16  # small shifts are free examples
  for _ in range(steps):
    rows = rng.integers(len(image), size=_BATCH)
    x = _shift(image[rows], rng.integers(-reach, reach + 1, 2))
    state = update(state, x, label[rows])
  return jax.device_get(state[0])


def _shift(images: np.ndarray, by: np.ndarray) -> np.ndarray:
  """Moves a batch by whole pixels; what enters repeats the edge."""
  reach = int(np.abs(by).max())
  pad = [(0, 0), (reach, reach), (reach, reach), (0, 0)]
  y, x = reach + by
  h, w = images.shape[1:3]
  return np.pad(images, pad, "edge")[:, y : y + h, x : x + w]


def make(data: Dataset, *, batch: int = 256, steps: int = 0) -> Features:
  """`judge`; see `features.features`.

  Args:
    data: the judge learns its training split.
    batch: images at once.
    steps: of training; 0 means 400 for a set of a few thousand images and
      1500 for a larger one.

  Raises:
    UserError: the data have no classes, or units in place of images.
  """
  if data.num_classes < 2 or "image" not in data.train[0]:
    raise UserError(
      f"features='judge' needs images of at least two classes, which "
      f"{data.name!r} does not have; take 'efficientnet' or 'pixels'"
    )
  steps = steps or (400 if len(data.train) < 5000 else 1500)
  net = Judge(data.num_classes)
  digest = kept.digest(_RECIPE, str(steps), cache.data_digest(data))
  saved = kept.load("judge", digest)
  if saved is None:
    logging.info("training the judge of %s for %d steps", data.name, steps)
    image, label = _arrays(data.train, _MOST)
    params = _train(net, image, label, steps)
    embed = batched(net.apply, params, batch)
    image, label = _arrays(data.test, _MOST)
    right = embed(image).logits.argmax(1) == label
    saved = {
      **traverse_util.flatten_dict(params, sep="/"),
      "accuracy": right.mean(),
    }
    kept.save("judge", digest, saved)
  accuracy = float(saved.pop("accuracy"))
  params = traverse_util.unflatten_dict(saved, sep="/")
  return Features(
    name="judge",
    note=f"a classifier trained on {data.name} ({_RECIPE}, {steps} steps), "
    f"test accuracy {accuracy:.4f}",
    digest=digest,
    embed=batched(net.apply, params, batch),
    accuracy=accuracy,
  )
