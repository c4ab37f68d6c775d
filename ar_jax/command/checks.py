"""All that can be checked before the first step is checked before it.

Of every stage of a run: values, sizes, classes, options, evaluators, files.
What is wrong is one line with the name of the stage; an evaluator that asks
for more images than the data have is given fewer, and that is said.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from ar_jax import (
  checkpoint,
  data,
  evals,
  own,
  parallel,
  run_files,
  sample,
  step,
)
from ar_jax.command import overrides
from ar_jax.command.values import accumulate, check_values, evaluators
from ar_jax.conditions import TEXTS, labels_of, prompted
from ar_jax.core import forms, json_text, trees
from ar_jax.core.system import System, UserError, build
from ar_jax.own import prompts, voices
from ar_jax.tokenizers.given import Tokens

log = logging.getLogger("ar_jax")
Config = ml_collections.ConfigDict


@dataclasses.dataclass
class Stage:
  """A part of a run.

  Attributes:
    name: "" where a run has no stages.
    does: a mode of the command line.
    config: of the system; a check may change it.
    workdir: of the run that it trains, or draws from.
    out: where its results go.
  """

  name: str
  does: str
  config: Config
  workdir: pathlib.Path
  out: pathlib.Path


def ahead(stages: list[Stage]) -> None:
  """Checks every stage of a run; changes evaluators that ask for too much.

  Raises:
    UserError: something is wrong, in one line.
  """
  for stage in stages:
    with _named(stage):
      check_values(stage.config)
  datasets: dict[str, data.Dataset] = {}
  shapes: dict[str, tuple[System, Any, Any]] = {}
  for stage in stages:
    with _named(stage):
      _stage(stage, stages, datasets, shapes)


@contextlib.contextmanager
def _named(stage: Stage):
  try:
    yield
  except UserError as e:
    before = f"stage {stage.name}: " if stage.name else ""
    raise UserError(before + " ".join(str(e).split())) from e


def _stage(
  stage: Stage,
  stages: list[Stage],
  datasets: dict[str, data.Dataset],
  shapes: dict[str, tuple[System, Any, Any]],
) -> None:
  config, trains = stage.config, stage.does == "train"
  system = _system(config)
  if stage.does == "compile":
    return
  mesh = parallel.make_mesh(config.mesh)
  if trains:
    parallel.rows(mesh, config.batch)
    accumulate(config, mesh)
    resumed(stage)
  own.check(system, config)
  needed = stage.does != "sample" or _reads(system, config)
  if needed and "data" not in config:
    raise UserError(
      f"{stage.workdir}: a converted model knows no data set; name a --config "
      "that has one"
    )
  settings = json.dumps(json_text.plain(config.get("data")), sort_keys=True)
  dataset = datasets.get(settings)
  if dataset is None and needed:
    dataset = datasets[settings] = data.load(**config.data)
  if dataset is None:  # the run knows what it must
    known = run_files.Known(stage.workdir, config, system)
    _labels(config, known, system)
    _prompt(config, known, system)
  else:
    classes(stage, system, dataset)
    symbols(stage, system, dataset)
    _labels(config, dataset, system)
    _prompt(config, dataset, system)
    alike = not config.augment and not system.redraws
    if trains and config.cache.views > 0 and alike:
      check_views(config, dataset)
  alone = trains and (config.train.eval_every or not stage.name)
  if stage.does == "eval" or alone:
    evaluators(config, dataset)
    for name, options in config.evals.items():
      evals.check_system(options.get("kind", name), options, system)
  if not any(s.does == "train" for s in stages) or len(stages) == 1:
    return  # what follows, the stage itself meets before its first step
  _shapes(stage, stages, system, dataset, shapes)


def _system(config: Config) -> System:
  try:
    system = build(config.system, **config.model.to_dict())
  except UserError as e:
    # An argument that there is not is said with the one that was meant.
    raise UserError(next(overrides.misfits(config), str(e))) from e
  for line in overrides.misfits(config):
    if not line.startswith("model."):
      raise UserError(line)
  return system


def _reads(system: System, config: Config) -> bool:
  """Whether samples are made of examples of the data."""
  said = {"label"} | own.fields(system, config)
  if config.sample.get("prompt"):
    said.update(TEXTS)
  return not set(system.needs) <= said or _edits(config) == "test"


def _edits(config: Config) -> str:
  """The image that sampling edits; "" for none."""
  return config.sample.edit.image if "edit" in config.sample else ""


def symbols(stage: Stage, system: System, dataset: data.Dataset) -> None:
  """Checks that a model of text has the symbols of the data.

  Raises:
    UserError: it has fewer or more.
  """
  tokenizer = getattr(system, "tokenizer", None)
  if not isinstance(tokenizer, Tokens):
    return
  form = dataset.forms.get(tokenizer.field)
  if not isinstance(form, forms.Text) or form.vocab == tokenizer.vocab:
    return
  first = stage.workdir.name + "." if stage.name else ""
  raise UserError(
    f"{dataset.name} has {form.vocab} symbols, the model {tokenizer.vocab}; "
    f"set --config.{first}model.tokenizer.vocab={form.vocab}"
  )


def classes(stage: Stage, system: System, dataset: data.Dataset) -> None:
  """Checks that a model has the classes of the data.

  Raises:
    UserError: it has fewer or more.
  """
  if system.classes in (None, dataset.num_classes):
    return
  first = stage.workdir.name + "." if stage.name else ""
  key = next(
    (k for k in _flat(json_text.plain(stage.config.model), "model.")
     if k.endswith(".num_classes")),
    "model.num_classes",
  )  # fmt: skip
  raise UserError(
    f"{dataset.name} has {dataset.num_classes} classes, the model has "
    f"{system.classes}; set --config.{first}{key}={dataset.num_classes}"
  )


def _labels(config: Config, dataset, system: System) -> None:
  if len(config.sample.labels) and "label" in system.needs:
    chosen = sample.numbers(config.sample.labels, dataset)
    labels_of(system, dataset, 1, chosen)


def _prompt(config: Config, dataset, system: System) -> None:
  """Checks that what samples are asked for by can be read."""
  if config.get("sample", {}).get("prompt"):
    prompted(system, dataset, 1, config.sample.prompt)
  for kind in (prompts, voices):
    if kind.given(config):
      kind.asked(system, dataset, 1, config)


def check_views(config: Config, dataset: data.Dataset) -> None:
  """Refuses several views of each example that are all alike, and says of what
  a single one shows no more than one."""
  view = lambda seed, i: data.dataset.draw(
    dataset.train, i, np.random.default_rng(seed)
  )
  differ: dict[str, None] = {}
  for i in range(min(3, len(dataset.train))):
    one, other = view(0, i), view(1, i)
    differ |= {k: None for k in one if np.any(one[k] != other[k])}
  if config.cache.views == 1:
    if differ:
      log.info(
        "cache.views=1: training always sees the same %s of an example; a "
        "larger cache.views stores several",
        ", ".join(differ),
      )
  elif not differ:
    raise UserError(
      f"cache.views={config.cache.views}: nothing makes the views of an "
      "example differ; set augment=flip (or data.crop=random), or cache.views=1"
    )


# What a run may not change once it has begun.
_FIXED = ("system", "model", "data")
# These say how, or where, not what.
_FREE = ("remat", "impl", "dtype")


def resumed(stage: Stage) -> None:
  """Compares a config with that of the run which it would go on with. What
  else has changed, `train` says.

  Raises:
    UserError: it is another system, another model or other data.
  """
  meta = checkpoint.read_meta(stage.workdir)
  if not meta:
    return
  old = _flat(meta["config"])
  new = _flat(json_text.plain(stage.config))
  # A converted run knows only what its weights tell.
  names = old.keys() | new.keys() if "train" in meta["config"] else old.keys()
  changed = [k for k in sorted(names) if old.get(k) != new.get(k)]
  said = lambda rows, k: f"{k}={rows[k]}" if k in rows else f"no {k}"
  fixed = [k for first in _FIXED for k in changed if k.split(".")[0] == first]
  for key in fixed:
    if key.split(".")[-1] not in _FREE and key != "data.path":
      raise UserError(
        f"{stage.workdir}: holds a run with {said(old, key)}, this config has "
        f"{said(new, key)}; choose another --workdir, or continue it with its "
        "own config"
      )


def _flat(value: dict, before: str = "") -> dict[str, Any]:
  found = {}
  for name, inner in value.items():
    if isinstance(inner, dict):
      found |= _flat(inner, f"{before}{name}.")
    else:
      found[before + name] = inner
  return found


# By value, so that a system that was traced once is known.
_init = jax.jit(lambda system, *args: system.init(*args), static_argnums=0)
_loss = jax.jit(
  lambda system, *args: system.loss(*args, train=True), static_argnums=0
)
_encode = jax.jit(lambda s, *args: s.encode(*args), static_argnums=0)


def _shapes(stage, stages, system, dataset, shapes) -> None:
  """Traces what later stages will run, without running it."""
  config, first = stage.config, stage is stages[0]
  if stage.does != "train":
    trained = shapes.get(str(stage.workdir))
    if stage.does == "sample" and trained:
      _trace_sample(config, system, trained[1], trained[2])
    return
  rows = data.batch_at(dataset.train, 0, batch=1, seed=config.seed)
  batch = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in rows.items()}
  key = jax.eval_shape(lambda: jax.random.key(0))
  variables = _init.eval_shape(system, key, batch)
  shapes[str(stage.workdir)] = system, variables, rows
  for collection, source in config.weights.items():
    _weights(system, collection, source, variables, shapes)
  if first:
    return  # its first step is the next thing that happens
  if config.cache.views:
    batch = _encode.eval_shape(system, variables, batch)
  _loss.eval_shape(system, variables, batch, key)


def _trace_sample(config, system, variables, rows) -> None:
  if _edits(config) or own.given(config):
    return  # the given image has a size of its own
  cond = {k: rows[k] for k in system.needs if k in rows}
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
  options = tuple(sorted(config.sample.options.to_dict().items()))
  step.jit_draw.eval_shape(system, variables, cond, keys, options)


def _weights(system, collection, source, variables, shapes) -> None:
  if collection not in variables:
    raise UserError(
      f"weights.{collection}: the model has no such collection; it has "
      f"{', '.join(variables)}"
    )
  if source in shapes:
    run = shapes[source][1]
  else:
    run = _stored(collection, source)
  loaded = run["params"]
  if collection != "params":
    loaded = loaded.get(collection, run.get(collection, loaded))
  loaded = jax.eval_shape(lambda x: system.adopt(collection, x), loaded)
  differs = trees.mismatch(variables[collection], loaded)
  if differs:
    raise UserError(f"weights.{collection}={source}: another model: {differs}")


def _stored(collection: str, source: str) -> Any:
  """The shapes of another run."""
  folder = pathlib.Path(source).expanduser()
  if not (folder / "checkpoints").is_dir():
    raise UserError(
      f"weights.{collection}={source}: no checkpoints there; train it first, "
      "or convert published weights with python -m ar_jax.convert"
    )
  found = checkpoint.Checkpoints(folder, read_only=True)
  steps = found.steps()
  if not steps:
    raise UserError(f"weights.{collection}={source}: no complete step there")
  return found.tree(steps[-1], "variables")
