"""A judge: the classifier of `encoders` trained on the data itself.

It measures in the terms of the data where ImageNet features would not, on
digits for example, and says whether a sample shows the class asked for. Its
own accuracy on the test split stands beside every number that it gives.
"""

from __future__ import annotations

import functools

import jax
import numpy as np
import optax
from absl import logging
from flax import traverse_util

from ar_jax.conditions import some
from ar_jax.core.system import UserError
from ar_jax.data import Dataset, array_cache
from ar_jax.encoders.classifier import Network
from ar_jax.evals import cache
from ar_jax.evals.images.features import Features, batched

# Whoever changes the network or its training changes this line.
_RECIPE = "3x3 convolutions 32-64, 64 features, shifts, adam 2e-3 cosine"
_BATCH = 128
_MOST = 60_000  # training images that are held in memory


def _arrays(source, most: int) -> tuple[np.ndarray, np.ndarray]:
  """Images and labels of at most `most` random examples."""
  rows = np.sort(some(len(source), min(most, len(source))))
  examples = [source[int(i)] for i in rows]
  label = np.array([e["label"] for e in examples], np.int32)
  return np.stack([e["image"] for e in examples]), label


def _train(net: Network, image: np.ndarray, label: np.ndarray, steps: int):
  """Parameters after `steps` batches; the same ones every time."""
  params = net.init(jax.random.key(0), image[:1])
  tx = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

  @functools.partial(jax.jit, donate_argnums=0)
  def update(state, x, y):
    params, opt = state

    def loss(params):
      logits = net.apply(params, x).logits
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
  net = Network(data.num_classes)

  def seen(variables, images):
    found = net.apply(variables, images)
    return found.pooled, found.logits

  digest = array_cache.digest(_RECIPE, str(steps), cache.data_digest(data))
  saved = array_cache.load("judge", digest)
  if saved is None:
    logging.info("training the judge of %s for %d steps", data.name, steps)
    image, label = _arrays(data.train, _MOST)
    params = _train(net, image, label, steps)
    embed = batched(seen, params, batch)
    image, label = _arrays(data.test, _MOST)
    right = embed(image).logits.argmax(1) == label
    saved = {
      **traverse_util.flatten_dict(params, sep="/"),
      "accuracy": right.mean(),
    }
    array_cache.save("judge", digest, saved)
  accuracy = float(saved.pop("accuracy"))
  params = traverse_util.unflatten_dict(saved, sep="/")
  return Features(
    name="judge",
    note=f"a classifier trained on {data.name} ({_RECIPE}, {steps} steps), "
    f"test accuracy {accuracy:.4f}",
    digest=digest,
    embed=batched(seen, params, batch),
    accuracy=accuracy,
  )
