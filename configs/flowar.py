"""FlowAR: next-scale prediction by flow matching (arXiv 2412.15205).

Presets: default (digits), fashion, smoke, and the published models at 256 px:
s, l, h; paper is l. These expect the published tokenizer, converted, at
runs/kl16, and ImageNet in TFDS.
"""

import functools

from ar_jax.systems.flowar import SIZES
from configs import common
from configs.families import latent

# Guidance at the finest map, points of the solver, largest share of noise
# that is guided.
SAMPLING = {"s": (4.3, 25, 0.9), "l": (2.4, 25, 0.9), "h": (2.4, 50, 0.7)}


def over(tokenizer, **model):
  """A run of FlowAR on the units of the tokenizer of another config."""
  c = common.over(tokenizer, "flowar", **model)
  c.optim.update(weight_decay=0.02)
  c.sample.options.update(
    guidance=1.5, schedule="ramp", guide_until=0.9, times=25, temperature=1.0
  )
  return c


def digits():
  """scikit-learn's digits at 16 pixels: the tokenizer, then FlowAR."""
  sizes = dict(depth=2, width=96, heads=4, head_depth=2, head_width=128)
  return latent.digits(over, lr=2e-3, steps=800, **sizes)


def fashion():
  """Fashion-MNIST at 32 pixels: the tokenizer, then FlowAR."""
  sizes = dict(depth=3, width=128, heads=4, head_depth=2, head_width=192)
  return latent.fashion(over, lr=1e-3, steps=1500, **sizes)


def published(size):
  """400 epochs, of which 100 warm up; what follows the warm-up is not
  published."""
  more = dict(SIZES[size], remat=common.remat(size != "s"))
  c = latent.published(over, epochs=400, rate=5e-5, **more)
  c.optim.update(schedule="cosine", warmup=1 / 4)
  guidance, times, until = SAMPLING[size]
  c.sample.options.update(guidance=guidance, times=times, guide_until=until)
  return c


def smoke(real=False):
  """Seconds on two cores: fake data, a tokenizer that knows nothing."""
  sizes = dict(depth=1, width=32, heads=2, head_depth=1, head_width=32)
  c = latent.smoke(over, real, patch=4, **sizes, head_heads=2)
  c.sample.options.update(times=4)
  return c


get_config = common.presets(
  __file__,
  default=digits,
  digits=digits,
  fashion=fashion,
  smoke=smoke,
  smoke_real=functools.partial(smoke, real=True),
  **common.published(published, SIZES, "l"),
)
