"""ECM: a frozen VAR that follows edges, by adapters (arXiv 2510.05610).

Presets: default (digits), minutes, fashion, smoke, and adapters of the
published VARs: d16 (paper), d20, d24. The first three train tokenizer, VAR and
adapters. The published ones expect VAR, converted, at runs/var_d16 (d20, d24),
its tokenizer, and ImageNet in TFDS. Control pictures of one's own:
`--mode=sample --config.sample.control=FILE`. With a published encoder of
pictures, converted, to begin with: `--config.weights.params=DIR`, and its sizes
as `model.encoder`.
"""

import copy

from ml_collections import config_dict

from ar_jax.systems.controlar import ENCODERS
from configs import common, var
from configs.controlar import CANNY, following
from configs.families.around import behind, target

VIT = ENCODERS["vit_s"] | dict(side=16)


def adapters(like, edges, **model):
  """The run of adapters for the VAR of the run `like`."""
  c = common.base("ecm", target=target(like), **model)
  c.data = like.data  # the very same: an override reaches both
  c.batch, c.eval_batch = like.batch, like.eval_batch
  c.sample = copy.deepcopy(like.sample)
  # 0.8 times the temperature of the first map, where it is not set.
  c.sample.options.last_temperature = config_dict.placeholder(float)
  c.sample.options.guide_control = False
  c.evals.likelihood = {}
  return following(c, **edges)


def staged(preset, steps, **model):
  """Tokenizer, VAR and adapters, the last in so many steps."""
  like = var.get_config(preset)
  sobel = dict(kind="sobel", threshold=0.3)
  c = adapters(like.generator, sobel, **model)
  c.optim.lr = 2e-3
  c.train.update(steps=steps, save_every=steps // 2, ema=0.98)
  c.weights.update(tokenizer="tokenizer", target="generator")
  c.cache.views = 1
  c.sample.options.guidance = 1.0
  c.evals.judge_accuracy = {"n": 300}
  return behind(like, "adapters", c)


def minutes():
  """In the sizes of the experiment: what the notebook trains."""
  small = dict(depth=1, width=32, heads=2)
  c = staged("minutes", 250, adapters=2, encoder=small)
  c.adapters.optim.lr = 3e-3
  return common.trained_alone(c)


def published(name):
  """15 epochs, as published; batch and rate are ours."""
  like = var.get_config(name)
  c = adapters(like, CANNY, encoder=VIT)
  c.weights.update(tokenizer=like.weights.tokenizer, target=f"runs/var_{name}")
  c.batch, c.optim.lr = 256, 1e-4
  steps = 15 * common.IMAGENET_IMAGES // c.batch
  c.train.update(steps=steps, log_every=100, save_every=5000)
  c.sample.options.top_p = 0.95
  return c


def smoke():
  """Seconds on two cores: fake data, a VAR that knows nothing."""
  like = var.get_config("smoke")
  like.model.head_init = 2.0  # or its logits are nearly 0 whatever is added
  small = dict(depth=1, width=16, heads=2)
  sobel = dict(kind="sobel", threshold=0.1)
  c = adapters(like, sobel, adapters=2, encoder=small)
  c.train.update(like.train)
  c.optim.lr = 1e-2
  return c


get_config = common.presets(
  __file__,
  default=lambda: staged("default", 200, adapters=2),
  minutes=minutes,
  fashion=lambda: staged("fashion", 400, adapters=3),
  smoke=smoke,
  **common.published(published, ("d16", "d20", "d24"), "d16"),
)
