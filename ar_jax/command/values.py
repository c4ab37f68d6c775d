"""What the keys of a config may be, each by itself, and its evaluators."""

from __future__ import annotations

import difflib
import logging
import pathlib
from typing import Any

import jax
import ml_collections

from ar_jax import data, evals, optim, parallel
from ar_jax.core.system import UserError
from ar_jax.data.images.transforms import augmentation
from ar_jax.evals.images import features

Config = ml_collections.ConfigDict
log = logging.getLogger("ar_jax")

# The least that a key may be; 0 often means never, or at the end alone.
LEAST = {
  "batch": 1,
  "eval_batch": 1,
  "seed": 0,
  "cache.views": 0,
  "loader.workers": 0,
  "loader.prefetch": 0,
  "optim.lr": 0,
  "optim.warmup": 0,
  "optim.weight_decay": 0,
  "optim.clip": 0,
  "train.steps": 0,
  "train.ema": 0,
  "train.accumulate": 1,
  "train.log_every": 0,
  "train.save_every": 0,
  "train.keep": 1,
  "train.best": 0,
  "train.sample_every": -1,
  "train.sample_count": 1,
  "train.eval_every": 0,
  "sample.count": 1,
  "sample.batch": 1,
  "sample.seed": 0,
  "sample.columns": 1,
  "sample.scale": 1,
}
CHOICES = {
  "parallel": ("jit", "pmap"),
  "train.best_is": ("lowest", "highest"),
  "sample.edit.keep": ("outside", "inside"),
}
DTYPES = ("float32", "bfloat16", "float16")
_SHORT = {
  "bf16": "bfloat16",
  "fp16": "float16",
  "half": "float16",
  "f32": "float32",
  "fp32": "float32",
  "float": "float32",
}


def check_values(config: Config) -> None:
  """Checks what each key of a config may be by itself.

  Raises:
    UserError: one may not.
  """
  for name, least in LEAST.items():
    value = _at(config, name)
    if value < least:
      why = ""
      if name == "train.keep":
        why = ", for the run to resume from"
      raise UserError(f"{name}={value}: must be at least {least}{why}")
  for name in ("seed", "sample.seed"):
    if _at(config, name) >= 2**32:
      raise UserError(f"{name}={_at(config, name)}: must be below 2**32")
  if config.train.ema >= 1:
    raise UserError(f"train.ema={config.train.ema}: must be below 1")
  edits = "edit" in config.sample  # of images alone
  for name, known in CHOICES.items():
    if name.startswith("sample.edit.") and not edits:
      continue
    value = _at(config, name)
    if value not in known:
      raise UserError(
        f"{name}={value!r}: {_meant(value, known)}must be "
        f"{' or '.join(map(repr, known))}"
      )
  _dtypes("model", config.model)
  which = str(config.checkpoint)
  if which not in ("newest", "best") and not which.isdigit():
    raise UserError(
      f"checkpoint={which}: must be newest, best or the number of a step"
    )
  augmentation(*config.augment)
  optim.make(config.optim.to_dict(), config.train.steps)
  if edits:
    _edit(config.sample.edit)
  _best(config)


def _at(config: Config, name: str) -> Any:
  value = config
  for part in name.split("."):
    if part not in value:
      raise UserError(
        f"{name}: the config has no such key; start from configs.common.base"
      )
    value = value[part]
  return value


def _meant(value: Any, known) -> str:
  close = difflib.get_close_matches(str(value), known, n=1)
  return f"did you mean {close[0]}? " if close else ""


def _dtypes(group: str, model: Config) -> None:
  for name, value in model.items():
    if isinstance(value, Config):
      _dtypes(f"{group}.{name}", value)
    elif name == "dtype" and value not in DTYPES:
      say = _SHORT.get(value) or " or ".join(DTYPES)
      raise UserError(f"{group}.dtype={value}: say {say}")


def _edit(edit: Config) -> None:
  if not edit.image and (edit.mask or len(edit.box)):
    raise UserError(
      "sample.edit: a mask or a box without an image; set sample.edit.image, "
      "to a file or to 'test'"
    )
  if edit.mask and len(edit.box):
    raise UserError("sample.edit: a mask and a box; give one of them")
  if len(edit.box):
    box = edit.box
    numbers = all(isinstance(x, int | float) for x in box)
    if len(box) != 4 or not numbers or not all(0 <= x <= 1 for x in box):
      raise UserError(
        f"sample.edit.box={tuple(box)}: must be (top, left, bottom, right), "
        "each a share of the side, from 0 to 1"
      )
  for name in ("image", "mask"):
    file = edit[name]
    if file and file != "test" and not pathlib.Path(file).is_file():
      raise UserError(f"sample.edit.{name}={file}: no such file")


def _best(config: Config) -> None:
  train = config.train
  if train.best and train.best_by.startswith("eval/") and not train.eval_every:
    raise UserError(
      f"train.best_by={train.best_by}: nothing is evaluated while training; "
      "set train.eval_every, best to train.save_every"
    )


def accumulate(config: Config, mesh: jax.sharding.Mesh) -> None:
  """Raises UserError unless a batch divides into its parts over the mesh."""
  parts, ways = config.train.accumulate, parallel.ways(mesh)
  if config.batch % (parts * ways):
    raise UserError(
      f"batch={config.batch}: does not divide into train.accumulate={parts} "
      f"parts over {ways} data-parallel devices; choose a multiple of "
      f"{parts * ways}"
    )


def evaluators(config: Config, dataset: data.Dataset) -> None:
  """Checks the evaluators of a config by their names, options and numbers;
  lowers the numbers that the data cannot serve.

  Raises:
    UserError: there is no such evaluator or option, or too few images.
  """
  train, test = len(dataset.train), len(dataset.test)
  for name, options in config.evals.items():
    kind = options.get("kind", name)
    evals.check_name(kind)
    known = evals.arguments(kind)
    for option in options:
      if option != "kind" and not known.takes(option):
        raise UserError(
          f"evals.{name}.{option}: no option of {kind}; "
          f"{_meant(option, list(known))}there are {', '.join(known)}"
        )
    for option in ("n", "batch", "repeats", "k"):
      if option in known and options.get(option, 1) < (option != "n"):
        raise UserError(
          f"evals.{name}.{option}={options[option]}: must be at least "
          f"{int(option != 'n')}"
        )
    if "features" in known:
      chosen = options.get("features", known["features"].default)
      files = options.get("network", options)
      try:
        features.check(chosen, files.get("path", ""))
      except UserError as e:
        raise UserError(f"evals.{name}: {e}") from e
    published = isinstance(options.get("reference", 0), str)
    if "reference" in known and not published:
      # As many training images as samples are the reference, and as many
      # others the floor.
      most = min(train, (train + test) // 2)
      option = "reference" if options.get("reference", 0) else "n"
      if options.get(option, 0) > train:
        _lower(config, name, option, most, dataset)
    if "k" in known and not published:
      k = options.get("k", known["k"].default)
      there = test if "n" not in known else min(train, test)
      if (options.get("n", 0) or there) <= k:
        raise UserError(
          f"evals.{name}: {dataset.name} has {train} + {test} images, too few "
          f"for precision and recall with k={k}; give more, or set "
          f"evals.{name}.k={max(1, min(train, test) - 1)}"
        )


def _lower(config, name: str, option: str, most: int, dataset) -> None:
  log.info(
    "evals.%s.%s=%d: %s has %d + %d images; taken as %d",
    name, option, config.evals[name][option], dataset.name,
    len(dataset.train), len(dataset.test), most,
  )  # fmt: skip
  config.evals[name][option] = most
