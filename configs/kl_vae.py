"""The KL autoencoder of latent diffusion (arXiv 2112.10752), trained here.

Presets: default (digits), fashion, smoke, and the published sizes on
ImageNet: paper (KL-16, the latents of MAR, FlowAR and xAR) and f8 (LDM).
"""

from ar_jax.tokenizers.kl_vae import MULT
from configs import common


def get_config(preset: str = "default"):
  makers = {
    "default": digits,
    "digits": digits,
    "fashion": fashion,
    "paper": paper,
    "f8": f8,
    "smoke": smoke,
  }
  return common.choose("configs/kl_vae.py", makers, preset)()


def digits():
  """scikit-learn's digits at 16 pixels, 8 x 8 units of 4 numbers; a minute on
  two cores."""
  c = common.base(
    "kl_vae",
    in_channels=1,
    ch=16,
    mult=(1, 2),
    blocks=1,
    attention=(1,),
    channels=4,
    scale=1.0,
    size=16,
    bottleneck_weight=1e-5,
  )
  c.data.update(name="digits", size=16, channels=1)
  c.optim.update(lr=4e-3, weight_decay=0.0)
  c.train.update(steps=160, ema=0.98, save_every=80)
  c.evals.reconstruction = {}
  return c


def fashion():
  """Fashion-MNIST padded to 32 pixels, 8 x 8 units of 4 numbers."""
  c = digits()
  c.model.update(mult=(1, 2, 4), attention=(2,), size=32)
  c.data.update(name="fashion_mnist", size=32)
  c.optim.update(lr=3e-3)
  c.train.update(steps=350, ema=0.99, save_every=175)
  return c


def paper():
  """KL-16, 66M parameters, at 256 pixels; LPIPS joins when its two files are
  named: model.lpips_trunk, model.lpips_heads."""
  c = common.base("kl_vae", mult=MULT[16], channels=16, attention=(4,))
  c.data.update(name="imagenet2012", size=256, channels=3)
  c.data.crop = "random"
  c.augment = ("flip",)
  # LDM sums absolute errors over an image, with a KL of weight 1e-6 beside
  # them; our errors are means over 3 * 256^2 values.
  c.model.update(pixel="l1", bottleneck_weight=1e-6 / (3 * 256**2))
  c.model.update(gan_weight=0.5, gan_start=50_001, gan_adaptive=True)
  c.model.gan_norm = "batch"
  c.optim.groups = {"discriminator": {}}
  c.batch = 256
  c.optim.update(
    lr=4.5e-6 * c.batch,
    schedule="constant",
    warmup=0,
    b1=0.5,
    b2=0.9,
    weight_decay=0.0,
    clip=0.0,
  )
  c.train.update(steps=250_000, log_every=100, save_every=5000)
  c.evals.reconstruction = {"features": "inception"}
  return c


def f8():
  """LDM's kl-f8, 84M parameters: 32 x 32 units of 4 numbers."""
  c = paper()
  c.model.update(mult=MULT[8], channels=4, attention=())
  return c


def smoke():
  """Seconds on two cores."""
  c = digits()
  c.data.update(name="fake", size=8)
  c.data.num_classes, c.data.length = 3, 64
  c.model.update(ch=8, mult=(1, 2), channels=2, size=8)
  c.batch = c.eval_batch = 4
  c.train.update(steps=2, log_every=1, save_every=1)
  c.evals.reconstruction = {"features": "pixels"}
  c.sample.update(count=4, batch=4)
  return c
