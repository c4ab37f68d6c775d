"""ELM's binary autoencoder (arXiv 2410.16257), trained here.

Presets: default (digits), fashion, smoke, and the published sizes on ImageNet:
paper (20 bits), bae_16, bae_24; bae_16_sure is the one whose bits are not
drawn.
"""

import functools

from configs import common
from configs.families import tokenizer


def digits():
  """scikit-learn's digits at 16 pixels, 8 x 8 units of 8 bits."""
  sizes = dict(bits=8, mult=(1, 2), z=32, size=16)
  return tokenizer.digits("bits", **sizes, pixel="l1", pixel_weight=0.5)


def fashion():
  """Fashion-MNIST padded to 32 pixels, 8 x 8 units of 12 bits."""
  sizes = dict(bits=12, mult=(1, 2, 4), z=64, size=32)
  return tokenizer.fashion(digits(), **sizes)


def published(bits, drawn=True):
  """A published autoencoder at 256 pixels; LPIPS joins when its two files are
  named: model.lpips_trunk, model.lpips_heads."""
  c = tokenizer.imagenet("bits", batch=256, bits=bits, drawn=drawn)
  c.model.update(pixel="l1", pixel_weight=0.5)
  # The weight of the discriminator is adaptive and at most 1.
  c.model.update(gan_weight=1.0, gan_adaptive=1.0, gan_start=30_001)
  c.model.gan_norm = "batch"
  c.augment = ("flip",)
  # The rate is that of the line of work (taming), not stated by the paper.
  c.optim.update(lr=4.5e-6 * c.batch, schedule="constant", warmup=0)
  c.optim.update(b1=0.5, b2=0.9, weight_decay=0.0, clip=0.0)
  c.train.update(steps=1_000_000, ema=0.9999)
  return c


def smoke():
  """Seconds on two cores."""
  sizes = dict(ch=8, mult=(1, 2), z=8, bits=4, size=8)
  return tokenizer.in_seconds(digits(), **sizes)


get_config = common.presets(
  __file__,
  default=digits,
  digits=digits,
  fashion=fashion,
  paper=functools.partial(published, 20),
  bae_16=functools.partial(published, 16),
  bae_16_sure=functools.partial(published, 16, drawn=False),
  bae_24=functools.partial(published, 24),
  smoke=smoke,
)
