"""MAR: masked autoregression with a diffusion head (arXiv 2406.11838).

Presets: default (digits), fashion, smoke, and the published models at 256 px:
b, l, h; paper is b. These expect the published tokenizer, converted, at
runs/kl16, and ImageNet in TFDS.
"""

import functools

from ar_jax.systems.mar import SIZES
from configs import common
from configs.families import latent

# Guidance at the end of the published samplers.
GUIDANCE = {"b": 2.9, "l": 3.0, "h": 3.2}

# All that decays in the published code: what is neither a bias nor a scale nor
# in the head.
DECAY = ("^(?!head/).*(kernel|embedding|slots|hidden)$",)


def over(tokenizer, **model):
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
  sizes = dict(depth=2, width=96, heads=4, head_depth=3, head_width=128)
  return latent.digits(over, lr=2e-3, steps=800, prefix=4, **sizes)


def fashion():
  """Fashion-MNIST at 32 pixels: the tokenizer, then MAR."""
  sizes = dict(depth=3, width=128, heads=4, head_depth=3, head_width=192)
  return latent.fashion(over, lr=1e-3, steps=1500, prefix=8, **sizes)


def published(size):
  """800 epochs, of which 100 warm up."""
  more = dict(SIZES[size], remat=common.remat(size != "b"))
  c = latent.published(over, epochs=800, rate=1e-4, **more)
  c.optim.update(schedule="constant", warmup=1 / 8, clip=3.0)
  # The FID protocol: 256 steps of one unit each.
  c.sample.options.update(guidance=GUIDANCE[size], steps=256, denoise=100)
  return c


def smoke(real=False):
  """Seconds on two cores: fake data, a tokenizer that knows nothing."""
  sizes = dict(depth=1, width=32, heads=2, head_depth=1, head_width=32)
  c = latent.smoke(over, real, **sizes, prefix=2, repeats=2)
  c.sample.options.update(steps=3, denoise=4)
  return c


get_config = common.presets(
  __file__,
  default=digits,
  digits=digits,
  fashion=fashion,
  smoke=smoke,
  smoke_real=functools.partial(smoke, real=True),
  **common.published(published, SIZES, "b"),
)
