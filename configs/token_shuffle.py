"""Token-Shuffle: windows of codes in one position (arXiv 2504.17789).

Presets: default (digits), fashion, smoke, and paper, the published 2.7B at
2048 px, guided as there. It is over images and texts of the user's own, as in
`configs/llamagen_text.py`; rates and tokenizer are LlamaGen's.
"""

from ar_jax.systems.token_shuffle import SIZES
from configs import common, llamagen_text
from configs.families import token

LAW = dict(schedule="half_linear")


def on(stages):
  """The stages of a generator, guided as in the paper."""
  stages.generator.sample.options.update(LAW)
  return stages


def paper():
  """The last stage: 300 B positions of 4096 windows and 120 of the text."""
  c = llamagen_text.get_config("paper")
  c.system, c.data.size, c.model.tokenizer.size = "token_shuffle", 2048, 2048
  c.model.update(SIZES["2.7b"], window=2, z_loss=1e-4)
  c.train.steps = 300_000_000_000 // (c.batch * (4096 + 120))
  c.sample.options.update(LAW, guidance=7.5, top_k=0)
  return c


def smoke():
  """Seconds on two cores: fake data, 2 x 2 windows."""
  c = token.smoke("token_shuffle", z_loss=1e-4)
  c.sample.options.update(LAW)
  return c


get_config = common.presets(
  __file__,
  default=lambda: on(token.digits("token_shuffle")),
  fashion=lambda: on(token.fashion("token_shuffle")),
  smoke=smoke,
  paper=paper,
)
