"""Infinity's bitwise tokenizer (arXiv 2412.04431), trained here.

Presets: default (digits), fashion, smoke, and the published sizes: paper
(stride 16, 32 bits) and f8 (stride 8, 14 bits a cell, of which four are a
unit). How these were trained is unpublished; the losses here are those of the
VQGAN line.
"""

import functools

from configs import common
from configs.families import tokenizer


def digits():
  """scikit-learn's digits at 16 pixels."""
  sizes = dict(mult=(1, 2, 2), bits=8, scales=(1, 2, 4), entropy=0.0)
  return tokenizer.digits("bitwise", **sizes)


def fashion():
  """Fashion-MNIST padded to 32 pixels, 8 x 8 cells, 85 units."""
  sizes = dict(mult=(1, 1, 4), bits=12, scales=(1, 2, 4, 8))
  return tokenizer.fashion(digits(), **sizes)


def published(bits, **model):
  """A published autoencoder at 256 pixels."""
  c = tokenizer.imagenet("bitwise", batch=128, bits=bits, **model)
  c.model.update(gan_weight=0.5, gan_start=20_000, gan_norm="batch")
  c.optim.update(lr=1e-4, schedule="constant", weight_decay=0.05)
  c.train.update(steps=400_000, ema=0.9999)
  return c


def smoke():
  """Seconds on two cores."""
  sizes = dict(ch=8, mult=(1, 2), bits=4, scales=(1, 2, 4))
  return tokenizer.in_seconds(digits(), **sizes)


get_config = common.presets(
  __file__,
  default=digits,
  digits=digits,
  fashion=fashion,
  paper=functools.partial(published, 32),
  f8=functools.partial(published, 14, mult=(1, 2, 4, 4), fold=True),
  smoke=smoke,
)
