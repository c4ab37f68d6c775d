"""SAR: post-training of a next-scale model (arXiv 2512.06421).

Presets: default (digits) and fashion, over FlexVAR; var, over VAR on digits;
smoke; and the last ten epochs of the published models: d16, d20, d24 (paper is
d16). These expect FlexVAR, trained or converted, at runs/flexvar_<size> and
its tokenizer at runs/flexvae.
"""

import copy

import ml_collections

from configs import common, flexvar, var

# Guidance of the published samples: 1 + the paper's cfg.
GUIDANCE = {"d16": 3.2, "d20": 3.6, "d24": 4.3}


def get_config(preset: str = "default"):
  published = {size: lambda size=size: _published(size) for size in GUIDANCE}
  makers = {
    "default": lambda: _staged(flexvar, "default"),
    "fashion": lambda: _staged(flexvar, "fashion"),
    "var": lambda: _staged(var, "default"),
    "smoke": smoke,
    "paper": published["d16"],
    **published,
  }
  return common.choose("configs/sar.py", makers, preset)()


def _over(c, **options):
  """The run c, with SAR around its system."""
  target = {"name": c.system, **c.model.to_dict()}
  c.system = "sar"
  c.model = ml_collections.ConfigDict({"target": target, **options})
  return c


def _staged(base, preset):
  """The stages of another config with a fifth of its steps behind them, at a
  tenth of its rate."""
  c = base.get_config(preset)
  after = _over(copy.deepcopy(c.generator), sigma=0.1)
  after.data = c.tokenizer.data  # the very same: an override reaches all
  after.weights.update(params="generator", tokenizer="tokenizer")
  after.optim.update(lr=c.generator.optim.lr / 10, schedule="constant")
  steps = c.generator.train.steps // 5
  after.train.update(steps=steps, save_every=steps)
  return common.stages(
    tokenizer=c.tokenizer,
    generator=c.generator,
    after=after,
    samples=common.stage("after", "sample"),
    evaluation=common.stage("after", "eval"),
  )


def _published(size):
  c = flexvar.get_config(size)
  end = c.optim.end * c.optim.lr
  c = _over(
    c,
    sigma=0.01,
    sf_scales="last",
    draws="sample",
    guidance=2.2,  # the code's cfg of 1.2
    top_k=900,
    top_p=0.96,
  )
  c.weights.params = f"runs/flexvar_{size}"
  # The rate of these epochs is not published; it must be near the last one.
  c.optim.update(lr=end, schedule="constant", warmup=0)
  c.train.steps = 10 * common.IMAGENET_IMAGES // c.batch
  c.sample.options.guidance = GUIDANCE[size]
  return c


def smoke():
  """Seconds on two cores: fake data, nothing is trained before."""
  return _over(flexvar.get_config("smoke"), sigma=0.1)
