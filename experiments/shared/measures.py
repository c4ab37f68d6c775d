"""What experiments measure of a trained arm: likelihood, how good its samples
are, what an update and a draw cost."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import data, evals, optim, step
from ar_jax.core.decoding import speculate
from ar_jax.core.system import System, Vars
from ar_jax.evals.images import frechet as distances
from experiments.shared.arms import Trained


def parameters(tree: Any) -> int:
  """How many numbers the leaves hold."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def likelihood(own: Trained, dataset: data.Dataset) -> dict[str, float]:
  """`nats` per unit of the test split, and the system's own metrics."""
  batches = data.epoch(dataset.test, batch=500)
  judge = evals.build("likelihood", dataset)
  found = judge(own.system, own.variables, batches, jax.random.key(0))
  found = {k: v for k, v in found.items() if isinstance(v, float)}
  return found | {"nats": found["nll"] / len(own.system.plan)}


def score(
  own: Trained | None,
  dataset: data.Dataset,
  *,
  seed: int,
  features: str = "pixels",
  n: int = 0,
  draw: Callable | None = None,
) -> dict[str, float]:
  """Frechet distance of samples, its floor, and milliseconds an image.

  Args:
    own: what is drawn from; None where `draw` makes samples of its own.
    dataset, features, n, draw: as in `evals.images.frechet.build`.
    seed: of the samples.
  """
  system, variables, options = own[:3] if own else (None, {}, {})
  if own is None:
    system = _Labels()
  evaluate = distances.build(
    dataset, features=features, n=n, options=options, draw=draw
  )
  key = jax.random.key(1000 + seed)
  found = evaluate(system, variables, None, key)
  result = {k: float(found[k]) for k in ("frechet", "frechet_floor")}
  if draw is None:
    cond = {"label": jnp.arange(100) % dataset.num_classes}
    begun = time.perf_counter()
    step.draw(system, variables, cond, key, batch=100, options=options)
    result["ms/image"] = 10 * (time.perf_counter() - begun)
  return result


class _Labels:
  """In place of a system that only asks for labels."""

  needs, makes = ("label",), ("image",)


def quality(
  images: np.ndarray, dataset: data.Dataset, features: str = "judge"
) -> dict[str, float]:
  """Frechet distance and the judge's accuracy of given samples.

  Args:
    images: f32[N, H, W, c] in [0, 1], classes in turns; a last turn that lacks
      classes is left out.
    dataset: what they are compared with.
    features: of the distance.
  """
  classes = dataset.num_classes
  images = images[: len(images) // classes * classes]

  def given(system, variables, cond, key, *, start, **_):
    # Evaluators ask for every class once before any comes again, in an order
    # of their own.
    del system, variables, key
    turn = (start + np.arange(len(cond["label"]))) // classes
    return {"image": images[turn * classes + np.asarray(cond["label"])]}

  found = {}
  asked = {"frechet": {"features": features}, "judge_accuracy": {}}
  for name, more in asked.items():
    judge = evals.build(name, dataset, n=len(images), draw=given, **more)
    found |= judge(_Labels(), {}, (), jax.random.key(0))
  return {k: v for k, v in found.items() if isinstance(v, float)}


def sampled(
  own: Trained, dataset: data.Dataset, *, seed: int, n: int
) -> np.ndarray:
  """f32[n, H, W, c] in [0, 1], classes in turns."""
  label = np.arange(n, dtype=np.int32) % dataset.num_classes
  key = jax.random.key(seed)
  cond, batch = {"label": label}, min(100, n)
  made = step.draw(*own[:2], cond, key, batch=batch, options=own.options)
  return made["image"]


def row_of_classes(own: Trained, n: int = 10) -> np.ndarray:
  """f32[n, H, W, c], a sample of each of the first classes."""
  label = np.arange(n, dtype=np.int32) % own.system.classes
  key = jax.random.key(0)
  made = step.draw(
    *own[:2], {"label": label}, key, batch=n, options=own.options
  )
  return made["image"]


@functools.partial(jax.jit, static_argnums=(0, 4))
def generate(system, variables, label, keys, options):
  """(units, forwards f32[], acceptance f32[] or nan) of a batch."""
  drawn = system.generate(variables, {"label": label}, keys, **dict(options))
  units, stats = drawn if isinstance(drawn, tuple) else (drawn, None)
  if not isinstance(stats, speculate.Stats):
    return units, jnp.float32(system.plan.steps), jnp.nan
  summary = speculate.summary(stats, len(system.plan))
  return units, summary["forwards"], summary["acceptance"]


@functools.partial(jax.jit, static_argnums=0)
def _decode(system, variables, units):
  while hasattr(system, "target"):
    system = system.target
  return system.decode(variables, units)


def speculated(
  own: Trained,
  dataset: data.Dataset,
  *,
  seed: int,
  n: int,
  change: Callable[[Vars], Vars] = lambda variables: variables,
) -> tuple[np.ndarray, dict[str, float]]:
  """Samples of discrete units, and what they took.

  Args:
    own: has `generate`.
    dataset: gives the classes.
    seed: of the samples.
    n: how many; whole batches of at most 100 are drawn.
    change: of the variables, while units are drawn; not for decoding them.

  Returns:
    f32[n, H, W, c] in [0, 1]; `forwards` of the large network for an image and
    `acceptance` of a draft.
  """
  options = tuple(sorted(own.options.items()))
  batch, key = min(100, n), jax.random.key(seed)
  images, forwards, accepted = [], [], []
  variables = change(own.variables)
  for start in range(0, n, batch):
    index = start + np.arange(batch)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    label = jnp.asarray(index % dataset.num_classes, jnp.int32)
    units, *spent = generate(own.system, variables, label, keys, options)
    forwards.append(float(spent[0]))
    accepted.append(float(spent[1]))
    images.append(np.asarray(_decode(own.system, own.variables, units)))
  return np.concatenate(images)[:n], {
    "forwards": statistics.mean(forwards),
    "acceptance": statistics.mean(accepted),
  }


def in_turns(
  calls: Mapping[str, Callable[[], object]], turns: int
) -> dict[str, list[float]]:
  """name -> seconds of each call, one for each turn; compiled before. In turns,
  so that a busy moment of the machine hits all."""
  for call in calls.values():
    jax.block_until_ready(call())
  times: dict[str, list[float]] = {name: [] for name in calls}
  for _ in range(turns):
    for name, call in calls.items():
      start = time.perf_counter()
      jax.block_until_ready(call())
      times[name].append(time.perf_counter() - start)
  return times


def one_by_one(
  trained: Mapping[str, Trained], rows: Mapping[str, np.ndarray], most: int
) -> dict[str, dict[str, float]]:
  """`ms`, milliseconds of what each arm makes of one example at a time, and
  `passes` of its decoder: in turns, over the first `most` examples whose `text`
  is among the longest.

  Args:
    trained: systems that transcribe, whose samples have `passes`.
    rows: field -> [N, ...] of the test part.
    most: examples.
  """
  lengths = (rows["text"] > 0).sum(1)
  long = np.flatnonzero(lengths == lengths.max())[:most]
  turn = {name: itertools.cycle(long) for name in trained}
  passes: dict[str, list[int]] = {name: [] for name in trained}
  keys = jax.random.split(jax.random.key(0), 1)

  def transcribe(name: str) -> None:
    i, own = next(turn[name]), trained[name]
    cond = {k: rows[k][i : i + 1] for k in own.system.needs}
    made = step.jit_draw(own.system, own.variables, cond, keys, ())
    passes[name].append(int(made["passes"][0]))

  calls = {name: functools.partial(transcribe, name) for name in trained}
  times = in_turns(calls, len(long))
  return {
    name: {
      "ms": 1000 * statistics.median(x),
      "passes": float(np.mean(passes[name])),
    }
    for name, x in times.items()
  }


def _update(system, variables, batch) -> tuple[Callable, float]:
  """One update on known units, and the MiB that it takes beside its state."""
  tx = optim.make({"lr": 1e-3, "clip": 1.0}, 100)
  own = jax.tree.map(jnp.copy, variables)  # donated
  zero, options = jnp.zeros((), jnp.int32), step.Options()
  state = [step.TrainState(zero, own, None, tx.init(own["params"]))]
  key = jax.random.key(0)
  update = step.jit_step.lower(system, tx, options, state[0], batch, key)
  update = update.compile()

  def run():
    state[0], metrics = update(state[0], batch, key)
    return metrics

  return run, update.memory_analysis().temp_size_in_bytes / 2**20


def _draw(own: Trained, batch: int) -> tuple[Callable, float]:
  """One batch of samples, and the MiB that it takes beside the weights."""
  cond = {"label": jnp.arange(batch) % own.system.classes}
  args = own.variables, cond, jax.random.split(jax.random.key(0), batch)
  static = tuple(sorted(own.options.items()))
  draw = step.jit_draw.lower(own.system, *args, static).compile()
  run = lambda: draw(*args)
  return run, draw.memory_analysis().temp_size_in_bytes / 2**20


def costs(
  trained: Mapping[str, Trained],
  images: Mapping[str, np.ndarray],
  batch: int,
  turns: int = 5,
) -> dict[str, dict[str, float]]:
  """name -> medians of seconds of an `update` and a `draw` of a batch, all
  arms in turns, and the memory of both.

  Args:
    trained: name -> arm.
    images: the batch of an update: images, or units.
    batch: of sampling.
    turns: timed calls of each.
  """
  calls: dict[str, Callable] = {}
  result: dict[str, dict] = {name: {} for name in trained}
  for name, own in trained.items():
    known = jax.jit(own.system.encode)(own.variables, images)
    for what, (run, mib) in {
      "update": _update(own.system, own.variables, known),
      "draw": _draw(own, batch),
    }.items():
      calls[f"{what} {name}"] = run
      result[name][f"{what} MiB"] = mib
  for call, seconds in in_turns(calls, turns).items():
    what, _, name = call.partition(" ")
    result[name][what] = statistics.median(seconds)
  return result


def forwards(system: System, options: Mapping[str, Any]) -> int:
  """Passes of the network for one image."""
  if hasattr(system, "forwards"):
    return system.forwards(**options)
  return system.plan.steps
