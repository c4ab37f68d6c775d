"""What a run keeps of its config and data, so that it can be used alone.

  config.json   the config, of a run with stages that of every stage
  data.json     name, classes and class names of the data, and the shapes and
                forms of an example: what a model must know of them to draw

A converted checkpoint has neither; then its system says what it can.
"""

from __future__ import annotations

import functools
import importlib
import json
import pathlib
from typing import Any

import ml_collections
import numpy as np

from ar_jax import checkpoint, data, metrics
from ar_jax.command import presets
from ar_jax.core import forms
from ar_jax.core.system import System, UserError
from ar_jax.own import readings

Config = ml_collections.ConfigDict


def restored(value: Any) -> Any:
  """A config from JSON, its lists as tuples again."""
  if isinstance(value, dict):
    return {k: restored(v) for k, v in value.items()}
  if isinstance(value, list):
    return tuple(restored(v) for v in value)
  return value


def write_config(workdir: pathlib.Path, config: Config) -> None:
  metrics.write_json(workdir / "config.json", config.to_dict())


def write_data(workdir: pathlib.Path, dataset: data.Dataset) -> None:
  """Stores what a model must know of its data."""
  metrics.write_json(workdir / "data.json", _facts(dataset))


def _facts(dataset: data.Dataset) -> dict[str, Any]:
  example = dataset.train[0]
  arrays = {k: np.asarray(v) for k, v in example.items()}
  return {
    "name": dataset.name,
    "num_classes": dataset.num_classes,
    "class_names": list(dataset.class_names),
    "fields": {
      k: {"shape": list(v.shape), "dtype": str(v.dtype)}
      for k, v in arrays.items()
    },
    "forms": {k: forms.described(form) for k, form in dataset.forms.items()},
    "train": len(dataset.train),
    "test": len(dataset.test),
  }


class Known:
  """The data of a run, as far as the run itself knows them.

  It stands where a `Dataset` is asked for; the examples are read when one of
  the sources is first asked for.

  Attributes:
    name: of the data set.
    num_classes: labels lie in [0, num_classes).
    class_names: one name per class.
    fields: name -> (shape, dtype) of an example.
    forms: name -> form; as of a `Dataset`.

  Args:
    workdir: of the run.
    config: of the run; its `data` is what is loaded, if need be.
    system: of the run.
  """

  def __init__(self, workdir: pathlib.Path, config: Config, system: System):
    self._config = config
    facts = _read(pathlib.Path(workdir) / "data.json")
    if facts is None:
      facts = _said_by(system, config)
      if facts is None:
        facts = _facts(self._loaded)
    self.name, self.num_classes = facts["name"], facts["num_classes"]
    self.class_names = tuple(facts["class_names"])
    self.fields = {
      k: (tuple(v["shape"]), v["dtype"]) for k, v in facts["fields"].items()
    }
    # Runs that say nothing are older, and of images.
    said = facts.get("forms", {"image": {"form": "image"}})
    self.forms = {k: forms.made(description) for k, description in said.items()}

  @functools.cached_property
  def _loaded(self) -> data.Dataset:
    if "data" not in self._config:
      raise UserError(
        "this run knows no data set: it was converted; give the conditions, "
        "or name a --config that has data"
      )
    return data.load(**self._config.data)

  @property
  def train(self) -> data.dataset.Source:
    return self._loaded.train

  @property
  def test(self) -> data.dataset.Source:
    return self._loaded.test

  def example(self) -> dict[str, np.ndarray]:
    """A batch of one example of zeros."""
    rows = {
      k: np.zeros((1, *shape), dtype)
      for k, (shape, dtype) in self.fields.items()
    }
    return {**rows, "index": np.zeros(1, np.int32)}


def _read(path: pathlib.Path) -> Any:
  try:
    return json.loads(path.read_text())
  except OSError:
    return None
  except ValueError as e:
    raise UserError(
      f"{path}: damaged; remove it, the next training run writes it anew"
    ) from e


def of_images(config: Config) -> bool:
  """Whether the data of a config are images of its size and channels, which
  need not be read to know their shape."""
  module, _ = data.sources.LOADERS.get(config.data.name, ("images.", ""))
  return module.startswith(("images.", "wrap.")) and "size" in config.data


def _said_by(system: System, config: Config) -> dict[str, Any] | None:
  """What a system without a `data.json` knows of its data, which are images;
  None where they are not."""
  while hasattr(system, "target"):
    system = system.target
  if readings.field(system) is not None:
    return readings.facts(system)
  if "data" in config:
    if not of_images(config):
      return None
    size, channels = config.data.size, config.data.get("channels", 3)
    name = config.data.name
  else:
    net = getattr(system, "tokenizer", system)
    size, channels = getattr(net, "size", 0), getattr(net, "in_channels", 3)
    name = "the data that it was trained on"
  classes = system.classes or 0
  return {
    "name": name,
    "num_classes": classes,
    "class_names": [str(i) for i in range(classes)],
    "fields": {
      "image": {"shape": [size, size, channels], "dtype": "uint8"},
      "label": {"shape": [], "dtype": "int32"},
    },
  }


def whole_config(workdir: pathlib.Path) -> Config | None:
  """The config to go on with in a workdir, all of its stages; None if there is
  no run. That of a converted model has no data set."""
  facts = _read(workdir / "config.json")
  if facts is not None:
    return Config(restored(facts))
  meta = checkpoint.read_meta(workdir) or {}
  if not meta.get("config", {}).get("system"):
    return None
  config = Config(restored(meta["config"]))
  if "sample" in config:
    return config
  presets.package()
  common = importlib.import_module("configs.common")
  whole = common.base(config.system)
  whole.model = config.model
  del whole.data
  return whole


def config_of(workdir: pathlib.Path) -> Config:
  """The config that a run was trained or converted with.

  Raises:
    UserError: there is no run.
  """
  meta = checkpoint.read_meta(workdir)
  if meta is None or not meta.get("config", {}).get("system"):
    raise UserError(
      f"{workdir}: no checkpoint there that knows its config; train first, or "
      "convert published weights with python -m ar_jax.convert"
    )
  return Config(restored(meta["config"]))


def last_stage(workdir: pathlib.Path) -> pathlib.Path:
  """The run itself; of one with stages, the last that trains.

  Raises:
    UserError: there is none, or not yet.
  """
  if (workdir / "checkpoints").is_dir():
    return workdir
  facts = _read(workdir / "config.json") or {}
  stages = [s for s in facts.get("stages") or () if "system" in facts[s]]
  if not stages:
    found = [p.parent for p in sorted(workdir.glob("*/checkpoints"))]
    stages = [p.name for p in found]
    if len(stages) > 1:
      raise UserError(
        f"{workdir}: holds several runs; name one of them: "
        f"{', '.join(str(p) for p in found)}"
      )
  if not stages:
    raise UserError(
      f"{workdir}: no run there; train first, or convert published weights "
      "with python -m ar_jax.convert"
    )
  chosen = workdir / stages[-1]
  if not (chosen / "checkpoints").is_dir():
    done = [s for s in stages if (workdir / s / "checkpoints").is_dir()]
    raise UserError(
      f"{chosen}: not trained yet; run the same command again to finish it"
      + (f", or load one of {', '.join(done)}" if done else "")
    )
  return chosen
