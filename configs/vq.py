"""LlamaGen's VQ tokenizer (arXiv 2406.06525), trained here.

Presets: default (digits), fashion, emoji, smoke, and the published sizes on
ImageNet: paper (VQ-16) and vq8.
"""

from ar_jax.tokenizers.vq import MULT
from configs import common
from configs.families import tokenizer


def digits():
  """scikit-learn's digits at 16 pixels, 8 x 8 units."""
  sizes = dict(mult=(1, 2), z=32, channels=8, vocab=64, size=16)
  return tokenizer.digits("vq", **sizes, bottleneck_weight=0.25)


def fashion():
  """Fashion-MNIST padded to 32 pixels, 8 x 8 units."""
  sizes = dict(mult=(1, 2, 4), z=64, vocab=256, size=32)
  return tokenizer.fashion(digits(), **sizes)


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
  c = tokenizer.imagenet("vq", batch=128, mult=MULT[16], size=256)
  c.model.update(gan_weight=0.5, gan_start=20_000, gan_norm="batch")
  c.data.crop = "random"
  c.augment = ("flip",)
  c.optim.update(lr=1e-4, schedule="constant", warmup=0, weight_decay=0.05)
  c.train.update(steps=400_000, ema=0.9999)  # 40 epochs
  return c


def vq8():
  """VQ-8, 70M parameters: 32 x 32 units at 256 pixels."""
  c = paper()
  c.model.mult = MULT[8]
  return c


def smoke():
  """Seconds on two cores."""
  sizes = dict(ch=8, mult=(1, 2), z=8, channels=4, vocab=16, size=8)
  return tokenizer.in_seconds(digits(), **sizes)


get_config = common.presets(
  __file__,
  default=digits,
  digits=digits,
  fashion=fashion,
  emoji=emoji,
  paper=paper,
  vq8=vq8,
  smoke=smoke,
)
