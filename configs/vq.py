"""LlamaGen's VQ tokenizer (arXiv 2406.06525), trained here.

Presets: default (digits), fashion, emoji, smoke, and the published sizes on
ImageNet: paper (VQ-16) and vq8.
"""

from configs import common

# Levels of the convolutional nets by stride.
MULT = {16: (1, 1, 2, 2, 4), 8: (1, 2, 2, 4)}


def get_config(preset: str = "default"):
  makers = {
    "default": digits,
    "digits": digits,
    "fashion": fashion,
    "emoji": emoji,
    "paper": paper,
    "vq8": vq8,
    "smoke": smoke,
  }
  return common.choose("configs/vq.py", makers, preset)()


def digits():
  """scikit-learn's digits at 16 pixels, 8 x 8 units; a minute on two cores."""
  c = common.base(
    "vq",
    in_channels=1,
    ch=16,
    mult=(1, 2),
    blocks=1,
    z=32,
    channels=8,
    vocab=64,
    size=16,
    bottleneck_weight=0.25,
  )
  c.data.update(name="digits", size=16, channels=1)
  c.optim.update(lr=4e-3, weight_decay=0.0)
  c.train.update(steps=160, ema=0.98, save_every=80)
  c.evals.reconstruction = {}
  return c


def fashion():
  """Fashion-MNIST padded to 32 pixels, 8 x 8 units."""
  c = digits()
  c.model.update(mult=(1, 2, 4), z=64, vocab=256, size=32)
  c.data.update(name="fashion_mnist", size=32)
  c.optim.update(lr=3e-3)
  c.train.update(steps=350, ema=0.99, save_every=175)
  return c


def emoji():
  """Pictograms at 32 pixels, 8 x 8 units; `data.path` names their packages."""
  c = fashion()
  c.model.update(in_channels=3, vocab=512)
  c.data.update(name="emoji", channels=3)
  c.train.update(steps=1000, save_every=500)
  return c


def paper():
  """VQ-16, 72M parameters, at 256 pixels; LPIPS joins when its two files are
  named: model.lpips_trunk, model.lpips_heads."""
  c = common.base("vq")
  c.model.update(mult=MULT[16], size=256)
  c.model.update(gan_weight=0.5, gan_start=20_000, gan_norm="batch")
  c.optim.groups = {"discriminator": {}}  # clipped on its own
  c.data.update(name="imagenet2012", size=256, channels=3)
  c.augment = ("flip",)
  c.batch = 128
  c.optim.update(lr=1e-4, schedule="constant", warmup=0, weight_decay=0.05)
  # 40 epochs.
  c.train.update(steps=400_000, ema=0.9999, log_every=100, save_every=5000)
  c.evals.reconstruction = {"features": "inception"}
  return c


def vq8():
  """VQ-8, 70M parameters: 32 x 32 units at 256 pixels."""
  c = paper()
  c.model.mult = MULT[8]
  return c


def smoke():
  """Seconds on two cores."""
  c = digits()
  c.data.update(name="fake", size=8)
  c.data.num_classes, c.data.length = 3, 64
  c.model.update(ch=8, mult=(1, 2), z=8, channels=4, vocab=16, size=8)
  c.batch = c.eval_batch = 4
  c.train.update(steps=2, log_every=1, save_every=1)
  c.evals.reconstruction = {"features": "pixels"}
  c.sample.update(count=4, batch=4)
  return c
