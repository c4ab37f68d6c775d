"""ARFlow: flow matching over chains of images (arXiv 2501.16085).

Presets: default (digits), fashion, sit (its baseline, digits), smoke, and the
published models s, b, l and xl at 128 px; paper is xl. They expect the
tokenizer of LDM, converted, at runs/sd_vae, and ImageNet in TFDS.
"""

from ar_jax.systems.arflow import SIZES
from configs import common, kl_vae
from configs.families import latent

CHAIN = 5


def over(tokenizer, chain=CHAIN, **model):
  """A run on the latents of the tokenizer of another config."""
  c = common.over(tokenizer, "arflow", chain=chain, **model)
  c.optim.update(b1=0.9, b2=0.95, weight_decay=0.02, clip=1.0)
  c.sample.options.update(steps=50, guidance=1.5, last=0.04)
  return c


def chained(c, chain=CHAIN):
  """The run or the stages c, with others of the class beside each example."""
  c.get("generator", c).data.update(peers=chain - 1)
  return c


def small(make, **more):
  """Digits or Fashion-MNIST, over patches of 2 x 2 latents."""
  sizes = dict(depth=4, width=96, heads=4, patch=1, time_scale=1000.0)
  return make(over, lr=1e-3, steps=2000, **sizes | more)


def published(name):
  """400,000 updates; the batch of chains is not in the paper."""
  tokenizer = kl_vae.get_config("f8")
  tokenizer.model.size = 128
  c = over(tokenizer, num_classes=1000, patch=2, remat=True, **SIZES[name])
  c.weights.tokenizer = "runs/sd_vae"
  c.data.update(size=128, crop="center")
  c.augment = ("flip",)
  c.cache.views = 2
  c.batch = 256
  c.train.update(steps=400_000, save_every=5000, ema=0.9999)
  c.optim.update(lr=1e-4, schedule="constant", warmup=0.0, clip=0.0)
  c.optim.update(clip_value=3.0)
  c.sample.options.update(steps=250, guided_channels=3)
  return common.fid(chained(c))


def smoke(real=False):
  """Seconds on two cores: fake data, a tokenizer that knows nothing."""
  sizes = dict(depth=1, width=32, heads=2, time_scale=1000.0)
  c = latent.smoke(over, real, chain=3, **sizes)
  c.sample.options.update(steps=3)
  return chained(c, 3)


get_config = common.presets(
  __file__,
  default=lambda: chained(small(latent.digits)),
  fashion=lambda: chained(small(latent.fashion)),
  sit=lambda: small(latent.digits, chain=1, hybrid=False),
  smoke=smoke,
  **common.published(published, SIZES, "xl"),
)
