"""HMAR: next-scale prediction without memory, refined (arXiv 2506.04421).

Presets: default (digits), fashion, smoke, and the published models d16, d20,
d24 and d30 at 256 px; paper is d16. Each of these is the second stage and
takes the first, d16_first and so on, from runs/hmar_d16_first; both expect
the published tokenizer, converted, at runs/vae_ch160v4096z32, and ImageNet in
TFDS.
"""

import functools

from ar_jax.systems.hmar import SCHEDULES
from configs import common
from configs.families import scale
from configs.families.around import behind

# Scale of guidance at the last scale, 1 + the paper's cfg, and top-k.
PUBLISHED = {
  "d16": (2.7, 1000),
  "d20": (2.9, 950),
  "d24": (3.1, 900),
  "d30": (2.6, 650),
}


def refinement(c, refine):
  """The run of the second stage after the first, `c`."""
  data = c.data
  c = c.copy_and_resolve_references()
  c.data = data  # the very same: an override reaches both
  c.model.refine = True
  c.sample.options.refine = refine
  return c


def _staged(c, refine):
  """The stages of VAR's config with the second stage behind the generator."""
  after = refinement(c.generator, refine)
  after.weights.net = "generator"
  after.train.update(steps=c.generator.train.steps // 2)
  return behind(c, "refinement", after)


def digits():
  """scikit-learn's digits at 16 pixels: tokenizer and both stages."""
  return _staged(scale.digits("hmar", tail=2), ((1,), (1, 3), (2, 2, 5)))


def fashion():
  """Fashion-MNIST at 32 pixels: tokenizer and both stages."""
  return _staged(scale.fashion("hmar", tail=2), ((1,), (1, 3), (4, 4, 8)))


def first(name):
  """The next-scale net, trained as VAR is."""
  guidance, top_k = PUBLISHED[name]
  c = scale.published(name, "hmar")
  c.sample.options.update(guidance=guidance, top_k=top_k, top_p=0.99)
  return c


def second(name):
  """The refinement: 100 epochs by the same recipe."""
  c = refinement(first(name), SCHEDULES["256"])
  c.weights.net = f"runs/hmar_{name}_first"
  c.train.steps = 100 * common.IMAGENET_IMAGES // c.batch
  return c


def smoke():
  """Seconds on two cores: the second stage over a net that knows nothing."""
  return refinement(scale.smoke("hmar", tail=1), ((1,), (1, 3)))


get_config = common.presets(
  __file__,
  default=digits,
  digits=digits,
  fashion=fashion,
  smoke=smoke,
  **common.published(second, PUBLISHED, "d16"),
  **{f"{name}_first": functools.partial(first, name) for name in PUBLISHED},
)
