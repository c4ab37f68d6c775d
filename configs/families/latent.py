"""MAR, FlowAR, xAR and their kin: the latents of a KL autoencoder.

`over(tokenizer, **model)` is the system's own: its run on the units of the
tokenizer of another config, with its own defaults of training and sampling.
"""

from configs import common, kl_vae
from configs.families.tokenizer import patches


def digits(over, *, lr, steps, **model):
  """scikit-learn's digits at 16 pixels: the tokenizer, then the system."""
  tokenizer = kl_vae.get_config("digits")
  c = over(tokenizer, num_classes=10, **model)
  c.optim.lr = lr
  c.train.update(steps=steps, save_every=400, ema=0.99)
  return common.on_digits(tokenizer, c)


def fashion(over, *, lr, steps, **model):
  """Fashion-MNIST at 32 pixels: the tokenizer, then the system."""
  tokenizer = kl_vae.get_config("fashion")
  c = over(tokenizer, num_classes=10, **model)
  c.optim.lr = lr
  c.train.update(steps=steps, save_every=500, ema=0.995)
  return common.on_fashion(tokenizer, c)


def published(over, *, epochs, rate, views=2, batch=2048, **model):
  """A model on ImageNet; `rate` is the learning rate per 256 images."""
  tokenizer = kl_vae.get_config("paper")
  c = over(tokenizer, num_classes=1000, dtype="bfloat16", **model)
  c.weights.tokenizer = "runs/kl16"
  c.data.crop = "center"
  c.augment = ("flip",)
  c.cache.views = views  # of moments, flipped or not as pixels
  c.batch = batch
  steps = epochs * common.IMAGENET_IMAGES // batch
  c.train.update(steps=steps, log_every=100, save_every=5000, ema=0.9999)
  c.optim.lr = rate * batch / 256
  return common.fid(c)


def smoke(over, real=False, patch=2, **model):
  """Seconds on two cores: fake data, a tokenizer that knows nothing, of
  patches or the real one."""
  tokenizer = kl_vae.get_config("smoke") if real else patches(patch)
  c = over(tokenizer, num_classes=3, **model)
  return common.seconds(c, tokenizer)


def smoke_stages(staged, generator):
  """The stages of a config on fake data: both as in their smoke presets."""
  weights = staged.generator.weights
  staged.tokenizer = kl_vae.get_config("smoke")
  staged.generator = generator
  staged.generator.weights = weights
  return staged
