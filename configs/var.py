"""VAR: next-scale prediction (arXiv 2404.02905).

Presets: default (digits), fashion, folder (your own images), smoke, and the
published models d16, d20, d24, d30 (256 px) and d36 (512 px); paper is d16.
These expect the published tokenizer, converted, at runs/vae_ch160v4096z32,
and ImageNet in TFDS.
"""

import functools

from ar_jax.tokenizers.multiscale_vq import SCALES
from configs import common, multiscale_vq
from configs.families.tokenizer import two_maps

# depth, image side, batch, epochs, learning rate per 256 images, initial gain
# of the residual branches, last share of the rate, last weight decay.
PUBLISHED = {
  "d16": (16, 256, 768, 200, 1e-4, 1e-3, 0.1, 0.05),
  "d20": (20, 256, 768, 250, 1e-4, 1e-3, 0.1, 0.05),
  "d24": (24, 256, 768, 350, 8e-5, 1e-4, 0.01, 0.05),
  "d30": (30, 256, 1024, 350, 8e-5, 1e-5, 0.01, 0.08),
  "d36": (36, 512, 768, 350, 8e-5, 5e-6, 0.01, 0.08),
}


def get_config(preset: str = "default"):
  official = {name: functools.partial(published, name) for name in PUBLISHED}
  makers = {
    "default": digits,
    "fashion": fashion,
    "folder": folder,
    "smoke": smoke,
    "smoke_real": smoke_real,
    "paper": official["d16"],
    **official,
  }
  return common.choose("configs/var.py", makers, preset)()


# HMAR and its kin are configured by these, too: a system of the same arguments,
# perhaps over another tokenizer, and what it has beside them.


def generator(tokenizer, system="var", **model):
  """A run of VAR on the units of the tokenizer of another config."""
  c = common.over(tokenizer, system, **model)
  # How a class looks best at small sizes; the papers' settings are below.
  c.sample.options.update(
    guidance=1.75, schedule="ramp", temperature=1.0, top_k=0, top_p=1.0
  )
  return c


def digits(system="var", tokenizer=None, **model):
  """scikit-learn's digits at 16 pixels: the tokenizer, then VAR."""
  tokenizer = tokenizer or multiscale_vq.get_config("digits")
  sizes = dict(depth=4, width=128, heads=4, num_classes=10)
  c = generator(tokenizer, system, **sizes, **model)
  c.optim.update(lr=4e-3)
  c.train.update(steps=220, save_every=110, ema=0.98)
  c.evals.judge_accuracy = {"n": 300}
  c.evals.frechet = {"features": "judge"}
  return common.from_nothing(tokenizer, c)


def fashion(system="var", tokenizer=None, **model):
  """Fashion-MNIST at 32 pixels: the tokenizer, then VAR."""
  tokenizer = tokenizer or multiscale_vq.get_config("fashion")
  sizes = dict(depth=6, width=160, heads=5, num_classes=10)
  c = generator(tokenizer, system, **sizes, **model)
  c.optim.update(lr=2e-3)
  c.train.update(steps=800, save_every=200, ema=0.99)
  c.evals.judge_accuracy = {"n": 1000}
  c.evals.frechet = {"features": "judge", "n": 2000}
  return common.from_nothing(tokenizer, c)


def folder():
  """One's own colour images at 32 pixels, a sub-folder per class.

  To be given: tokenizer.data.path and generator.model.num_classes.
  """
  c = fashion()
  c.tokenizer.data.update(name="folder", channels=3)
  c.tokenizer.model.in_channels = 3
  c.generator.model.tokenizer.in_channels = 3
  return c


def published(name, system="var", tokenizer=None, **model):
  """A model of PUBLISHED on ImageNet."""
  depth, size, batch, epochs, rate, gate, end, decay_end = PUBLISHED[name]
  tokenizer = tokenizer or multiscale_vq.get_config("paper")
  tokenizer.model.scales = SCALES[size]
  sizes = dict(
    depth=depth,
    num_classes=1000,
    gate_init=gate,
    remat=common.remat(depth >= 24),
    dtype="bfloat16",
  )
  if depth == 36:
    sizes["shared_ada"] = True
  c = generator(tokenizer, system, **(sizes | model))
  c.weights.tokenizer = "runs/vae_ch160v4096z32"
  c.data.update(name="imagenet2012", size=size)
  c.batch = batch
  steps = epochs * common.IMAGENET_IMAGES // batch
  c.train.update(steps=steps, log_every=100, save_every=5000)
  c.optim.update(
    lr=rate * batch / 256,
    schedule="var",
    warmup=1 / 50,
    end=end,
    weight_decay=0.05,
    weight_decay_end=decay_end,
    clip=2.0,
  )
  # The FID protocol: the paper's cfg of 1.5 means 1 + 1.5 at the last scale.
  c.sample.options.update(guidance=2.5, top_k=900, top_p=0.96)
  return common.fid(c)


def smoke(system="var", tokenizer=None, **model):
  """Seconds on two cores: fake data, a tokenizer that knows nothing."""
  tokenizer = tokenizer or two_maps()
  sizes = dict(depth=2, width=32, heads=2, num_classes=3)
  c = generator(tokenizer, system, **sizes, **model)
  return common.seconds(c, tokenizer)


def smoke_real():
  """The same over the real tokenizer, untrained."""
  return smoke(tokenizer=multiscale_vq.get_config("smoke"))
