"""Arms of scale-wise systems: staged configs of equal budgets on one data set.

A tokenizer is trained once and serves every arm that has the same one.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ar_jax import data, train
from experiments.shared import arms, measures
from experiments.shared.arms import Results, Settings, Trained

KINDS = {
  "fashion": "Fashion-MNIST at 32 px",
  "digits": "Digits at 16 px",
  "fashion16": "Fashion-MNIST at 16 px",
  "emoji16": "Emoji at 16 px",
  "emoji": "Emoji at 32 px",
}
LARGE = ("fashion", "emoji")  # sizes of the presets named fashion
STEPS = 800
IMAGES, BATCH = 1000, 16  # of a distance, at most; of a draw that is timed
COLUMNS = {
  "nats per unit": ("nats", 3),
  "Frechet distance": ("frechet", 2),
  "judge accuracy": ("judge_accuracy", 3),
  "images/s": ("images/s", 1),
  "update, ms": ("update, ms", 1),
  "update, MiB": ("update MiB", 0),
  "sampling, MiB": ("draw MiB", 1),
}


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


def settings(name: str, several: bool = False) -> Settings:
  """From the command line: [FOLDER] [KIND...], the kinds of emoji with the
  folder of the npm package (emoji=FOLDER). A trial is of digits."""
  s = arms.settings(name, steps=STEPS, words=tuple(KINDS), several=several)
  return dataclasses.replace(s, words=("digits",)) if s.short else s


def title(s: Settings) -> str:
  """Of the table of a record."""
  return f"{KINDS[kind_of(s.word)]}, {s.steps} steps, mean ± deviation"


def kind_of(word: str) -> str:
  return word.partition("=")[0]


def configured(arm: Arm, word: str, s: Settings):
  """The staged config of an arm on a data set of KINDS."""
  kind, _, path = word.partition("=")
  c = arm.config.get_config("fashion" if kind in LARGE else "default")
  names = [name for name in c.stages if "system" in c[name]]
  systems = [c[name] for name in names]
  if kind == "fashion16":  # the data are one object in all stages
    c.tokenizer.data.name = "fashion_mnist"
  if kind.startswith("emoji"):
    c.tokenizer.data.update(name="emoji", channels=3, path=path)
    classes = data.load(**c.tokenizer.data).num_classes
    for own in systems:
      codes = own.model if own is c.tokenizer else own.model.tokenizer
      codes.in_channels = 3
      if own is not c.tokenizer:
        own.model.num_classes = classes
  for name, own in zip(names, systems, strict=True):
    steps = {"tokenizer": own.train.steps, "generator": s.steps}
    # A second stage takes half the steps.
    own.train.steps = steps.get(name, max(1, s.steps // 2))
    if s.short:
      own.train.steps = min(own.train.steps, s.steps)
    own.train.save_every = own.train.steps
    if name != "tokenizer":
      own.train.sample_every = -1  # only what is measured is drawn
  c.update_from_flattened_dict(dict(arm.changes))
  return c


def tokenizer(c, word: str, s: Settings) -> pathlib.Path:
  """The folder of the tokenizer of a staged config, trained."""
  model = json.dumps(c.tokenizer.model.to_dict(), sort_keys=True)
  name = f"{c.tokenizer.system}-{zlib.crc32(model.encode()):08x}"
  folder = s.folder / kind_of(word) / name
  train.run(c.tokenizer, folder)
  return folder


def prepare(arm: Arm, word: str, seed: int, s: Settings):
  """Trains what is not yet trained; the config and the folder of the stage
  that the arm measures."""
  c = configured(arm, word, s)
  codes = tokenizer(c, word, s)
  runs = s.folder / kind_of(word) / f"{arm.folder}-{seed}"
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


def makers(
  rows: Sequence[Arm], word: str, s: Settings
) -> dict[str, Callable[[int], Trained]]:
  """The arms as `arms.compare` takes them."""

  def make(seed: int, arm: Arm) -> Trained:
    config, workdir = prepare(arm, word, seed, s)
    return arms.resume(config, workdir, **arm.options)

  return {arm.name: functools.partial(make, arm=arm) for arm in rows}


def measured(dataset: data.Dataset, s: Settings):
  """Nats per unit of test images, distance and accuracy of samples."""
  # A floor wants as many real images again.
  most = (len(dataset.train) + len(dataset.test)) // 2
  n = min(max(s.fewer(IMAGES, 50), dataset.num_classes), most)

  def measure(own: Trained, seed: int) -> dict[str, float]:
    images = measures.sampled(own, dataset, seed=seed, n=n)
    return measures.likelihood(own, dataset) | measures.quality(images, dataset)

  return measure


def compare(
  rows: Sequence[Arm], word: str, s: Settings
) -> tuple[list[dict], Results, data.Dataset]:
  """All arms on one data set: a table, the figures, and the data."""
  config = configured(rows[0], word, s).generator
  dataset = data.load(**config.data)
  images = data.batch_at(dataset.train, 0, batch=config.batch, seed=0)
  batch = s.fewer(BATCH, 4)

  def together(trained: dict[str, Trained]) -> dict[str, dict]:
    spent = measures.costs(trained, images, batch, 1 if s.short else 5)
    for own in spent.values():
      own["images/s"] = batch / own["draw"]
      own["update, ms"] = 1e3 * own["update"]
    return spent

  found = arms.compare(
    makers(rows, word, s), measured(dataset, s), s.seeds, together
  )
  every = found.trained.items()
  table = found.table(
    COLUMNS,
    "system",
    data={arm.name: kind_of(word) for arm in rows},
    units={name: len(own.system.plan) for name, own in every},
    forwards={
      name: measures.forwards(own.system, own.options) for name, own in every
    },
  )
  floor = found.runs[rows[0].name][0]
  table.append(
    dict.fromkeys(table[0], "")
    | {
      "data": kind_of(word),
      "system": "test images",
      "Frechet distance": f"{floor['frechet_floor']:.2f}",
      "judge accuracy": f"{floor['judge_test_accuracy']:.3f}",
    }
  )
  return table, found, dataset


def samples(found: Results) -> dict[str, np.ndarray]:
  """Name of the arm -> a sample of each of the first ten classes."""
  return {k: measures.row_of_classes(own) for k, own in found.trained.items()}
