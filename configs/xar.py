"""xAR: next-X prediction (arXiv 2502.20388).

Presets: default (digits), fashion, smoke, and the published models b, l and h
at 256 px; paper is b. They expect the published tokenizer, converted, at
runs/kl16, and ImageNet in TFDS.
"""

from configs import common, kl_vae
from configs.families.tokenizer import patches

# depth, width, heads, scale of guidance of the best FID, steps an entity.
PUBLISHED = {
  "b": (16, 768, 12, 2.7, 40),
  "l": (32, 1024, 16, 2.3, 50),
  "h": (40, 1280, 16, 2.2, 50),
}


def get_config(preset: str = "default"):
  published = {
    name: lambda row=row: _published(*row) for name, row in PUBLISHED.items()
  }
  makers = {
    "default": digits,
    "digits": digits,
    "fashion": fashion,
    "smoke": smoke,
    "smoke_real": smoke_real,
    "smoke_stages": smoke_stages,
    "paper": published["b"],
    **published,
  }
  return common.choose("configs/xar.py", makers, preset)()


def generator(tokenizer, **model):
  """A run of xAR on the latents of the tokenizer of another config."""
  c = common.over(tokenizer, "xar", **model)
  c.optim.update(b1=0.9, b2=0.96, weight_decay=0.02, clip=1.0)
  c.sample.options.update(
    guidance=1.0, schedule="ramp", steps=25, method="sde", last=0.04
  )
  return c


def digits():
  """scikit-learn's digits at 16 pixels: the tokenizer, then xAR in four cells
  of 4 x 4 latents."""
  tokenizer = kl_vae.get_config("digits")
  c = generator(
    tokenizer, depth=4, width=96, heads=3, num_classes=10, part=4, dropout=0.0
  )
  c.optim.update(lr=3e-3)
  c.train.update(steps=1200, save_every=400, ema=0.99)
  c.sample.options.guidance = 1.5
  c.evals.judge_accuracy = {"n": 300}
  c.evals.frechet = {"features": "judge"}
  return common.from_nothing(tokenizer, c)


def fashion():
  """Fashion-MNIST at 32 pixels: the tokenizer, then xAR in four cells."""
  tokenizer = kl_vae.get_config("fashion")
  c = generator(
    tokenizer, depth=6, width=128, heads=4, num_classes=10, part=4, dropout=0.0
  )
  c.optim.update(lr=2e-3)
  c.train.update(steps=2000, save_every=500, ema=0.995)
  c.sample.options.guidance = 1.5
  c.evals.judge_accuracy = {"n": 1000}
  c.evals.frechet = {"features": "judge", "n": 2000}
  return common.from_nothing(tokenizer, c)


def _published(depth, width, heads, guidance, steps):
  tokenizer = kl_vae.get_config("paper")
  c = generator(
    tokenizer,
    depth=depth,
    width=width,
    heads=heads,
    num_classes=1000,
    part=8,
    remat=common.remat(depth >= 32),
    dtype="bfloat16",
  )
  c.weights.tokenizer = "runs/kl16"
  c.data.update(name="imagenet2012", size=256, crop="center")
  # Moments of four views of each image, flipped or not as pixels; 168 GB. The
  # official cache holds each image once as it is and once flipped.
  c.augment = ("flip",)
  c.cache.views = 4
  c.batch = 2048
  c.optim.update(
    lr=5e-5 * c.batch / 256,
    schedule="late_cosine",  # constant to epoch 600 of 800
    warmup=1 / 8,
    end=0.025,
  )
  steps_trained = 800 * common.IMAGENET_IMAGES // c.batch
  c.train.update(
    steps=steps_trained, ema=0.9999, log_every=100, save_every=5000
  )
  c.sample.options.update(guidance=guidance, steps=steps)
  return common.fid(c)


def smoke(tokenizer=None):
  """Seconds on two cores: fake data, a tokenizer that knows nothing."""
  tokenizer = tokenizer or patches()
  c = generator(tokenizer, depth=2, width=32, heads=2, num_classes=3, part=2)
  c.sample.options.steps = 3
  return common.seconds(c, tokenizer)


def smoke_real():
  """The same over the real tokenizer, untrained."""
  return smoke(kl_vae.get_config("smoke"))


def smoke_stages():
  """The stages of the default on fake data, for tests."""
  config = digits()
  weights = config.generator.weights
  config.tokenizer = kl_vae.get_config("smoke")
  config.generator = smoke_real()
  config.generator.weights = weights
  return config
