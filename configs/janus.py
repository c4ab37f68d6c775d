"""Janus: images from prompts (arXiv 2410.13848, 2501.17811).

Presets: default (digits by prompts such as "a photo of seven"), smoke, and the
published models at 384 px: 1b and 7b; paper is 7b. These expect a converted
model, and prompts as ids of its tokenizer at runs/prompts.npz; see docs/data.md
(prompt_pairs).
"""

from ar_jax.data.text import prompts
from ar_jax.systems.janus import SIZES, WORDS
from configs import common, vq
from configs.families import token
from configs.families.tokenizer import patch_codes

FORM, LENGTH = prompts.vocabulary(prompts.TEMPLATES, prompts.NUMBERS, "janus")
OWN = dict(vocab=FORM.vocab, length=LENGTH)  # words of the templates


def over(tokenizer, words, **model):
  """A run on the units of a tokenizer, and prompts that name the class."""
  c = token.over(tokenizer, "janus", words=words, **model)
  common.prompted(c)  # "a seven"
  return c


def digits():
  """scikit-learn's digits at 8 pixels by prompts; minutes on two cores."""
  tokenizer = patch_codes(vocab=64)
  tokenizer.data = common.data("digits", path="", size=8, channels=1)
  tokenizer.data.derive = {"prompts": {}}
  tokenizer.batch, tokenizer.eval_batch = 64, 256
  tokenizer.train.update(steps=0)  # its codes are fitted, not trained
  sizes = dict(depth=4, width=96, heads=4, multiple_of=32)
  c = over(tokenizer, OWN, **sizes, channels=4)
  c.optim.update(lr=3e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=800, save_every=400, ema=0.99)
  c.sample.options.guidance = 3.0
  stages = common.from_nothing(tokenizer, c)
  c.cache.views = 4  # of the prompts, each view has another one
  c.evals.concept = {"concept": 7}
  return stages


def published(name):
  """A published model; to draw from it, and to erase from it."""
  tokenizer = vq.get_config("paper")
  tokenizer.model.size = 384
  sizes = dict(SIZES[name], dtype="bfloat16", remat=common.remat(True))
  c = over(tokenizer, WORDS, **sizes)
  c.weights.tokenizer = "runs/vq_ds16_t2i"
  c.data = common.data("prompt_pairs", path="runs/prompts.npz")
  c.sample.options.update(guidance=5.0, temperature=1.0)
  return c


def smoke():
  """Seconds on two cores."""
  tokenizer = patch_codes()
  tokenizer.data.derive = {"prompts": {}}
  sizes = dict(depth=2, width=32, heads=2, multiple_of=32)
  return common.seconds(over(tokenizer, OWN, **sizes), tokenizer)


get_config = common.presets(
  __file__,
  default=digits,
  smoke=smoke,
  **common.published(published, SIZES, "7b"),
)
