"""PixelCNN, Gated PixelCNN and PixelCNN++ (arXiv 1601.06759, 1606.05328,
1701.05517).

Presets: default, gated and plus (digits at 8 pixels, as they are), fashion
(Fashion-MNIST at 14 pixels of 16 levels, Gated), smoke, and the published
models of CIFAR-10 at 32 pixels: paper, paper_gated and paper_plus. Pictures of
your own: --config.data.name=folder --config.data.path=DIR, in any size and one
or three channels; --config.model.tokenizer.levels=N makes them coarser.
"""

import functools

from ar_jax.systems.pixelcnn import SIZES
from configs import common
from configs.families.tokenizer import patch_codes


def over(data, levels, **model):
  """A run on the pixels of a set."""
  c = common.base("pixelcnn", **model)
  c.data.update(data)
  c.model.tokenizer = dict(
    name="given",
    form="pixels",
    levels=levels,
    size=c.data.get_ref("size"),
    in_channels=c.data.get_ref("channels"),
  )
  c.optim.update(b2=0.999, weight_decay=0.0)
  c.sample.options.update(guidance=1.0, temperature=1.0, top_k=0, top_p=1.0)
  c.evals.likelihood = {}
  return c


def small(kind="pixelcnn", steps=1500, **model):
  """scikit-learn's digits, whose pixels have 17 levels."""
  digits = dict(name="digits", size=8, channels=1)
  sizes = dict(width=32, depth=5, num_classes=10, label_dropout=0.1)
  c = over(digits, 17, kind=kind, **sizes | model)
  c.optim.lr = 3e-3
  c.train.update(steps=steps, save_every=steps // 2, ema=0.99)
  c.sample.update(count=200, batch=100, columns=10)
  c.evals.update(judge_accuracy={"n": 300}, frechet={"features": "judge"})
  return c


def plus(**model):
  sizes = dict(width=24, depth=2, components=5, dropout=0.0)
  return small("plus", **sizes | model)


def fashion():
  c = small("gated", 3000, width=48, depth=7)
  c.data.update(name="fashion_mnist", size=14)
  c.model.tokenizer.levels = 16
  c.evals.update(judge_accuracy={"n": 1000}, frechet={"n": 2000})
  return c


def published(kind):
  """CIFAR-10. Batch, rates and steps of PixelCNN++ are the paper's."""
  cifar10 = dict(name="cifar10", size=32, channels=3)
  c = over(cifar10, 256, kind=kind, **SIZES[kind])
  c.augment = ("flip",) if kind == "plus" else ()
  c.batch, c.train.ema = 64, 0.9995
  c.train.update(steps=500_000, log_every=100, save_every=5000)
  c.optim.update(lr=1e-3, end=0.0, clip=0.0, b1=0.95, b2=0.9995)
  c.sample.update(count=64, batch=16)
  return c


def smoke(kind="pixelcnn", **model):
  """Seconds on two cores: fake data, three channels of four levels."""
  fake = dict(name="fake", size=4, channels=3)
  sizes = dict(width=12, depth=2, first=3, out=12, num_classes=3)
  sizes |= dict(components=3, label_dropout=0.1)
  c = over(fake, 4, kind=kind, **sizes | model)
  c.data.num_classes, c.data.length = 3, 64
  c = common.seconds(c, patch_codes())
  c.optim.lr = 3e-2
  return c


get_config = common.presets(
  __file__,
  default=small,
  gated=functools.partial(small, "gated"),
  plus=plus,
  fashion=fashion,
  smoke=smoke,
  smoke_gated=functools.partial(smoke, "gated"),
  smoke_plus=functools.partial(smoke, "plus"),
  paper=functools.partial(published, "pixelcnn"),
  paper_gated=functools.partial(published, "gated"),
  paper_plus=functools.partial(published, "plus"),
)
