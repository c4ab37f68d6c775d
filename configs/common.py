"""Keys that every config has. A config changes values, never invents keys,
so that a misspelt one is an error."""

import functools
import pathlib
from collections.abc import Callable, Iterable

import ml_collections
from ml_collections import config_dict

IMAGENET_IMAGES = 1_281_167


def run(system: str, **model) -> ml_collections.ConfigDict:
  """The keys of every run, of `system` built with `model`; on what data, a
  config says with `c.data = data(NAME, ...)`."""
  c = ml_collections.ConfigDict()
  c.system = system
  c.model = ml_collections.ConfigDict(model)
  c.seed = 0
  c.weights = ml_collections.ConfigDict()  # collection -> workdir or stage

  c.batch = 64  # examples per update, over all devices
  c.eval_batch = 256
  c.data = data("digits", size=16)
  c.augment = ()  # of "flip", "shift"
  c.cache = _group(views=0)  # > 0: train on units stored once, so many views
  c.loader = _group(workers=0, prefetch=4)

  c.optim = _group(
    lr=1e-3,
    schedule="cosine",
    warmup=0.05,
    end=0.0,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
    clip=1.0,
  )
  c.train = _group(
    steps=1000,
    ema=0.0,
    accumulate=1,
    fresh_optimizer=False,  # where that of the checkpoint does not fit
    log_every=50,
    save_every=500,  # 0: at the end alone
    keep=2,  # of the newest steps
    best=0,  # of the steps with the best `best_by`, beside them
    best_by="loss",  # a metric; "eval/NAME" is rated where both are due
    best_is="lowest",  # or highest
    sample_every=0,  # 0: four times in all but the shortest; -1: never
    sample_count=64,
    eval_every=0,
  )
  c.sample = _group(
    count=64,
    batch=64,
    seed=0,
    labels=(),
    columns=8,
    scale=2,
    options=ml_collections.ConfigDict(),
  )
  c.evals = ml_collections.ConfigDict()  # evaluator -> its options
  c.mesh = _group(data=-1, fsdp=1, tensor=1)
  c.parallel = "jit"  # or pmap
  c.checkpoint = "newest"  # for sample and eval; or best, or a step
  return c


def base(system: str, **model) -> ml_collections.ConfigDict:
  """The defaults of a run of `system` on images, built with `model`."""
  c = run(system, **model)
  c.data = data("digits", path="", size=16, channels=1)
  # A given image to be edited or refined; see ar_jax/sample.py.
  c.sample.edit = _group(
    image="",  # a file, or "test" for those of the test split
    mask="",  # a file: white is kept
    box=(),  # or (top, left, bottom, right), shares of the sides
    keep="outside",  # of the box, or "inside"
    force_first_scales=config_dict.placeholder(int),
    coarse="bilinear",
    paste=False,
  )
  return c


def prompted(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The run c, whose samples may be asked for by a text, or begin with it."""
  # One for all, or a file with one a line.
  c.sample.update(prompt="", prompts="")
  return c


def data(name: str, **options) -> ml_collections.ConfigDict:
  """The data set of a run: its name and what its loader takes, which is in
  docs/data.md. A preset may `update` the options of the set it is over."""
  return _group(name=name, **options)


def over(tokenizer, system: str, **model) -> ml_collections.ConfigDict:
  """A run of `system` on the units of the tokenizer of another config."""
  model["tokenizer"] = {"name": tokenizer.system, **tokenizer.model.to_dict()}
  c = base(system, **model)
  c.data = tokenizer.data  # the very same: an override reaches both
  return c


def fid(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The run c, measured as published models are: 50,000 images, Inception."""
  c.sample.update(count=50_000, batch=64, columns=8)
  c.evals.likelihood = {}
  c.evals.frechet = {"features": "inception", "n": 50_000}
  return c


def remat(large: bool) -> str:
  """What the backward pass of a published model computes again, so that eight
  GPUs hold its batch (docs/scale.md): all of a layer, or all but the products
  with its weights."""
  return "full" if large else "weights"


def seconds(c, like) -> ml_collections.ConfigDict:
  """The run c, as short as `like`, the smoke preset of its tokenizer."""
  c.optim.lr = 1e-2
  c.batch, c.eval_batch = like.batch, like.eval_batch
  c.train.update(like.train)
  c.sample.update(count=6, batch=4, columns=2)
  c.evals.likelihood = {}
  return c


def stages(**named) -> ml_collections.ConfigDict:
  """A run of several configs, one after the other."""
  c = ml_collections.ConfigDict(named)
  c.stages = tuple(named)
  return c


def stage(of: str, mode: str) -> ml_collections.ConfigDict:
  """A stage that samples or evaluates the stage `of`, by its config."""
  return ml_collections.ConfigDict(dict(of=of, mode=mode))


def trained_alone(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The stages c without those that sample and evaluate."""
  c.stages = tuple(name for name in c.stages if "system" in c[name])
  return c


def from_nothing(tokenizer, generator) -> ml_collections.ConfigDict:
  """The stages from pixels to the evaluation of a generator."""
  generator.weights.tokenizer = "tokenizer"
  generator.cache.views = 1
  generator.sample.update(count=200, batch=100, columns=10)
  generator.evals.likelihood = {}
  return stages(
    tokenizer=tokenizer,
    generator=generator,
    samples=stage("generator", "sample"),
    evaluation=stage("generator", "eval"),
  )


def on_digits(tokenizer, generator) -> ml_collections.ConfigDict:
  """`from_nothing`, judged as samples of scikit-learn's digits are."""
  generator.evals.judge_accuracy = {"n": 300}
  generator.evals.frechet = {"features": "judge"}
  return from_nothing(tokenizer, generator)


def on_fashion(tokenizer, generator) -> ml_collections.ConfigDict:
  """`from_nothing`, judged as samples of Fashion-MNIST are."""
  generator.evals.judge_accuracy = {"n": 1000}
  generator.evals.frechet = {"features": "judge", "n": 2000}
  return from_nothing(tokenizer, generator)


def presets(file: str, **makers: Callable) -> Callable:
  """The `get_config` of a config file, by its presets.

  It takes the name of a preset, "default" without, and raises ValueError where
  there is no such.
  """

  def get_config(preset: str = "default") -> ml_collections.ConfigDict:
    if preset not in makers:
      raise ValueError(
        f"configs/{pathlib.Path(file).name}:{preset}: no such preset; there "
        f"are {', '.join(makers)}"
      )
    return makers[preset]()

  return get_config


def published(make: Callable, names: Iterable[str], paper: str) -> dict:
  """Presets of published models, `make(name)` each; `paper` is one of them."""
  makers = {name: functools.partial(make, name) for name in names}
  return {"paper": makers[paper], **makers}


def _group(**values) -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(values)
