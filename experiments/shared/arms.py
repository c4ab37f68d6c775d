"""The one harness of the experiments: arms, trained over seeds on given data
and measured alike, a table of them, and a picture.

  python -m experiments.NAME [FOLDER] [WORD...] [--steps=N] [--seeds=N]
    [--short]

FOLDER keeps what a run trains, so that a command that was stopped goes on, if
the code has not changed; without it, `runs/experiments/NAME`. WORD chooses the
data where an experiment has several. `--short` is a trial: one seed, few steps,
a folder of its own, and nothing is recorded.

An experiment is then arms, a function that measures one, and a verdict.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ar_jax import checkpoint, conditions, data, optim, step
from ar_jax import train as training
from ar_jax.core import prng
from ar_jax.core.system import System, Vars, build
from experiments.shared import kept

SHORT = 4  # steps of a trial


@dataclasses.dataclass(frozen=True)
class Settings:
  """What the command line says.

  Attributes:
    folder: keeps what is trained.
    words: the data, in the order in which they were named.
    steps: of training of every arm.
    seeds: of the repetitions.
    short: a trial, which records nothing.
  """

  folder: pathlib.Path
  words: tuple[str, ...]
  steps: int
  seeds: tuple[int, ...]
  short: bool

  @property
  def word(self) -> str:
    """The data of an experiment that has one set at a time."""
    return self.words[0]

  def fewer(self, n: int, least: int = 20) -> int:
    """n, or in a trial as few as it takes to see that the code runs."""
    return min(n, least) if self.short else n


def settings(
  name: str,
  *,
  steps: int,
  words: Sequence[str] = ("",),
  several: bool = False,
  args: Sequence[str] | None = None,
) -> Settings:
  """Reads the command line.

  Args:
    name: of the experiment, for its folder.
    steps: unless --steps is given.
    words: the data there are; the first is the default. A word may be followed
      by = and a folder of the data.
    several: whether more than one word may be given.
    args: in place of those of the process.

  Raises:
    SystemExit: an argument says nothing.
  """
  folder, chosen, given, short, seeds = None, [], steps, False, 3
  for arg in sys.argv[1:] if args is None else args:
    flag, _, value = arg.partition("=")
    if arg == "--short":
      short = True
    elif flag in ("--steps", "--seeds") and value.isdigit() and int(value):
      given, seeds = (
        (int(value), seeds) if flag == "--steps" else (given, int(value))
      )
    elif flag in words and (several or not chosen):
      chosen.append(arg)
    elif folder is None and not arg.startswith("-"):
      folder = pathlib.Path(arg)
    else:
      known = " or ".join(filter(None, words))
      raise SystemExit(
        f"{arg}: not understood; give [FOLDER] "
        + (f"[{known}] " if known else "")
        + "[--steps=N] [--seeds=N] [--short]"
      )
  folder = folder or pathlib.Path("runs", "experiments", name)
  if short:
    folder, given, seeds = folder.with_name(f"{folder.name}_short"), SHORT, 1
  return Settings(
    folder.resolve(),
    tuple(chosen) or tuple(words[:1]),
    given,
    tuple(range(seeds)),
    short,
  )


class Trained(NamedTuple):
  """A system with its weights.

  Attributes:
    system: what was trained.
    variables: its (averaged) weights.
    options: of sampling.
    seconds: that the training took, if it was timed.
  """

  system: System
  variables: Vars
  options: Mapping[str, Any] = {}
  seconds: float = 0.0


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
  options: Mapping[str, Any] | None = None,
  watch: Callable[[int, step.TrainState], None] = lambda done, state: None,
  keep: pathlib.Path | None = None,
) -> Trained:
  """Trains an arm in memory.

  Args:
    system: to be trained.
    dataset: its training split is read.
    steps: updates.
    batch: examples of each.
    seed: of the run.
    lr: peak rate of AdamW, with a cosine to 0.
    ema: decay of the average.
    given: collections that are taken as they are (a frozen tokenizer).
    options: of sampling.
    watch: is given the updates done and the state, after each; what it takes
      is not counted.
    keep: a folder for the weights: an arm that was trained in the same way
      before is not trained again, so that a command that was stopped goes on.
      Nothing is watched then.

  Raises:
    FloatingPointError: the weights are not finite.
  """
  if keep is not None:
    way = kept.digest(system, dataset, given, (steps, batch, seed, lr, ema))
    path = keep / f"{type(system).__name__}-{seed}-{way[:12]}.pickle"
    if found := kept.load(path):
      return Trained(system, found[0], dict(options or {}), found[1])
  tx = optim.make({"lr": lr, "warmup": 0.05, "clip": 1.0}, steps)
  kind = step.Options(ema=ema)
  batches = data.batches(dataset.train, batch=batch, seed=seed)
  first = next(batches)
  init = jax.jit(functools.partial(step.init_state, system, tx, kind))
  # The state is donated, the given collections are not ours to give.
  copied = jax.tree.map(jax.numpy.copy, dict(given or {}))
  state = init(prng.key(seed), first, copied)
  key, begun = jax.random.key(seed), time.perf_counter()
  state, _ = step.jit_step(system.at(0), tx, kind, state, first, key)
  watched = 0.0
  for i in range(1, steps):
    of = system.at(i)
    state, _ = step.jit_step(of, tx, kind, state, next(batches), key)
    now = time.perf_counter()
    watch(i + 1, state)
    watched += time.perf_counter() - now
  jax.block_until_ready(state)
  seconds = time.perf_counter() - begun - watched
  if not all(map(_finite, jax.tree.leaves(state.variables["params"]))):
    name = type(system).__name__
    raise FloatingPointError(f"{name}: not finite after {steps} updates")
  variables = dict(state.variables)
  if state.ema is not None:
    variables["params"] = state.ema
  if keep is not None:
    kept.save(path, variables, seconds)
  return Trained(system, variables, dict(options or {}), seconds)


def _finite(x: Any) -> bool:
  return bool(jax.numpy.isfinite(x).all())


def after(own: Trained, dataset: data.Dataset, n: int) -> np.ndarray:
  """Images f32[n, H, W, c] after the conditions of the first test examples."""
  cond = conditions.truth(own.system, dataset, n, fields=own.system.needs)
  key = jax.random.key(0)
  return step.draw(*own[:2], cond, key, batch=n, options=own.options)["image"]


def resume(config, workdir: pathlib.Path, **options) -> Trained:
  """Trains the run of a config in its folder, as far as it is not yet, and
  loads it; with the config's options of sampling, some of them replaced."""
  training.run(config, workdir)
  return load(config, workdir, **options)


def load(config, workdir: pathlib.Path, **options) -> Trained:
  """What was trained in a folder, as the system of a config: the one that was
  trained, or another with the same variables."""
  system = build(config.system, **config.model.to_dict())
  known = config.sample.options.to_dict() | options
  return Trained(system, checkpoint.load(workdir)[0], known)


@dataclasses.dataclass(frozen=True)
class Results:
  """Figures of every arm and seed.

  Attributes:
    runs: name of the arm -> one dictionary of figures for each seed.
    trained: name -> the arm with the weights of the first seed.
  """

  runs: dict[str, list[dict[str, Any]]]
  trained: dict[str, Trained]

  def every(self, arm: str, key: str) -> list[float]:
    """A figure of an arm, of each seed; NaN where the arm has no such one."""
    return [run.get(key, math.nan) for run in self.runs[arm]]

  def array(self, arm: str, key: str) -> np.ndarray:
    """The same, to reckon with."""
    return np.array(self.every(arm, key))

  def mean(self, arm: str, key: str) -> float:
    return statistics.mean(self.every(arm, key))

  def spread(self, arm: str, key: str) -> float:
    return deviation(self.every(arm, key))

  def table(
    self,
    columns: Mapping[str, tuple[str, int]],
    title: str = "arm",
    **more: Mapping[str, Any],
  ) -> list[dict]:
    """A row for each arm.

    Args:
      columns: heading -> key of the figures and digits behind the point.
      title: heading of the names.
      **more: further columns, name of the arm -> cell.
    """
    rows = []
    for arm in self.runs:
      row = {title: arm}
      for heading, (key, digits) in columns.items():
        row[heading] = mean_spread(self.every(arm, key), digits)
      rows.append(row | {k: v.get(arm, "") for k, v in more.items()})
    return rows


def compare(
  arms: Mapping[str, Callable[[int], Trained]],
  measure: Callable[[Trained, int], dict[str, Any]],
  seeds: Sequence[int],
  together: Callable[[dict[str, Trained]], dict[str, dict]] | None = None,
) -> Results:
  """Trains and measures all arms over the seeds.

  Args:
    arms: name -> makes the arm of a seed.
    measure: its figures, by name.
    seeds: of the repetitions.
    together: more figures, name of the arm -> figures, of all arms of a seed
      at once: what is timed is timed in turns.
  """
  runs: dict[str, list[dict]] = {name: [] for name in arms}
  first: dict[str, Trained] = {}
  for seed in seeds:
    trained = {name: make(seed) for name, make in arms.items()}
    first = first or trained
    extra = together(trained) if together else {}
    for name, own in trained.items():
      found = measure(own, seed) | extra.get(name, {})
      runs[name].append(found)
      print(seed, name, _short(found), flush=True)
  return Results(runs, first)


def mean_spread(values: Sequence[float] | np.ndarray, digits: int = 2) -> str:
  """Mean and deviation over the seeds; nothing where a figure is missing."""
  values = np.asarray(values, float).tolist()
  if any(np.isnan(values)):
    return ""
  mean = statistics.mean(values)
  return f"{mean:.{digits}f} ± {deviation(values):.{digits}f}"


def deviation(values: Sequence[float]) -> float:
  """Over the seeds; 0 of a single one."""
  return statistics.stdev(values) if len(values) > 1 else 0.0


def said(held: Mapping[str, bool], why: str = "") -> bool | str:
  """What a record says of the parts of a claim: True, False, or which of them
  do not hold, and why."""
  failed = [name for name, holds in held.items() if not holds]
  if not failed:
    return True
  if len(failed) == len(held):
    return f"not here: {why}" if why else False
  why = why and f": {why}"
  return f"in part: {', '.join(failed)} does not hold{why}"


def _short(found: Mapping[str, Any]) -> dict[str, float]:
  return {k: round(v, 4) for k, v in found.items() if isinstance(v, float)}
