"""What experiments on scale-wise systems share: arms of equal budgets on one
data set, trained over several seeds and measured side by side.

An arm is a staged config: its tokenizer is trained once and serves every arm
that has the same one. The folder keeps every run, so a command that was
stopped goes on.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import statistics
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import checkpoint, data, evals, optim, sample, step, train
from ar_jax.core.system import System, Vars, build
from experiments.comparisons.next_token import mean_spread
from experiments.shared import record

SEEDS = (0, 1, 2)
KINDS = {
  "digits": "Digits at 16 px",
  "fashion16": "Fashion-MNIST at 16 px",
  "fashion": "Fashion-MNIST at 32 px",
  "emoji16": "Emoji at 16 px",
  "emoji": "Emoji at 32 px",
}
LARGE = ("fashion", "emoji")  # sizes of the presets named fashion
Loaded = dict[str, tuple[System, Vars, dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Arm:
  """A row of a table.

  Attributes:
    name: of the row.
    config: a module of configs with the presets `default` (digits) and
      `fashion`, in stages.
    stage: whose weights are measured.
    changes: of the staged config, by flattened key.
    options: of sampling, in place of the config's.
  """

  name: str
  config: ModuleType
  stage: str = "generator"
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def folder(self) -> str:
    """Arms of one name share their runs."""
    own = self.config.__name__.split(".")[-1]
    return "-".join([own, *map(str, self.changes.values())])


@dataclasses.dataclass(frozen=True)
class Budget:
  """What every arm gets.

  Attributes:
    root: where the runs are kept.
    steps: of every generator; a second stage takes half of them. Below 100
      it is a trial: one seed on digits, and nothing is recorded.
    kinds: data sets, of KINDS, with the folder of those of emoji (the npm
      package emoji-datasource-google); most experiments take the first.
    images: drawn for every distance, at most; as many again have to be real.
    batch: of sampling, where it is timed.
  """

  root: pathlib.Path
  steps: int
  kinds: Mapping[str, str]
  images: int = 1000
  batch: int = 16

  @property
  def short(self) -> bool:
    return self.steps < 100

  @property
  def kind(self) -> str:
    """The data of most experiments."""
    return next(iter(self.kinds))

  @property
  def seeds(self) -> tuple[int, ...]:
    return SEEDS[:1] if self.short else SEEDS


def budget(args: Sequence[str]) -> Budget:
  """From the command line: FOLDER [STEPS] [KIND...], the kinds of emoji with
  their folder (emoji=FOLDER)."""
  root, steps, *rest = (*args, "800")[: max(2, len(args))]
  kinds = dict(kind.partition("=")[::2] for kind in rest) or {"fashion": ""}
  for kind in kinds:
    if kind not in KINDS:
      raise SystemExit(f"{kind}: one of {', '.join(KINDS)} is to be named")
  root, steps = pathlib.Path(root).resolve(), int(steps)
  if steps < 100:
    return Budget(root, steps, {"digits": ""}, images=50, batch=4)
  return Budget(root, steps, kinds)


def configured(arm: Arm, kind: str, b: Budget):
  """The staged config of an arm on a data set of KINDS."""
  c = arm.config.get_config("fashion" if kind in LARGE else "default")
  names = [name for name in c.stages if "system" in c[name]]
  systems = [c[name] for name in names]
  if kind == "fashion16":  # the data are one object in all stages
    c.tokenizer.data.name = "fashion_mnist"
  if kind.startswith("emoji"):
    c.tokenizer.data.update(name="emoji", channels=3, path=b.kinds[kind])
    classes = data.load(**c.tokenizer.data).num_classes
    for s in systems:
      codes = s.model if s is c.tokenizer else s.model.tokenizer
      codes.in_channels = 3
      if s is not c.tokenizer:
        s.model.num_classes = classes
  for name, s in zip(names, systems, strict=True):
    own = {"tokenizer": s.train.steps, "generator": b.steps}
    s.train.steps = own.get(name, b.steps // 2)
    if b.short:
      s.train.steps = min(s.train.steps, b.steps)
    s.train.save_every = s.train.steps
  c.update_from_flattened_dict(dict(arm.changes))
  return c


def tokenizer(c, kind: str, b: Budget) -> pathlib.Path:
  """The folder of the tokenizer of a staged config, trained."""
  model = json.dumps(c.tokenizer.model.to_dict(), sort_keys=True)
  name = f"{c.tokenizer.system}-{zlib.crc32(model.encode()):08x}"
  folder = b.root / kind / name
  train.run(c.tokenizer, folder)
  return folder


def prepare(arm: Arm, kind: str, seed: int, b: Budget):
  """Trains what is not yet trained; the config and the folder of the stage
  that the arm measures."""
  c = configured(arm, kind, b)
  codes = tokenizer(c, kind, b)
  runs = b.root / kind / f"{arm.folder}-{seed}"
  for name in c.stages[1:]:
    own, units = c[name].copy_and_resolve_references(), runs / name / "units"
    own.seed = seed
    for collection, source in own.weights.items():
      place = codes if source == "tokenizer" else runs / source
      own.weights[collection] = str(place)
    # A second stage has more than the tokenizer frozen, so units of its own.
    shared = codes.with_name(f"units-{name}-{codes.name}")
    units.parent.mkdir(parents=True, exist_ok=True)
    first = name == "generator"
    if first and shared.exists() and not units.exists():
      units.symlink_to(shared.resolve())
    train.run(own, runs / name)
    if first and not shared.exists():
      shared.symlink_to(units.resolve())
    if name == arm.stage:
      return own, runs / name
  raise ValueError(f"{arm.name}: no stage {arm.stage}")


def load(arm: Arm, kind: str, seed: int, b: Budget):
  """(system, variables, options of sampling) of a trained arm."""
  config, workdir = prepare(arm, kind, seed, b)
  system = build(config.system, **config.model.to_dict())
  options = config.sample.options.to_dict() | dict(arm.options)
  return system, checkpoint.load(workdir)[0], options


def quality(
  loaded: tuple, dataset: data.Dataset, seed: int, b: Budget
) -> dict[str, float]:
  """Nats per unit of test images, distance and accuracy of samples."""
  system, variables, options = loaded
  key = jax.random.key(seed)
  batches = data.epoch(dataset.test, batch=500)
  found = evals.build("likelihood", dataset)(system, variables, batches, key)
  result = {"nats": found["nll"] / len(system.plan)} | found
  # A floor wants as many real images again.
  most = (len(dataset.train) + len(dataset.test)) // 2
  for name in ("frechet", "judge_accuracy"):
    n = min(max(b.images, dataset.num_classes), most)
    judge = evals.build(name, dataset, n=n, options=options)
    result |= judge(system, variables, (), key)
  return {k: v for k, v in result.items() if isinstance(v, float)}


def forwards(system: System, options: Mapping[str, Any]) -> int:
  """Passes of the network for one image."""
  if hasattr(system, "forwards"):
    return system.forwards(**options)
  return system.plan.steps


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
    jax.block_until_ready(metrics)

  return run, update.memory_analysis().temp_size_in_bytes / 2**20


def _draw(system, variables, options, batch: int) -> tuple[Callable, float]:
  """One batch of samples, and the MiB that it takes beside the weights."""
  cond = {"label": jnp.arange(batch) % system.classes}
  args = variables, cond, jax.random.split(jax.random.key(0), batch)
  static = tuple(sorted(options.items()))
  draw = step.jit_draw.lower(system, *args, static).compile()
  run = lambda: jax.block_until_ready(draw(*args))
  return run, draw.memory_analysis().temp_size_in_bytes / 2**20


def costs(
  loaded: Loaded,
  images: Mapping[str, np.ndarray],
  batch: int,
  turns: int = 5,
) -> dict[str, dict[str, float]]:
  """name -> medians of seconds of an update and of a batch of samples, all arms
  in turns, and the memory of both.

  Args:
    loaded: name -> system, variables, options of sampling.
    images: the batch of an update: images, or units.
    batch: of sampling.
    turns: timed calls of each.
  """
  runs, result = {}, {name: {} for name in loaded}
  for name, (system, variables, options) in loaded.items():
    known = jax.jit(system.encode)(variables, images)
    for what, (run, mib) in {
      "update": _update(system, variables, known),
      "draw": _draw(system, variables, options, batch),
    }.items():
      run()
      runs[name, what] = run, []
      result[name][f"{what} MiB"] = mib
  for _ in range(turns):
    for run, seconds in runs.values():
      begun = time.perf_counter()
      run()
      seconds.append(time.perf_counter() - begun)
  for (name, what), (_, seconds) in runs.items():
    result[name][what] = statistics.median(seconds)
  return result


def compare(
  arms: Sequence[Arm], kind: str, b: Budget
) -> tuple[list[dict], dict[str, list[dict]], np.ndarray]:
  """All arms on one data set.

  Returns:
    A row of a table for each arm; name -> figures of every seed; and a picture
    with a row of ten samples for each.
  """
  config = configured(arms[0], kind, b).generator
  dataset = data.load(**config.data)
  results, pictures = {arm.name: [] for arm in arms}, []
  for seed in b.seeds:
    loaded = {arm.name: load(arm, kind, seed, b) for arm in arms}
    images = data.batch_at(dataset.train, 0, batch=config.batch, seed=seed)
    spent = costs(loaded, images, b.batch, 1 if b.short else 5)
    for name, own in loaded.items():
      found = quality(own, dataset, seed, b) | spent[name]
      results[name].append(found)
      print(kind, seed, name, found, flush=True)
      if seed == b.seeds[0]:
        pictures.append(_samples(own))
  rows = []
  for arm in arms:
    every = functools.partial(_every, results[arm.name])
    system, _, options = loaded[arm.name]
    rows.append(
      {
        "data": kind,
        "system": arm.name,
        "units": len(system.plan),
        "nats per unit": mean_spread(every("nats"), 3),
        "Frechet distance": mean_spread(every("frechet")),
        "judge accuracy": mean_spread(every("judge_accuracy"), 3),
        "forwards": forwards(system, options),
        "images/s": mean_spread([b.batch / x for x in every("draw")], 1),
        "update, ms": mean_spread([1e3 * x for x in every("update")], 1),
        "update, MiB": mean_spread(every("update MiB"), 0),
        "sampling, MiB": mean_spread(every("draw MiB"), 1),
      }
    )
  floor = results[arms[0].name][0]
  rows.append(
    dict.fromkeys(rows[0], "")
    | {
      "data": kind,
      "system": "test images",
      "Frechet distance": f"{floor['frechet_floor']:.2f}",
      "judge accuracy": f"{floor['judge_test_accuracy']:.3f}",
    }
  )
  return rows, results, np.concatenate(pictures)


def _every(results: list[dict], key: str) -> list[float]:
  return [r[key] for r in results]


def _samples(loaded: tuple) -> np.ndarray:
  """u8[10, H, W, c], a sample of each of the first ten classes."""
  system, variables, options = loaded
  label = np.arange(10, dtype=np.int32) % system.classes
  draw = functools.partial(step.draw, batch=10, options=options)
  images = draw(system, variables, {"label": label}, jax.random.key(0))
  return sample.to_uint8(images)


def mean(results: list[dict], key: str) -> float:
  """Over the seeds."""
  return statistics.mean(_every(results, key))


def picture(name: str, images: np.ndarray) -> str:
  """Saves a grid of ten columns beside the results; its file name."""
  sheet = sample.grid(images, 10)
  sample.save_png(record.RESULTS / f"{name}.png", sheet, 2)
  return f"{name}.png"
