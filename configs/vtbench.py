"""VTBench (arXiv 2505.13439): a tokenizer measured apart from any generator.

Presets: default (a linear codec of Fashion-MNIST's patches), identity,
resample, smoke, and paper: ImageNet at 256 pixels as the published script
compares it. Any tokenizer of the library is measured with --mode=eval
--config.evals.vtbench.n=100, and another library's as a function of Python:
--config.model.kind=call --config.model.function=MODULE:NAME
"""

import functools

import ml_collections

from configs import common
from configs.families import tokenizer


def codec(kind="linear", steps=300, **model):
  """Fashion-MNIST padded to 32 pixels through a codec."""
  c = common.base("vtbench", kind=kind, **model)
  c.data.update(name="fashion_mnist", size=32)
  c.optim.update(lr=1e-2, weight_decay=0.0)
  c.train.update(steps=steps, save_every=0)
  c.evals.vtbench = ml_collections.ConfigDict(dict(n=100, write="", folder=""))
  return c


def paper():
  """The published protocol on ImageNet, to be given a tokenizer:
  model.kind=call, model.function=MODULE:NAME."""
  c = codec("identity", steps=0)
  c.data.update(name="imagenet2012", size=256, channels=3)
  c.evals.vtbench.update(n=50_000, features="inception", released=True)
  return c


def smoke():
  """Seconds on two cores."""
  c = tokenizer.in_seconds(codec(), patch=2, channels=2)
  del c.evals.vtbench
  return c


get_config = common.presets(
  __file__,
  default=codec,
  identity=functools.partial(codec, "identity", steps=0),
  resample=functools.partial(codec, "resample", steps=0),
  paper=paper,
  smoke=smoke,
)
