"""The KL autoencoder of latent diffusion (arXiv 2112.10752), trained here.

Presets: default (digits), fashion, smoke, and the published sizes on
ImageNet: paper (KL-16, the latents of MAR, FlowAR and xAR) and f8 (LDM).
"""

from ar_jax.tokenizers.kl_vae import MULT
from configs import common
from configs.families import tokenizer


def digits():
  """scikit-learn's digits at 16 pixels, 8 x 8 units of 4 numbers."""
  sizes = dict(mult=(1, 2), attention=(1,), channels=4, scale=1.0, size=16)
  return tokenizer.digits("kl_vae", **sizes, bottleneck_weight=1e-5)


def fashion():
  """Fashion-MNIST padded to 32 pixels, 8 x 8 units of 4 numbers."""
  sizes = dict(mult=(1, 2, 4), attention=(2,), size=32)
  return tokenizer.fashion(digits(), **sizes)


def paper():
  """KL-16, 66M parameters, at 256 pixels; LPIPS joins when its two files are
  named: model.lpips_trunk, model.lpips_heads."""
  sizes = dict(mult=MULT[16], channels=16, attention=(4,))
  c = tokenizer.imagenet("kl_vae", batch=256, **sizes)
  c.data.crop = "random"
  c.augment = ("flip",)
  # LDM sums absolute errors over an image, with a KL of weight 1e-6 beside
  # them; our errors are means over 3 * 256^2 values.
  c.model.update(pixel="l1", bottleneck_weight=1e-6 / (3 * 256**2))
  c.model.update(gan_weight=0.5, gan_start=50_001, gan_adaptive=True)
  c.model.gan_norm = "batch"
  c.optim.update(lr=4.5e-6 * c.batch, schedule="constant", warmup=0)
  c.optim.update(b1=0.5, b2=0.9, weight_decay=0.0, clip=0.0)
  c.train.update(steps=250_000)
  return c


def f8():
  """LDM's kl-f8, 84M parameters: 32 x 32 units of 4 numbers."""
  c = paper()
  c.model.update(mult=MULT[8], channels=4, attention=())
  return c


def smoke():
  """Seconds on two cores."""
  return tokenizer.in_seconds(digits(), ch=8, mult=(1, 2), channels=2, size=8)


get_config = common.presets(
  __file__,
  default=digits,
  digits=digits,
  fashion=fashion,
  paper=paper,
  f8=f8,
  smoke=smoke,
)
