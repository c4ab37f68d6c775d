"""Token-Shuffle: windows of codes in one position (arXiv 2504.17789).

Presets: default (digits), fashion, smoke, and paper, the published 2.7B at 2048
px, over images and texts of one's own; rates and tokenizer are LlamaGen's.
"""

from ar_jax.systems.token_shuffle import SIZES
from configs import common, llamagen_text
from configs.families import token

NAME = "token_shuffle"


def guided(c):
  """The run or the stages c, guided as in the paper."""
  run = c.generator if "generator" in c else c
  run.sample.options.schedule = "half_linear"
  return c


def paper():
  # The last stage: 300 B positions, 4096 windows and 120 of the text each.
  c = llamagen_text.get_config("paper")
  c.system, c.data.size, c.model.tokenizer.size = NAME, 2048, 2048
  c.model.update(SIZES["2.7b"], window=2, z_loss=1e-4)
  c.train.steps = 300_000_000_000 // (c.batch * (4096 + 120))
  c.sample.options.update(guidance=7.5, top_k=0)
  return guided(c)


get_config = common.presets(
  __file__,
  default=lambda: guided(token.digits(NAME)),
  fashion=lambda: guided(token.fashion(NAME)),
  smoke=lambda: guided(token.smoke(NAME, z_loss=1e-4)),
  paper=paper,
)
