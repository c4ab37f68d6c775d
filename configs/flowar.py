"""FlowAR: next-scale prediction by flow matching (arXiv 2412.15205).

Presets: default (digits), fashion, smoke, and the published models at 256 px:
s, l, h; paper is l. These expect the published tokenizer, converted, at
runs/kl16, and ImageNet in TFDS.
"""

from ar_jax.systems.flowar import SIZES
from configs import common, kl_vae
from configs.families.tokenizer import patches

# Guidance at the finest map, points of the solver, largest share of noise
# that is guided.
SAMPLING = {"s": (4.3, 25, 0.9), "l": (2.4, 25, 0.9), "h": (2.4, 50, 0.7)}


def get_config(preset: str = "default"):
  published = {name: lambda name=name: _published(name) for name in SIZES}
  makers = {
    "default": digits,
    "digits": digits,
    "fashion": fashion,
    "smoke": smoke,
    "smoke_real": smoke_real,
    "paper": published["l"],
    **published,
  }
  return common.choose("configs/flowar.py", makers, preset)()


def _generator(tokenizer, **model):
  """A run of FlowAR on the units of the tokenizer of another config."""
  c = common.over(tokenizer, "flowar", **model)
  c.optim.update(weight_decay=0.02)
  c.sample.options.update(
    guidance=1.5, schedule="ramp", guide_until=0.9, times=25, temperature=1.0
  )
  return c


def digits():
  """scikit-learn's digits at 16 pixels: the tokenizer, then FlowAR."""
  tokenizer = kl_vae.get_config("digits")
  c = _generator(
    tokenizer,
    depth=2,
    width=96,
    heads=4,
    head_depth=2,
    head_width=128,
    num_classes=10,
  )
  c.optim.update(lr=2e-3)
  c.train.update(steps=800, save_every=400, ema=0.99)
  c.evals.judge_accuracy = {"n": 300}
  c.evals.frechet = {"features": "judge"}
  return common.from_nothing(tokenizer, c)


def fashion():
  """Fashion-MNIST at 32 pixels: the tokenizer, then FlowAR."""
  tokenizer = kl_vae.get_config("fashion")
  c = _generator(
    tokenizer,
    depth=3,
    width=128,
    heads=4,
    head_depth=2,
    head_width=192,
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
    remat=common.remat(size != "s"),
    dtype="bfloat16",
  )
  c.weights.tokenizer = "runs/kl16"
  c.data.crop = "center"
  c.augment = ("flip",)
  c.cache.views = 2
  c.batch = 2048
  # 400 epochs, of which 100 warm up; what follows the warm-up is not
  # published.
  steps = 400 * common.IMAGENET_IMAGES // c.batch
  c.train.update(steps=steps, log_every=100, save_every=5000, ema=0.9999)
  c.optim.update(
    lr=5e-5 * c.batch / 256, schedule="cosine", warmup=1 / 4, b1=0.9, b2=0.95
  )
  guidance, times, until = SAMPLING[size]
  c.sample.options.update(guidance=guidance, times=times, guide_until=until)
  return common.fid(c)


def smoke(tokenizer=None):
  """Seconds on two cores: fake data, a tokenizer that knows nothing."""
  tokenizer = tokenizer or patches(4)
  c = _generator(
    tokenizer,
    depth=1,
    width=32,
    heads=2,
    head_depth=1,
    head_width=32,
    head_heads=2,
    num_classes=3,
  )
  c.sample.options.update(times=4)
  return common.seconds(c, tokenizer)


def smoke_real():
  """The same over the real tokenizer, untrained."""
  return smoke(kl_vae.get_config("smoke"))
