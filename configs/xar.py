"""xAR: next-X prediction (arXiv 2502.20388).

Presets: default (digits), minutes, fashion, smoke, and the published models b,
l and h at 256 px; paper is b. They expect the published tokenizer, converted,
at runs/kl16, and ImageNet in TFDS.
"""

import functools

from configs import common
from configs.families import latent

# depth, width, heads, scale of guidance of the best FID, steps an entity.
PUBLISHED = {
  "b": (16, 768, 12, 2.7, 40),
  "l": (32, 1024, 16, 2.3, 50),
  "h": (40, 1280, 16, 2.2, 50),
}
# Of digits and Fashion-MNIST: four cells of 4 x 4 latents.
CELLS = dict(part=4, dropout=0.0, guidance=1.5)


def over(tokenizer, guidance=1.0, **model):
  """A run of xAR on the latents of the tokenizer of another config."""
  c = common.over(tokenizer, "xar", **model)
  c.optim.update(b1=0.9, b2=0.96, weight_decay=0.02, clip=1.0)
  c.sample.options.update(
    guidance=guidance, schedule="ramp", steps=25, method="sde", last=0.04
  )
  return c


def digits():
  """scikit-learn's digits at 16 pixels: the tokenizer, then xAR."""
  sizes = dict(depth=4, width=96, heads=3, **CELLS)
  return latent.digits(over, lr=3e-3, steps=1200, **sizes)


def minutes():
  """A third of the updates of `digits`, of half as many images: what the
  notebook trains."""
  c = digits()
  c.generator.batch = 32
  c.generator.train.update(steps=400, save_every=200)
  return common.trained_alone(c)


def fashion():
  """Fashion-MNIST at 32 pixels: the tokenizer, then xAR."""
  sizes = dict(depth=6, width=128, heads=4, **CELLS)
  return latent.fashion(over, lr=2e-3, steps=2000, **sizes)


def published(name):
  """800 epochs over four views; 168 GB of moments. The official cache holds
  each image once as it is and once flipped."""
  depth, width, heads, guidance, steps = PUBLISHED[name]
  sizes = dict(depth=depth, width=width, heads=heads, part=8)
  sizes.update(guidance=guidance, remat=common.remat(depth >= 32))
  c = latent.published(over, epochs=800, rate=5e-5, views=4, **sizes)
  # Constant to epoch 600.
  c.optim.update(schedule="late_cosine", warmup=1 / 8, end=0.025)
  c.sample.options.steps = steps
  return c


def smoke(real=False):
  """Seconds on two cores: fake data, a tokenizer that knows nothing."""
  c = latent.smoke(over, real, depth=2, width=32, heads=2, part=2)
  c.sample.options.steps = 3
  return c


get_config = common.presets(
  __file__,
  default=digits,
  digits=digits,
  minutes=minutes,
  fashion=fashion,
  smoke=smoke,
  smoke_real=functools.partial(smoke, real=True),
  smoke_stages=lambda: latent.smoke_stages(digits(), smoke(real=True)),
  **common.published(published, PUBLISHED, "b"),
)
