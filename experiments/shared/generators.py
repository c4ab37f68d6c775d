"""What experiments on generators share: a run of training, and a score."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ar_jax import checkpoint, data, main, optim, step
from ar_jax.core import prng
from ar_jax.core.system import System, Vars
from ar_jax.evals.images import frechet


def parameters(tree: Any) -> int:
  """How many numbers the leaves hold."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


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


def tokenizer(config, folder: pathlib.Path, steps: int = 100) -> Vars:
  """The weights of a tokenizer stage, trained there if they are not yet.

  Of an experiment that is tried with below 100 steps, so few as well, in a
  folder beside.
  """
  if steps < 100:
    config.train.steps, folder = steps, folder.with_name(folder.name + "_short")
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


def train(
  system: System,
  dataset: data.Dataset,
  *,
  steps: int,
  batch: int,
  seed: int,
  lr: float,
  ema: float = 0.995,
  given: Mapping[str, Any] | None = None,
) -> tuple[Vars, float]:
  """The averaged variables after a run, and the seconds that it took.

  Args:
    system: to be trained.
    dataset: its training split is read.
    steps: updates.
    batch: examples of each.
    seed: of the run.
    lr: peak rate of AdamW, with a cosine to 0.
    ema: decay of the average.
    given: collections that are taken as they are (a frozen tokenizer).
  """
  tx = optim.make({"lr": lr, "warmup": 0.05, "clip": 1.0}, steps)
  options = step.Options(ema=ema)
  batches = data.batches(dataset.train, batch=batch, seed=seed)
  first = next(batches)
  init = jax.jit(functools.partial(step.init_state, system, tx, options))
  # The state is donated, the given collections are not ours to give.
  copied = jax.tree.map(jax.numpy.copy, dict(given or {}))
  state = init(prng.key(seed), first, copied)
  key, begun = jax.random.key(seed), time.perf_counter()
  state, _ = step.jit_step(system, tx, options, state, first, key)
  for _ in range(steps - 1):
    state, _ = step.jit_step(system, tx, options, state, next(batches), key)
  jax.block_until_ready(state.ema)
  seconds = time.perf_counter() - begun
  return {**state.variables, "params": state.ema}, seconds


def score(
  system: System | None,
  variables: Vars,
  dataset: data.Dataset,
  *,
  seed: int,
  features: str = "pixels",
  n: int = 0,
  options: Mapping[str, Any] | None = None,
  draw=None,
) -> dict[str, float]:
  """Frechet distance of samples, its floor, and seconds per image.

  Arguments as those of `evals.images.frechet.build`; the first batch of
  samples, which is compiled, is not timed.
  """
  evaluate = frechet.build(
    dataset, features=features, n=n, options=options, draw=draw
  )
  key = jax.random.key(1000 + seed)
  found = evaluate(system, variables, None, key)
  result = {k: float(found[k]) for k in ("frechet", "frechet_floor")}
  if draw is None:
    cond = {"label": jax.numpy.arange(100) % dataset.num_classes}
    begun = time.perf_counter()
    step.draw(
      system, variables, cond, key, batch=100, options=dict(options or {})
    )
    result["ms/image"] = 10 * (time.perf_counter() - begun)
  return result


def row(name: str, runs: Sequence[Mapping[str, float]], **more) -> dict:
  """Means of the runs of one arm, with the deviation of the distance."""
  mean = lambda key: statistics.mean(run[key] for run in runs)
  values = [run["frechet"] for run in runs]
  spread = statistics.stdev(values) if len(values) > 1 else 0.0
  result = {
    "arm": name,
    "frechet": mean("frechet"),
    "spread": spread,
    "floor": mean("frechet_floor"),
  }
  for key in ("ms/image", "seconds"):
    if key in runs[0]:
      result[key] = mean(key)
  return result | more
