"""MTP by gated LoRA (arXiv 2507.11851), over LlamaGen.

Presets: default (digits) and fashion, three stages to train: tokenizer,
target, drafter; text and smoke_text, over a language model of characters;
smoke; and paper, with the published numbers of masks and rank over LlamaGen's
3b, at runs/c2i_3b: the language model of the paper is not here.
"""

from ar_jax.systems.mtp_gated_lora import PAPER
from configs import common, llamagen
from configs.families.around import target

NAME = "mtp_gated_lora"


def drafter(like, **model):
  """A run that trains what drafts for the run `like`."""
  c = like.copy_and_resolve_references()
  system = common.run(NAME, target=target(like), **model)
  c.system, c.model, c.data = NAME, system.model, like.data
  c.optim.update(schedule="linear", warmup=0.1, weight_decay=0.0)
  c.sample.options.update(quadratic=True)
  if "until_stop" in c.sample.options:
    del c.sample.options.until_stop  # speculation draws all units
  return c


def behind(stages, **model):
  """The stages of a LlamaGen, and behind its training that of the drafts."""
  like = stages.generator
  c = drafter(like, **model)
  c.weights.target = "generator"
  if "tokenizer" in stages:
    c.weights.tokenizer = "tokenizer"
  return common.stages(
    **({"tokenizer": stages.tokenizer} if "tokenizer" in stages else {}),
    generator=like,
    drafter=c,
    samples=common.stage("drafter", "sample"),
    evaluation=common.stage("drafter", "eval"),
  )


def text(preset="text"):
  """A language model of characters, then its drafts."""
  return behind(common.stages(generator=llamagen.get_config(preset)))


def paper():
  """50,000 updates at 2e-4, the first 5,000 rising, as far as is known."""
  like = llamagen.get_config("3b")
  c = drafter(like, **PAPER)
  c.weights.target, c.optim.lr = "runs/c2i_3b", 2e-4
  c.train.update(steps=50_000, ema=0.0, log_every=100, save_every=5000)
  return c


get_config = common.presets(
  __file__,
  default=lambda: behind(llamagen.get_config("default")),
  fashion=lambda: behind(llamagen.get_config("fashion")),
  text=text,
  smoke_text=lambda: text("smoke_text"),
  smoke=lambda: drafter(llamagen.get_config("smoke"), drafts=2, rank=4),
  paper=paper,
)
