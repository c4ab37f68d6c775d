"""VAR's multi-scale residual VQ tokenizer (arXiv 2404.02905), trained here.

Presets: default (digits), fashion, smoke, and paper: the published sizes on
ImageNet, with the losses of the VQGAN line, since VAR's own are unpublished.
"""

from ar_jax.tokenizers.multiscale_vq import SCALES
from configs import common


def get_config(preset: str = "default"):
  makers = {
    "default": digits,
    "digits": digits,
    "fashion": fashion,
    "paper": paper,
    "smoke": smoke,
  }
  return common.choose("configs/multiscale_vq.py", makers, preset)()


def digits():
  """scikit-learn's digits at 16 pixels; a minute on two cores."""
  c = common.base(
    "multiscale_vq",
    in_channels=1,
    ch=16,
    mult=(1, 2, 2),
    blocks=1,
    channels=8,
    vocab=128,
    scales=(1, 2, 3, 4),
    spread=0.3,
    bottleneck_weight=0.25,
  )
  c.data.update(name="digits", size=16, channels=1)
  c.optim.update(lr=4e-3, weight_decay=0.0)
  c.train.update(steps=160, ema=0.98, save_every=80)
  c.evals.reconstruction = {}
  return c


def fashion():
  """Fashion-MNIST padded to 32 pixels, 8 x 8 latents, 85 units."""
  c = digits()
  c.model.update(mult=(1, 1, 4), channels=16, vocab=256, scales=(1, 2, 4, 8))
  c.data.update(name="fashion_mnist", size=32)
  c.optim.update(lr=3e-3)
  c.batch = 32
  c.train.update(steps=900, ema=0.99, save_every=225)
  return c


def paper():
  """The published autoencoder, 109M parameters, at 256 pixels."""
  c = common.base("multiscale_vq")
  c.model.update(scales=SCALES[256], spread=None)
  # Fixed weight and late start as LlamaGen's tokenizer of the same line; LPIPS
  # joins when its two files are named: model.lpips_trunk, model.lpips_heads.
  c.model.update(gan_weight=0.5, gan_start=20_000, gan_norm="batch")
  c.optim.groups = {"discriminator": {}}  # clipped on its own
  c.data.update(name="imagenet2012", size=256, channels=3)
  c.batch = 128
  c.optim.update(lr=1e-4, schedule="constant", weight_decay=0.05)
  c.train.update(steps=400_000, ema=0.9999, log_every=100, save_every=5000)
  c.evals.reconstruction = {"features": "inception"}
  return c


def smoke():
  """Seconds on two cores."""
  c = digits()
  c.data.update(name="fake", size=8)
  c.data.num_classes, c.data.length = 3, 64
  c.model.update(ch=8, mult=(1, 2), channels=4, vocab=16, scales=(1, 2, 4))
  c.batch = c.eval_batch = 4
  c.train.update(steps=2, log_every=1, save_every=1)
  c.evals.reconstruction = {"features": "pixels"}
  c.sample.update(count=4, batch=4)
  return c
