"""SAR: post-training of a next-scale model (arXiv 2512.06421).

Presets: default (digits) and fashion, over FlexVAR; var, over VAR on digits;
infinity, over maps of bits of a text; smoke; and the last ten epochs of the
published models: d16, d20, d24 (paper is d16). These expect FlexVAR, trained or
converted, at runs/flexvar_<size> and its tokenizer at runs/flexvae.
"""

import copy

from configs import common, flexvar, infinity, var
from configs.families.around import around, behind

# Guidance of the published samples: 1 + the paper's cfg.
GUIDANCE = {"d16": 3.2, "d20": 3.6, "d24": 4.3}


def _staged(c):
  """The stages of another config with a fifth of its steps behind them, at a
  tenth of its rate."""
  after = around(copy.deepcopy(c.generator), "sar", sigma=0.1)
  after.data = c.tokenizer.data  # the very same: an override reaches all
  after.weights.update(params="generator", tokenizer="tokenizer")
  after.optim.update(lr=c.generator.optim.lr / 10, schedule="constant")
  steps = c.generator.train.steps // 5
  after.train.update(steps=steps, save_every=steps)
  return behind(c, "after", after)


def _bits():
  """Over an Infinity without wrong bits, which the second pass replaces."""
  c = infinity.get_config()
  c.generator.model.correction = None
  return _staged(c)


def published(size):
  """The last ten epochs of a published model."""
  c = flexvar.get_config(size)
  end = c.optim.end * c.optim.lr
  around(
    c,
    "sar",
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
  return around(flexvar.get_config("smoke"), "sar", sigma=0.1)


get_config = common.presets(
  __file__,
  default=lambda: _staged(flexvar.get_config()),
  fashion=lambda: _staged(flexvar.get_config("fashion")),
  var=lambda: _staged(var.get_config()),
  infinity=_bits,
  smoke=smoke,
  **common.published(published, GUIDANCE, "d16"),
)
