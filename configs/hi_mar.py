"""Hi-MAR: a small image first, then the whole one (arXiv 2505.20288).

Presets: default (digits), fashion, smoke, and the published models at 256 px:
b, l, h; paper is b. These expect the published tokenizer, converted, at
runs/kl16, and ImageNet in TFDS.
"""

import functools

from ar_jax.systems.hi_mar import SIZES
from configs import common
from configs.families import latent

# All that decays in the published code: what is neither a bias nor a scale of a
# norm nor in a head.
DECAY = (
  "^(?!(map_)?head/).*(kernel|embedding|slots|hidden|blank|ada/s[a-z]*)$",
)
# Guidance at the end of the phases, and steps of the second.
SAMPLING = {"b": (2.7, 2.5, 4), "l": (3.5, 3.5, 4), "h": (5.5, 3.2, 12)}


def over(tokenizer, **model):
  """A run of Hi-MAR on the units of the tokenizer of another config."""
  c = common.over(tokenizer, "hi_mar", **model)
  c.optim.update(weight_decay=0.02, decay=DECAY)
  c.sample.options.update(
    steps=4, guidance=1.5, small_guidance=1.5, denoise=50, map_denoise=50
  )
  return c


def small(make, **rest):
  """Digits or Fashion-MNIST: the tokenizer, then Hi-MAR."""
  sizes = dict(depth=2, width=96, heads=4, head=(3, 128), map_head=(2, 96, 4))
  return make(over, prefix=4, pivot_rate=0.5, pivot_ramp=200, **sizes, **rest)


def published(size):
  """800 epochs, of which 100 warm up."""
  ramp = 100 * common.IMAGENET_IMAGES // 2048
  more = dict(SIZES[size], remat=common.remat(size != "b"), pivot_ramp=ramp)
  c = latent.published(over, epochs=800, rate=1e-4, **more)
  c.optim.update(schedule="constant", warmup=1 / 8, clip=3.0)
  first, second, steps = SAMPLING[size]
  c.sample.options.update(
    steps=steps, guidance=second, small_guidance=first, denoise=100,
    map_denoise=250,
  )  # fmt: skip
  return c


def smoke(real=False):
  """Seconds on two cores: fake data, a tokenizer that knows nothing."""
  sizes = dict(depth=1, width=32, heads=2, head=(1, 32), map_head=(1, 32, 2))
  c = latent.smoke(over, real, prefix=2, repeats=2, pivot_rate=0.5, **sizes)
  c.sample.options.update(steps=2, denoise=4, map_denoise=4)
  return c


get_config = common.presets(
  __file__,
  default=functools.partial(small, latent.digits, lr=2e-3, steps=800),
  fashion=functools.partial(small, latent.fashion, lr=1e-3, steps=1500),
  smoke=smoke,
  smoke_real=functools.partial(smoke, real=True),
  **common.published(published, SIZES, "b"),
)
