"""Small data for the experiments: images as arrays, as units, and stand-ins
that know nothing of context."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Any

import jax
import numpy as np

from ar_jax import checkpoint, data, main
from ar_jax.core.system import System, Vars


def pixels(
  dataset: data.Dataset, most: int = 5000
) -> tuple[np.ndarray, np.ndarray]:
  """Training images in [0, 1], f32[N, H, W, C], and their labels."""
  rows = np.linspace(0, len(dataset.train) - 1, min(most, len(dataset.train)))
  found = [dataset.train[int(i)] for i in rows]
  image = np.stack([row["image"] for row in found]).astype(np.float32) / 255
  return image, np.array([row["label"] for row in found])


def patches(dataset: data.Dataset, patch: int) -> dict[str, Any]:
  """The tokenizer of square patches whose numbers have mean 0 and deviation
  1."""
  signed = 2 * pixels(dataset)[0] - 1
  return dict(
    name="patches",
    size=signed.shape[1],
    patch=patch,
    shift=float(signed.mean()),
    scale=float(1 / signed.std()),
  )


def bootstrap(dataset: data.Dataset, side: int):
  """In place of `step.draw`: every square of `side` pixels from another image
  of the class. Perfect squares, and no context."""
  image, labels = pixels(dataset)
  corners = range(0, image.shape[1], side)

  def draw(system, variables, cond, key, *, batch, start, options):
    del system, variables, key, batch, options
    rng = np.random.default_rng(start)
    result = np.zeros((len(cond["label"]), *image.shape[1:]), np.float32)
    for i, label in enumerate(cond["label"]):
      rows = np.flatnonzero(labels == label)
      for r in corners:
        for c in corners:
          at = np.s_[r : r + side, c : c + side]
          result[i][at] = image[rng.choice(rows)][at]
    return {"image": result}

  return draw


def tokenizer(config, folder: pathlib.Path, short: bool = False) -> Vars:
  """The weights of a tokenizer stage, trained there if they are not yet; in a
  trial of a few steps only."""
  if short:
    config.train.steps = config.train.save_every = 4
  main.run(config, folder)
  variables, _ = checkpoint.load(folder)
  return variables["params"]["tokenizer"]


def encoded(
  system: System,
  dataset: data.Dataset,
  frozen: Vars,
  most: tuple[float, float] = (math.inf, math.inf),
  batch: int = 100,
) -> data.Dataset:
  """The set with the units of its images in their place, encoded once; so many
  of training and test images at most."""
  encode = jax.jit(lambda batch: system.encode({"tokenizer": frozen}, batch))

  def rows(source, most):
    found = []
    for part in data.epoch(source, batch=batch):
      if len(found) >= most:
        break
      live = int(part["mask"].sum()) if "mask" in part else batch
      part = {k: v for k, v in part.items() if k not in ("mask", "index")}
      units = jax.device_get(encode(part))
      found += [{k: v[i] for k, v in units.items()} for i in range(live)]
    return found

  train, test = map(rows, (dataset.train, dataset.test), most)
  return dataclasses.replace(dataset, train=train, test=test)


def levels(dataset: data.Dataset, count: int) -> data.Dataset:
  """The set with `units` i32[H W] in place of grey images: the brightness of
  every pixel, in so many equal steps."""

  def rows(source):
    found = []
    for i in range(len(source)):
      row = source[i]
      grey = row["image"].reshape(-1).astype(np.int32)
      units = np.minimum(grey * count // 256, count - 1)
      found.append({"units": units, "label": row["label"]})
    return found

  train, test = rows(dataset.train), rows(dataset.test)
  return dataclasses.replace(dataset, train=train, test=test)


def arrays(rows) -> tuple[np.ndarray, np.ndarray]:
  """Units i32[N, L] and labels i32[N] of rows of units."""
  return tuple(
    np.stack([row[key] for row in rows]) for key in ("units", "label")
  )
