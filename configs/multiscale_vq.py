"""VAR's multi-scale residual VQ tokenizer (arXiv 2404.02905), trained here.

Presets: default (digits), fashion, smoke, and paper: the published sizes on
ImageNet, with the losses of the VQGAN line, since VAR's own are unpublished.
"""

from ar_jax.tokenizers.multiscale_vq import SCALES
from configs import common
from configs.families import tokenizer


def digits():
  """scikit-learn's digits at 16 pixels."""
  sizes = dict(mult=(1, 2, 2), channels=8, vocab=128, scales=(1, 2, 3, 4))
  return tokenizer.digits(
    "multiscale_vq", **sizes, spread=0.3, bottleneck_weight=0.25
  )


def fashion():
  """Fashion-MNIST padded to 32 pixels, 8 x 8 latents, 85 units."""
  sizes = dict(mult=(1, 1, 4), channels=16, vocab=256, scales=(1, 2, 4, 8))
  c = tokenizer.fashion(digits(), **sizes)
  c.batch = 32
  c.train.update(steps=900, save_every=225)
  return c


def paper():
  """The published autoencoder, 109M parameters, at 256 pixels."""
  c = tokenizer.imagenet(
    "multiscale_vq", batch=128, scales=SCALES[256], spread=None
  )
  # Fixed weight and late start as LlamaGen's tokenizer of the same line; LPIPS
  # joins when its two files are named: model.lpips_trunk, model.lpips_heads.
  c.model.update(gan_weight=0.5, gan_start=20_000, gan_norm="batch")
  c.optim.update(lr=1e-4, schedule="constant", weight_decay=0.05)
  c.train.update(steps=400_000, ema=0.9999)
  return c


def smoke():
  """Seconds on two cores."""
  sizes = dict(ch=8, mult=(1, 2), channels=4, vocab=16, scales=(1, 2, 4))
  return tokenizer.in_seconds(digits(), **sizes)


get_config = common.presets(
  __file__,
  default=digits,
  digits=digits,
  fashion=fashion,
  paper=paper,
  smoke=smoke,
)
