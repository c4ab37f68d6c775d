"""SDAR: blocks filled at once, from a model of one unit a step (2510.06303).

Presets: default (digits) and fashion, with a stage that trains the model they
begin with; text and smoke_text, language models over characters, the same way;
smoke; and the published sizes 1.7b, 4b and 8b, by the recipe of fine-tuning:
paper is 8b. These expect the published weights, converted, at runs/sdar_8b, and
texts as ids of Qwen3's vocabulary, which is not here.
"""

from ar_jax.systems.sdar import MASK_ID, QWEN, SIZES, VOCAB
from configs import common, llamagen
from configs.families import token

NAME, LENGTH = "sdar", 4096
LAW = dict(strategy="threshold", threshold=0.9, temperature=1.0)


def converted(c, base):
  """The run c, which goes on from the run or stage `base`: a tenth of the
  steps of one that begins from nothing."""
  c.weights.params = base
  c.sample.options.update(LAW)
  return c


def behind(stages, name="adapted"):
  """The stages of a LlamaGen, and behind its training that of SDAR."""
  like = stages.generator
  c = like.copy_and_resolve_references()
  c.system, c.data = NAME, like.data
  c.train.steps = c.train.save_every = max(like.train.steps // 10, 1)
  return common.stages(
    **({"tokenizer": stages.tokenizer} if "tokenizer" in stages else {}),
    generator=like,
    **{name: converted(c, "generator")},
    samples=common.stage(name, "sample"),
    evaluation=common.stage(name, "eval"),
  )


def text(preset="text"):
  """A language model of characters, then SDAR over the same ones."""
  like = llamagen.get_config(preset)
  return behind(common.stages(generator=like))


def published(name):
  """A published model, fine-tuned on texts of one's own."""
  words = common.data("words", corpus="kjv", path="", length=LENGTH, vocab=0)
  remat = common.remat(name != "1.7b")
  sizes = QWEN | SIZES[name] | dict(mask_id=MASK_ID, redraws=10, remat=remat)
  c = token.language(words, VOCAB, LENGTH, NAME, **sizes, dtype="bfloat16")
  c.model.tokenizer.stop = 151_643
  c.weights.params = f"runs/sdar_{name}"
  c.optim.update(lr=1e-5, schedule="constant", warmup=0.03, b2=0.999)
  c.batch, c.train.steps = 16, 10_000
  c.sample.options.update(LAW, until_stop=True)
  return c


def smoke():
  """Seconds on two cores: fake data, units in the order of the likelihood."""
  c = token.smoke(NAME, each_block=True)
  c.sample.options.strategy = "sequential"
  return c


get_config = common.presets(
  __file__,
  default=lambda: behind(llamagen.get_config("default")),
  fashion=lambda: behind(llamagen.get_config("fashion")),
  text=text,
  smoke_text=lambda: text("smoke_text"),
  smoke=smoke,
  **common.published(published, SIZES, "8b"),
)
