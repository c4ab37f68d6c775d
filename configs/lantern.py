"""LANTERN: relaxed speculation (arXiv 2410.03355), over LlamaGen.

Presets: default (digits), fashion, smoke, and the published drafter of
LlamaGen's text-conditional model: paper (stage 1, 256 px) with the published
tree. That one expects the published tokenizer and model, converted, at
runs/vq_ds16_t2i and runs/t2i_xl_stage1, and data as configs/llamagen_text.py.
The first two have three stages to train: tokenizer, target, drafter. nar and
var (digits) judge, by the same rule, the drafts of a target of many units a
step itself: two stages. controlar (digits) and smoke_controlar draft for a
ControlAR: samples follow the edges of test images, or --config.sample.control.
"""

import copy

from configs import common, controlar, llamagen, llamagen_text, nar, var
from configs.families.around import around, behind, target

# Captions of COCO that the published drafter of Lumina-mGPT was trained on.
CAPTIONS = 30_000


def drafter(like):
  """A run that trains the drafter of the run `like`."""
  c = common.base("lantern", target=target(like), noise=0.2)
  c.data = like.data  # the very same: an override reaches both
  c.optim.update(
    lr=1e-4,
    schedule="linear",
    warmup=0.03,
    weight_decay=0.0,
    clip=0.0,
    clip_value=0.5,
  )
  c.batch, c.eval_batch = like.batch, like.eval_batch
  c.sample = copy.deepcopy(like.sample)
  c.sample.options.update(
    drafts=4, k=1000, delta=0.1, residual="budget", metric="used"
  )
  return c


def _staged(like):
  """Tokenizer, target, drafter, then what is drawn is looked at."""
  c = drafter(like.generator)
  # An image has 64 units: the published noise would drown small features.
  c.model.noise = 0.02
  c.batch, c.optim.lr = 64, 2e-3
  c.train.update(steps=300, save_every=150)
  c.weights.update(tokenizer="tokenizer", target="generator")
  c.cache.views = 1
  c.sample.options.k = 16
  c.evals = copy.deepcopy(like.generator.evals)
  del c.evals["likelihood"]
  return behind(like, "drafter", c)


def _itself(c):
  """The stages of a system of many units a step, which drafts for itself."""
  g = around(c.generator, "lantern", drafter="itself")
  g.sample.options.update(k=16, delta=0.1, residual="budget", metric="used")
  return c


def paper():
  """20 epochs, as published."""
  c = drafter(llamagen_text.get_config("paper"))
  c.weights.update(
    tokenizer="runs/vq_ds16_t2i",
    target="runs/t2i_xl_stage1",
    null="runs/t2i_xl_stage1",
  )
  c.batch = 4
  c.train.update(steps=20 * CAPTIONS // c.batch, log_every=100, save_every=5000)
  c.sample.options.update(guidance=3.0, top_k=1000, tree=(5, 10, 58))
  return c


def smoke(like):
  """Seconds on two cores: fake data, a target that knows nothing."""
  c = drafter(like)
  c.model.noise = 0.0
  c.optim.lr = 1e-2
  c.train.update(like.train)
  c.sample.options.update(drafts=3, k=4)
  c.evals = copy.deepcopy(like.evals)
  return c


get_config = common.presets(
  __file__,
  default=lambda: _staged(llamagen.get_config("default")),
  fashion=lambda: _staged(llamagen.get_config("fashion")),
  controlar=lambda: _staged(controlar.get_config()),
  nar=lambda: _itself(nar.get_config()),
  var=lambda: _itself(var.get_config()),
  smoke=lambda: smoke(llamagen.get_config("smoke")),
  smoke_controlar=lambda: smoke(controlar.get_config("smoke")),
  paper=paper,
)
