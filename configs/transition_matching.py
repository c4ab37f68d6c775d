"""Transition Matching (arXiv 2506.23589).

Presets: default (digits), fashion, points (a ring in the plane), smoke, and
the published models over images and texts of one's own: paper (dtm, 16
transitions) and llm (fhtm over Llama's layers, 3 transitions).
`--config.model.kind` chooses dtm, artm, fhtm or fm.
"""

from ar_jax.systems.transition_matching import SIZES
from configs import common, kl_vae
from configs.families import latent

NAME = "transition_matching"


def over(tokenizer, **model):
  """A run on the latents of the tokenizer of another config."""
  return tuned(common.over(tokenizer, NAME, **model))


def tuned(c):
  """The run c, with the rates and the sampler of its kind."""
  c.optim.update(weight_decay=0.0, b2=0.95)
  c.sample.options.update(steps=16, head_steps=8, guidance=1.0)
  return c


def small(make):
  """Digits or Fashion-MNIST."""
  sizes = dict(width=96, depth=4, heads=3, head_width=128, repeats=4)
  return lambda: make(over, lr=1e-3, steps=2000, **sizes)


def points():
  """Eight normal laws on a ring; nothing but the point is known."""
  codes = dict(name="given", form="series", length=1, channels=2)
  c = common.run(NAME, tokenizer=codes, stack="mlp", width=64, depth=3)
  c.data = common.data("ring")
  tuned(c).optim.update(lr=2e-3)
  c.batch, c.train.steps = 512, 4000
  c.evals.likelihood = {}
  return c


def published(size, **model):
  """The published recipe; batches, rates and steps are the paper's."""
  tokenizer = kl_vae.get_config("f8")
  tokenizer.model.scale = 0.13025  # of the latents of SDXL
  text = dict(name="features", length=128, width=4096)
  c = over(
    tokenizer, **SIZES[size], patch=2, text=text, remat=True,
    dtype="bfloat16", **model,
  )  # fmt: skip
  c.weights.tokenizer = "runs/sdxl_vae"
  c.data.update(name="folder", size=256, channels=3)
  c.data.text_features = "runs/flan_ul2_features"
  c.batch, c.train.steps, c.train.ema = 2048, 500_000, 0.9999
  c.optim.update(lr=1e-4, schedule="constant", warmup=0.004)
  c.sample.options.update(head_steps=32, guidance=6.5)
  c.evals.likelihood = {}
  return c


def paper():
  return published("dit", kind="dtm")


def llm():
  c = published("llm", kind="fhtm", steps=3, grid="exponential")
  c.sample.options.steps = 3
  return c


def smoke(real=False, **model):
  """Seconds on two cores: fake data, a tokenizer that knows nothing."""
  sizes = dict(width=32, depth=1, heads=2, head_width=32, head_depth=1)
  c = latent.smoke(over, real, **sizes | model)
  c.sample.options.update(steps=2, head_steps=2)
  return c


get_config = common.presets(
  __file__,
  default=small(latent.digits),
  fashion=small(latent.fashion),
  points=points,
  smoke=smoke,
  paper=paper,
  llm=llm,
)
