"""Cells of bits for the experiment of ELM: sources whose entropy is known,
images of a few levels, a table of frequencies, and bits that nobody learned.
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from ar_jax import data
from ar_jax.core.signals.patches import cut
from ar_jax.nn.quantize.bits import pack, unpack
from ar_jax.tokenizers.autoencoder import Reconstruction
from ar_jax.tokenizers.bits import BAE
from experiments.shared import toys

# Chances of a 1 of both bits of a cell; None: they are equal.
SOURCES = {"independent": (0.8, 0.3), "equal": None}


def codes(bits: np.ndarray, t: int) -> np.ndarray:
  """i32[..., t] of bits [..., K]."""
  return np.asarray(pack(jnp.asarray(bits), t))


def source(kind: str, like: data.Dataset, t: int, seed: int) -> data.Dataset:
  """Examples of 2 x 2 cells of two bits."""

  def rows(count, part):
    rng = np.random.default_rng((seed, part))
    if SOURCES[kind] is None:
      bits = np.repeat(rng.random((count, 4, 1)) < 0.5, 2, axis=2)
    else:
      bits = rng.random((count, 4, 2)) < np.array(SOURCES[kind])
    label = np.int32(0)
    return [{"units": u, "label": label} for u in codes(bits, t)]

  train, test = rows(8192, 0), rows(8192, 1)
  return dataclasses.replace(like, train=train, test=test)


def entropy(kind: str) -> float:
  """Of a cell, in nats."""
  if SOURCES[kind] is None:
    return math.log(2)
  each = ((p, 1 - p) for p in SOURCES[kind])
  return -sum(q * math.log(q) for pair in each for q in pair)


def cells(dataset: data.Dataset, t: int) -> data.Dataset:
  """Digits whose units are the codes of 4 x 4 cells of 2 x 2 pixels of two
  bits each."""
  levels = toys.levels(dataset, 4)

  def rows(source):
    units, label = toys.arrays(source)
    square = units.reshape(-1, 4, 2, 4, 2).swapaxes(2, 3).reshape(-1, 16, 4)
    bits = np.stack([square >> 1, square & 1], -1).reshape(-1, 16, 8)
    both = zip(codes(bits, t), label, strict=True)
    return [{"units": u, "label": own} for u, own in both]

  train, test = rows(levels.train), rows(levels.test)
  return dataclasses.replace(dataset, train=train, test=test)


def pixels(units: np.ndarray, t: int) -> np.ndarray:
  """f32[N, 8, 8, 1] of units i32[N, 16, t]."""
  bits = np.asarray(unpack(jnp.asarray(units), 8 // t)).reshape(-1, 16, 4, 2)
  level = (2 * bits[..., 0] + bits[..., 1]).reshape(-1, 4, 4, 2, 2)
  return level.swapaxes(2, 3).reshape(-1, 8, 8, 1) / 3.0


def counts(dataset: data.Dataset) -> float:
  """Test nats a pixel of a table of frequencies of the cell by class and
  place; what is added to every count is chosen on a fifth of the training
  images."""
  (train, of), (test, label) = map(toys.arrays, (dataset.train, dataset.test))
  train, test = train[..., 0], test[..., 0]

  def cost(known, whose, asked, label, added):
    table = np.full((10, 16, 256), added)
    place = np.broadcast_to(np.arange(16), known.shape)
    np.add.at(table, (whose[:, None], place, known), 1)
    logp = np.log(table / table.sum(-1, keepdims=True))
    place = np.broadcast_to(np.arange(16), asked.shape)
    return -logp[label[:, None], place, asked].mean() / 4

  cut_at = len(train) * 4 // 5
  trial = lambda added: cost(
    train[:cut_at], of[:cut_at], train[cut_at:], of[cut_at:], added
  )
  best = min((1.0, 0.3, 0.1, 0.03, 0.01, 0.003), key=trial)
  return float(cost(train, of, test, label, best))


class Planes(BAE):
  """The decoder of `BAE` over bits that say on which side of a random plane
  the pixels of a cell lie.

  Attributes:
    seed: of the planes.
    centres: a point on each of them, K of p p numbers.
  """

  seed: int = 0
  centres: tuple[tuple[float, ...], ...] = ()

  def encode(self, x, keys=None):
    del keys
    parts = cut(x, self.stride)
    parts = parts.reshape(len(x), -1, parts.shape[-1])
    centres = np.asarray(self.centres, np.float32)
    rng = np.random.default_rng(self.seed)
    planes = rng.normal(size=centres.shape).astype(np.float32)
    side = parts @ planes.T - (planes * centres).sum(1)[None, None]
    return (side > 0).astype(jnp.int32)

  def __call__(self, x, keys=None):
    units = self.encode(x)
    image, feature = self.decoded(self._map(self.embed(units)))
    return Reconstruction(image, feature, units, {})
