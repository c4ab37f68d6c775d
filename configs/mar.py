"""MAR: masked autoregression with a diffusion head (arXiv 2406.11838).

Presets: default (digits), fashion, smoke, and the published models at 256 px:
b, l, h; paper is b. These expect the published tokenizer, converted, at
runs/kl16, and ImageNet in TFDS.
"""

from ar_jax.systems.mar import SIZES
from configs import common, kl_vae
from configs.families.tokenizer import patches

# Guidance at the end of the published samplers.
GUIDANCE = {"b": 2.9, "l": 3.0, "h": 3.2}

# All that decays in the published code: what is neither a bias nor a scale nor
# in the head.
DECAY = ("^(?!head/).*(kernel|embedding|slots|hidden)$",)


def get_config(preset: str = "default"):
  published = {name: lambda name=name: _published(name) for name in SIZES}
  makers = {
    "default": digits,
    "digits": digits,
    "fashion": fashion,
    "smoke": smoke,
    "smoke_real": smoke_real,
    "paper": published["b"],
    **published,
  }
  return common.choose("configs/mar.py", makers, preset)()


def _generator(tokenizer, **model):
  """A run of MAR on the units of the tokenizer of another config."""
  c = common.over(tokenizer, "mar", **model)
  c.optim.update(weight_decay=0.02)
  c.optim.decay = DECAY
  c.sample.options.update(
    guidance=1.5, schedule="linear", steps=16, denoise=50, temperature=1.0
  )
  return c


def digits():
  """scikit-learn's digits at 16 pixels: the tokenizer, then MAR."""
  tokenizer = kl_vae.get_config("digits")
  c = _generator(
    tokenizer,
    depth=2,
    width=96,
    heads=4,
    head_depth=3,
    head_width=128,
    prefix=4,
    num_classes=10,
  )
  c.optim.update(lr=2e-3)
  c.train.update(steps=800, save_every=400, ema=0.99)
  c.evals.judge_accuracy = {"n": 300}
  c.evals.frechet = {"features": "judge"}
  return common.from_nothing(tokenizer, c)


def fashion():
  """Fashion-MNIST at 32 pixels: the tokenizer, then MAR."""
  tokenizer = kl_vae.get_config("fashion")
  c = _generator(
    tokenizer,
    depth=3,
    width=128,
    heads=4,
    head_depth=3,
    head_width=192,
    prefix=8,
    num_classes=10,
  )
  c.optim.update(lr=1e-3)
  c.train.update(steps=1500, save_every=500, ema=0.995)
  c.evals.judge_accuracy = {"n": 1000}
  c.evals.frechet = {"features": "judge", "n": 2000}
  return common.from_nothing(tokenizer, c)


def _published(size):
  tokenizer = kl_vae.get_config("paper")
  c = _generator(
    tokenizer,
    **SIZES[size],
    num_classes=1000,
    remat=common.remat(size != "b"),
    dtype="bfloat16",
  )
  c.weights.tokenizer = "runs/kl16"
  c.data.crop = "center"
  c.augment = ("flip",)
  c.cache.views = 2  # moments of the image and of its mirror image, mostly
  c.batch = 2048
  # 800 epochs, of which 100 warm up.
  steps = 800 * common.IMAGENET_IMAGES // c.batch
  c.train.update(steps=steps, log_every=100, save_every=5000, ema=0.9999)
  c.optim.update(
    lr=1e-4 * c.batch / 256,
    schedule="constant",
    warmup=1 / 8,
    b1=0.9,
    b2=0.95,
    clip=3.0,
  )
  # The FID protocol: 256 steps of one unit each.
  c.sample.options.update(guidance=GUIDANCE[size], steps=256, denoise=100)
  return common.fid(c)


def smoke(tokenizer=None):
  """Seconds on two cores: fake data, a tokenizer that knows nothing."""
  tokenizer = tokenizer or patches()
  c = _generator(
    tokenizer,
    depth=1,
    width=32,
    heads=2,
    head_depth=1,
    head_width=32,
    prefix=2,
    num_classes=3,
    repeats=2,
  )
  c.sample.options.update(steps=3, denoise=4)
  return common.seconds(c, tokenizer)


def smoke_real():
  """The same over the real tokenizer, untrained."""
  return smoke(kl_vae.get_config("smoke"))
